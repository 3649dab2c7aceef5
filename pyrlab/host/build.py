"""Build the images that a changed list makes necessary, and say which and why (make build).

python3 -m pyrlab.host.build [IMAGE …]      the images, and those they start from; all where none is named
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

from pyrlab.host import contents, locks, owner, store, trial
from pyrlab.host.bake import bake
from pyrlab.host.base import archive, bootstrap, choose_python
from pyrlab.host.engine import Engine
from pyrlab.host.online import build_environment, check
from pyrlab.host.progress import Progress
from pyrlab.host.project import Project, run_main
from pyrlab.host.text import aligned
from pyrlab.model import locked, plan
from pyrlab.model.images import Table
from pyrlab.model.problem import Problem

NEW = ".new"  # ends the tag of what is built until everything is
PACKAGES = ".packages"  # ends that of what an image is finished on
RECORDS = "built.json"  # in the cache: what images were made of; what decides whether to build is no part of one

# What every image is made with, besides its own folder, lists and parent; a change is a reason to build.
TOOLS = ["pyrlab/model", "pyrlab/steps", "docker/steps", "docker/bake.hcl", "docker/pyrlab-base/dpkg.cfg"]
RUN_TIME = {"pyrlab-base": ["docker/run"]}
PLAIN = "docker/rlab/Dockerfile"  # of an image without a folder of its own
PLAN = "plan"  # in the cache, as the lists
LISTS = "lists"
SETTINGS = (  # of an image, as the OCI's image-spec has them, and Docker's own
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"),
    *("Healthcheck", "Shell", "OnBuild", "ArgsEscaped"),
)


@dataclass
class Image:
    """One image, what it would be made of now, and how it came out."""

    name: str
    place: str  # its name in the engine's store
    inputs: dict[str, str]
    parent: Image | None
    before: dict[str, Any] | None  # what the engine knows of the one that there is
    new: dict[str, Any] | None = None  # the same of the one that was built beside it, if that is another
    why: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tag(self) -> str:
        """Where it is now: until all images are built, the new one is beside the one before."""
        return self.place + (NEW if self.new else "")

    @property
    def stored(self) -> dict[str, Any] | None:
        """What the engine knows of it, None where it is not built yet."""
        return self.new or self.before


def digest(path: Path) -> str:
    """A short digest of a file, or of all files of a folder with their names and modes."""
    if path.is_file():
        files = [path]
    else:
        files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    total = hashlib.sha256()
    for file in files:
        executable = os.access(file, os.X_OK)
        total.update(f"{file.relative_to(path.parent)} {executable} {file.stat().st_size}\n".encode())
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


def dockerfile(root: Path, name: str) -> str:
    """The Dockerfile of an image."""
    own = f"docker/{name}/Dockerfile"
    return own if (root / own).exists() else PLAIN


def inputs_of(project: Project, name: str) -> dict[str, str]:
    """What the image `name` is made of besides its parent, by what a user would say has changed."""
    table, own = project.table, str(Path(dockerfile(project.root, name)).parent)
    inputs = {path: digest(project.root / path) for path in [*TOOLS, *RUN_TIME.get(name, ()), own]}
    inputs["images.toml"] = locked.digest(repr(table[name]))
    for each in table[name].lists:
        content = locks.Lock.read(table, project.staged, each.lock).content
        section = locks.SHARED.search(content) if each.name == "jupyter" else None
        inputs[f"{each.lock}.lock"] = locked.digest(re.sub(r"(?m)^\s*#.*\n", "", section[1] if section else content))
    for setting in chain.from_iterable(locks.SETTINGS.get(each.ecosystem, ()) for each in table[name].lists):
        if value := project.parameter(setting):
            inputs[setting] = hashlib.sha256(value.encode()).hexdigest()[:16]  # it may hold a password
    return inputs


def identity(image: dict[str, Any] | None) -> str:
    """What a child depends on: the layers and the configuration of the parent `image`."""
    return locked.digest(json.dumps([image["RootFS"]["Layers"], image["Config"]])) if image else ""


def wanted(project: Project, names: list[str]) -> list[str]:
    """The named images and what they start from, parents first; where none is, the default ones and all there are."""
    table, tag_of = project.table, project.tag_of
    there = {} if names else project.engine.present(*map(tag_of, table))
    chosen = {*names} or {name for name, image in table.items() if image.default or tag_of(name) in there}
    if unknown := chosen - table.keys():
        raise Problem(f"there is no image {unknown.pop()}; the images are {', '.join(table)}")
    needed = {parent.name for name in chosen for parent in table.lineage(name)}
    return [name for name in table if name in needed]


@contextmanager
def alone(project: Project) -> Iterator[None]:
    """Let one build of this checkout run at a time, as `make -j pylab rlab` starts two."""
    project.cache.mkdir(exist_ok=True)
    with (project.cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_lists(project: Project) -> None:
    """Stop where a list is missing."""
    for path in project.table.files:
        if not (project.root / path).is_file():
            raise Problem(f"the list {path} is missing; an empty file is a valid list")


@dataclass(frozen=True)
class Session:
    """One run of builds: where they start from, and how they are followed."""

    project: Project
    python: str  # the identity of the Python image
    progress: Progress
    environment: dict[str, str]


@contextmanager
def session(project: Project, source: str, python: str) -> Iterator[Session]:
    """Get ready to build from the Python image `source`; raises Problem where a proxy is in the way."""
    check(project)
    if source == "target:debian" and not archive(project).exists():
        python = bootstrap(project)
    shutil.rmtree(project.cache / LISTS, ignore_errors=True)
    project.checkout.stage(project.cache / LISTS)
    environment = {"PYTHON": source, "PYTHON_IMAGE": python, "LOCKS": str(project.staged)}
    with Progress([*project.table], project.cache / "build.log") as progress:
        yield Session(project, python, progress, environment | build_environment(project))


def stale_locks(project: Project, names: list[str], python: str) -> list[str]:
    """The locks of the images `names` whose lists, or whatever else they rest on, have changed."""
    return [lock for lock in needed_locks(project.table, names) if is_stale(project, lock, python)]


def needed_locks(table: Table, names: list[str]) -> list[str]:
    """The locks of the images `names`, each after those that it rests on."""
    needed = {each.lock for name in names for each in table[name].lists}
    return [lock for lock in table.locks if lock in needed]


def is_stale(project: Project, lock: str, python: str) -> bool:
    """Whether a staged lock was made of something else than there is now."""
    staged = locks.Lock.read(project.table, project.staged, lock)
    return staged.inputs != locks.inputs(project, lock, python, project.checkout.wanted(lock))


def make_locks(names: list[str], now: Session, upgrade: str = "", forced: bool = False) -> None:
    """Resolve the stale ones of the staged locks that the images `names` need, R's upon the others.

    `upgrade` has the packages, or * for all, that need not stay as locked; for it, or if `forced`, none is skipped.
    """
    project, table = now.project, now.project.table
    needed = needed_locks(table, names)
    lines = {name: project.checkout.wanted(name) for name in needed}  # a list may be edited while it is resolved
    stamp = str(time.time_ns())
    wrong: dict[str, Problem] = {}  # what the user reads of all lists at once
    for lock in needed:
        stale = upgrade or forced or is_stale(project, lock, now.python)
        if not stale or wrong.keys() & {*table.rests_on(lock)}:
            continue
        environment = {**locking(table, lock), "UPGRADE": upgrade, "STAMP": stamp}
        target = f"lock-{table.locks[lock][-1].ecosystem.lower()}"
        try:
            bake(project, [target], now.progress, {**now.environment, **environment})
        except Problem as problem:
            if not problem.where:  # it is not about a list
                raise
            wrong[lock] = problem
            now.progress.forget("")
            continue
        locks.seal(project, lock, now.python, lines[lock])
        now.progress.erase()
        for note in now.progress.notes():
            print(f"pyrlab: {note}", file=sys.stderr)
    if wrong:
        raise Problem.of(wrong.values())


def locking(table: Table, lock: str) -> dict[str, str]:
    """Which files a lock is made of: its own `LISTS`, and those `BELOW`, of which there is what their locks have."""
    own = table.locks[lock]
    same = [other for other, each in table.locks.items() if each[-1].ecosystem == own[-1].ecosystem and other != lock]
    return {
        "LISTS": ",".join(table.files_of(lock)),
        "BELOW": " ".join(",".join(table.files_of(other)) for other in table.rests_on(lock)),
        "HEADINGS": ",".join(map(table.heading, own)),
        "ALSO": " ".join(path for other in same for path in table.files_of(other)),
    }


def survey(project: Project, names: list[str], python: str) -> tuple[list[Image], list[str]]:
    """The images `names`, and which of them must be built; of a stale one the children are likely to be, too."""
    found: list[Image] = []
    stale: list[str] = []
    there = project.engine.present(*map(project.tag_of, names))
    for name in names:
        above, place = project.table[name].parent, project.tag_of(name)
        parent = next((image for image in found if image.name == above), None)
        image = Image(name, place, inputs_of(project, name), parent, there.get(place))
        if not parent:
            image.inputs["Python image"] = python
        if outdated(project, image) or above in stale:
            stale.append(name)
        found.append(image)
    return found, stale


def build(
    project: Project,
    names: list[str],
    upgrade: str = "",
    approve: Callable[[list[Image]], None] = lambda images: None,
) -> list[Image]:
    """Build what must be built of `names` and their parents.

    Images and locks stay what they were unless all were built and `approve`, given the new ones, raises nothing.
    """
    check_lists(project)
    source, python = choose_python(project, refresh=upgrade == "*")
    names = wanted(project, names)
    sweep(project)
    locks.stage(project)
    found, stale = survey(project, names, python)
    if not stale and not stale_locks(project, names, python) and not upgrade:
        return found
    with session(project, source, python) as now:
        make_locks(names, now, upgrade)
        try:
            return build_images(names, now, approve, asked=bool(upgrade))
        except Problem as problem:
            if not problem.moved:
                raise
            now.progress.erase()
            print(f"pyrlab: {str(problem).rpartition(';')[0]}; locking again", file=sys.stderr)
            now.progress.forget("")
            now.progress.current = ""
        make_locks(names, now, upgrade, forced=True)
        return build_images(names, now, approve, asked=bool(upgrade))


def build_images(names: list[str], now: Session, approve: Callable[[list[Image]], None], asked: bool) -> list[Image]:
    """Build what must be built of `names` with the staged locks, and publish it all if `approve` raises nothing.

    Files of the checkout change where a list has, or if the user `asked` for it.
    """
    project, table = now.project, now.project.table
    built, _ = survey(project, names, now.python)
    try:
        for image in built:
            if outdated(project, image):
                make(image, now)
        with ThreadPoolExecutor(1) as beside:
            listing = beside.submit(package_lists, project.engine, built)
            try_labs(project, built, now.progress)
        lists = listing.result()
        approve(built)
        check_places(project, built)
        for image in built:
            publish(project.engine, image)
        owner.claim_volume(project, owner.tag_volume(project))
        before = locks.read(table, project.root)
        locks.publish(project, asked)
        moved = [change for name, packages in lists.items() for change in note_packages(project, name, packages)]
        now.progress.erase()
        after = locks.read(table, project.root)
        for note in [*now.progress.notes(), *locks.notes(before, after), *locks.moved_on(moved)]:
            print(f"pyrlab: {note}", file=sys.stderr)
    finally:
        sweep(project)
    return built


def sweep(project: Project) -> None:
    """Remove what a build has written and not published, be it one that was cut short."""
    left = (project.tag_of(name) + end for name in reversed(project.table) for end in (NEW, PACKAGES))
    project.engine.run("image", "rm", *left, check=False)


def try_labs(project: Project, images: list[Image], progress: Progress) -> None:
    """Start each new lab once; raises Problem where one does not work."""
    new = {image.name: image.tag for image in images if image.new and image.name in project.table.labs}
    if not new:
        return
    progress.erase()
    why = ", ".join(dict.fromkeys(chain.from_iterable(image.why for image in images if image.new)))
    shown, more = locks.listed(locks.staged_changes(project), 5)
    trial.start_once(project, new, f"{shown}{more}" or why)


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


def package_lists(engine: Engine, images: list[Image]) -> dict[str, str]:
    """The packages that each new image has and its parent has not, a line each, so that git shows what changes."""
    found: dict[str, str] = {}
    for image in images:
        if image.new:
            parent = contents.manifest_of(engine, image.parent.tag) if image.parent else None
            own = contents.own_packages(contents.manifest_of(engine, image.tag), parent)
            found[image.name] = "".join(f"{p['ecosystem']} {p['name']} {p['version']}\n" for p in own)
    return found


def outdated(project: Project, image: Image) -> list[str]:
    """Why `image` is not what its inputs and its parent would give now; empty where it is."""
    if image.parent:
        image.inputs["parent"] = identity(image.parent.stored)
    if image.stored is None:
        return ["no such image yet"]
    before: dict[str, str] | None = store.recall(project, RECORDS).get(image.stored["Id"])
    if before is None:
        return ["not known to this checkout"]
    names = [*image.inputs, *(name for name in before if name not in image.inputs)]
    changed = [name for name in names if before.get(name) != image.inputs.get(name)]
    return [f"{image.parent.name if image.parent and name == 'parent' else name} changed" for name in changed]


def make(image: Image, now: Session) -> None:
    """Build an image beside the one before, whose place it is to take if it did not turn out the same."""
    started = time.monotonic()
    project, engine = now.project, now.project.engine
    now.progress.current = image.name
    packages, beside = image.place + PACKAGES, image.place + NEW
    parent = f"docker-image://{image.parent.tag}" if image.parent else ""
    environment = {
        **now.environment,
        "TAG": project.parameter("TAG") + NEW,
        "IMAGE": image.name,
        "PARENT": parent,
        "PACKAGES": packages,
        "DOCKERFILE": dockerfile(project.root, image.name),
        "PLAN": str(project.cache / PLAN),
    }
    said: dict[str, Any] = {}

    def load(archive: IO[bytes]) -> None:
        said.update(store.load(engine, archive))

    def loaded() -> bool:
        """Whether the engine has all of it: one that lacks a layer may have said nothing."""
        found = engine.inspect("image", packages)
        return found is not None and found["RootFS"]["Layers"] == [each["diff_id"] for each in said.get("layers", ())]

    for thin in (True, False):
        write_plan(image, now, thin)
        bake(project, ["archive"], now.progress, environment, loaded, load)
        if loaded():
            break
    else:
        raise Problem(str(engine.fault() or store.refusal(said["words"])))
    (project.cache / PLAN / "lines.json").write_text(json.dumps(said["lines"]))
    bake(project, ["checked"], now.progress, environment, lambda: engine.inspect("image", beside) is not None)
    new = engine.inspect("image", beside)
    assert new
    store.remember(project, store.RECORDS, new["Id"], said["layers"])
    image.why = outdated(project, image)
    if not image.before or image.before["Id"] != new["Id"]:
        image.new = new
    image.seconds = time.monotonic() - started
    store.remember(project, RECORDS, new["Id"], image.inputs)


def write_plan(image: Image, now: Session, thin: bool) -> None:
    """Write what an image is to have, for pyrlab/steps/image.py; `thin` leaves out what the engine has."""
    project, folder = now.project, now.project.cache / PLAN
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(project.cache / LISTS, folder / "lists")
    shutil.copytree(project.staged, folder / "locks")
    parent = image.parent and image.parent.stored
    plan.write(
        folder,
        project.checkout,
        image.name,
        name=image.place + PACKAGES,
        python=now.python,
        parent=identity(parent) if parent else "",
        below=store.layers_of(project, image.parent.tag) if image.parent else [],
        settings={name: value for name, value in parent["Config"].items() if name in SETTINGS} if parent else {},
        **(store.has(project) if thin else {}),
    )


def check_places(project: Project, images: list[Image]) -> None:
    """Raise Problem where a new image would take the place of another checkout's."""
    there = project.engine.present(*(image.place for image in images))
    for image in images:
        image.before = there.get(image.place)  # another checkout's build may have ended since
        if image.new and image.before:
            owner.check_tag(project, image.place)


def publish(engine: Engine, image: Image) -> None:
    """Put a new image in the place of the one before, which goes if nothing else names it."""
    if not image.new:
        return
    engine.run("tag", image.tag, image.place)
    engine.run("image", "rm", image.tag)
    replaced, image.before, image.new = image.before, image.new, None
    if replaced:
        engine.drop_image(replaced["Id"])


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


def main(project: Project) -> None:
    """Build and report."""
    started = time.monotonic()
    with alone(project):
        images = build(project, sys.argv[1:])
    print(report(project.engine, images))
    if any(image.why for image in images):
        print(f"built in {time.monotonic() - started:.0f} s; the log is {project.cache.name}/build.log")


if __name__ == "__main__":
    run_main(main)
