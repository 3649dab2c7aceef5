"""Let what was built, and has proved itself, take the place of what there was, and say what is there now."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from pyrlab.host import contents, locks, owner
from pyrlab.host.engine import Engine
from pyrlab.host.project import Project
from pyrlab.host.session import Session
from pyrlab.host.state import NEW, PACKAGES, Image, beside
from pyrlab.host.text import aligned


def publish(now: Session, images: list[Image], lists: dict[str, str], asked: bool) -> None:
    """Put new images, their locks and lists of packages in the place of those before, and say what is another.

    Files of the checkout change where a list has, or if the user `asked` for it; `lists` are the packages by image.
    """
    project, table = now.project, now.project.table
    check_places(project, images)
    for image in images:
        rename(project.engine, image)
    owner.claim_volume(project, owner.tag_volume(project))
    before = locks.read(table, project.root)
    locks.publish(project, asked)
    moved = [change for name, packages in lists.items() for change in note_packages(project, name, packages)]
    now.progress.erase()
    after = locks.read(table, project.root)
    for note in [*now.progress.notes(), *locks.notes(before, after), *locks.moved_on(moved)]:
        print(f"pyrlab: {note}", file=sys.stderr)


def check_places(project: Project, images: list[Image]) -> None:
    """Raise Problem where a new image would take the place of another checkout's."""
    there = project.images()
    for image in images:
        image.before = there.get(image.place)  # another checkout's build may have ended since
        if image.new and image.before:
            owner.check_tag(project, image.place)


def rename(engine: Engine, image: Image) -> None:
    """Name a new image as the one before was, which goes if nothing else names it."""
    if not image.new:
        return
    engine.run("tag", image.tag, image.place)
    replaced, image.before, image.new = image.before, image.new, None
    if replaced:
        engine.drop_image(replaced["Id"])


def package_lists(engine: Engine, images: list[Image]) -> dict[str, str]:
    """The packages that each new image has and its parent has not, a line each, so that git shows what changes."""
    found: dict[str, str] = {}
    for image in images:
        if image.new:
            parent = contents.manifest_of(engine, image.parent.tag) if image.parent else None
            own = contents.own_packages(contents.manifest_of(engine, image.tag), parent)
            found[image.name] = "".join(f"{p['ecosystem']} {p['name']} {p['version']}\n" for p in own)
    return found


def note_packages(project: Project, name: str, packages: str) -> list[locks.Change]:
    """Write the list of an image's packages into the checkout if its locks are there, too; else say what differs."""
    path, apart = (folder / contents.LISTS / f"{name}.txt" for folder in (project.root, project.apart))
    if locks.published(project, {each.lock for each in project.table[name].lists}):
        contents.write_list(path, packages)
        apart.unlink(missing_ok=True)
        return []
    contents.write_list(apart, packages)
    before = contents.read_list(path.read_text()) if path.exists() else {}
    return locks.compare(before, contents.read_list(packages))


def report(engine: Engine, images: list[Image]) -> str:
    """One line an image: name, unpacked size, layers, seconds, digest, what was rebuilt and why."""
    rows = [("image", "size", "layers", "seconds", "digest", "")]
    with ThreadPoolExecutor(len(images)) as pool:
        sizes = pool.map(lambda image: engine.run("history", "--human=false", "--format={{.Size}}", image.tag), images)
    for image, layer_sizes in zip(images, sizes, strict=True):
        assert image.stored
        size = f"{sum(map(int, layer_sizes.split())) / 1e6:,.0f} MB"
        seconds = f"{image.seconds:.0f}" if image.why else ""
        why = f"rebuilt: {', '.join(image.why)}" if image.why else "up to date"
        layers = str(len(image.stored["RootFS"]["Layers"]))
        rows.append((image.tag, size, layers, seconds, image.stored["Id"].removeprefix("sha256:")[:12], why))
    return aligned(rows, right=(1, 2, 3))


def sweep(project: Project) -> None:
    """Remove what a build of this checkout has written and not published, be it one that was cut short."""
    # What it copied a manifest from stays where Ctrl-C came meanwhile.
    owner.remove_containers(project, contents.LABEL, "status=created")
    left = (beside(project, name) + end for name in reversed(project.table) for end in (NEW, PACKAGES))
    project.engine.run("image", "rm", *left, check=False)
