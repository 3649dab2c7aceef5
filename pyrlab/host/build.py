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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

from pyrlab.host import contents, locks, owner, requirements, store, trial
from pyrlab.host.bake import bake
from pyrlab.host.base import ARCHIVE, bootstrap, choose_python
from pyrlab.host.docker import CACHE, ROOT, docker, drop_image, inspect, parameter, present, run_main, tag_of
from pyrlab.host.engine import fault
from pyrlab.host.online import build_environment, check
from pyrlab.host.progress import Progress
from pyrlab.host.text import aligned
from pyrlab.model.images import List, files, heading, labs, lineage, table
from pyrlab.model.problem import Problem

NEW = ".new"  # ends the tag of what is built until everything is
PACKAGES = ".packages"  # ends that of what an image is finished on
RECORDS = CACHE / "built.json"  # what images were made of: what decides whether to build is no part of one

# What every image is made with, besides its own folder, lists and parent; a change is a reason to build.
TOOLS = ["pyrlab/model", "pyrlab/steps", "docker/steps", "docker/bake.hcl", "docker/pyrlab-base/dpkg.cfg"]
RUN_TIME = {"pyrlab-base": ["docker/run"]}
PLAIN = "docker/rlab/Dockerfile"  # of an image without a folder of its own
PLAN = CACHE / "plan"
SETTINGS = (  # of an image, as the OCI's image-spec has them, and Docker's own
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"),
    *("Healthcheck", "Shell", "OnBuild", "ArgsEscaped"),
)
STAGED_LISTS = CACHE / "lists"


@dataclass
class Image:
    """One image, what it would be made of now, and how it came out."""

    name: str
    inputs: dict[str, str]
    parent: Image | None
    before: dict[str, Any] | None  # what the engine knows of the one that there is
    new: dict[str, Any] | None = None  # the same of the one that was built beside it, if that is another
    why: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tag(self) -> str:
        """Its name in the engine's store; until all images are built, that of the new one beside the one before."""
        return tag_of(self.name) + (NEW if self.new else "")

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


def locks_of(name: str) -> list[str]:
    """The locks with the packages of an image's own lists."""
    return [*dict.fromkeys(each.lock for each in table()[name].lists)]


def dockerfile(name: str) -> str:
    """The Dockerfile of an image."""
    own = f"docker/{name}/Dockerfile"
    return own if (ROOT / own).exists() else PLAIN


def inputs_of(name: str) -> dict[str, str]:
    """What the image `name` is made of besides its parent, by what a user would say has changed."""
    inputs = {
        path: digest(ROOT / path) for path in [*TOOLS, *RUN_TIME.get(name, ()), str(Path(dockerfile(name)).parent)]
    }
    inputs["images.toml"] = locks.digest(repr(table()[name]))
    for each in table()[name].lists:
        content = locks.Lock.read(locks.STAGED, each.lock).content
        section = locks.SHARED.search(content) if each.name == "jupyter" else None
        inputs[f"{each.lock}.lock"] = locks.digest(re.sub(r"(?m)^\s*#.*\n", "", section[1] if section else content))
    for setting in chain.from_iterable(locks.SETTINGS.get(locks.ecosystem_of(lock), ()) for lock in locks_of(name)):
        if value := parameter(setting):
            inputs[setting] = hashlib.sha256(value.encode()).hexdigest()[:16]  # it may hold a password
    return inputs


def identity(image: dict[str, Any] | None) -> str:
    """What a child depends on: the layers and the configuration of the parent `image`."""
    return locks.digest(json.dumps([image["RootFS"]["Layers"], image["Config"]])) if image else ""


def reasons(image: Image) -> list[str]:
    """Why `image` must be built; empty where the one in the store is made of the very same."""
    if image.stored is None:
        return ["no such image yet"]
    before: dict[str, str] | None = store.recall(RECORDS).get(image.stored["Id"])
    if before is None:
        return ["not known to this checkout"]
    names = [*image.inputs, *(name for name in before if name not in image.inputs)]
    changes = [f"{name} changed" for name in names if before.get(name) != image.inputs.get(name)]
    return [change.replace("parent changed", f"{table()[image.name].parent} changed") for change in changes]


def wanted(names: list[str]) -> list[str]:
    """The named images and what they start from, parents first; where none is, the default ones and all there are."""
    there = {} if names else present(*map(tag_of, table()))
    chosen = {*names} or {name for name, image in table().items() if image.default or tag_of(name) in there}
    if unknown := chosen - table().keys():
        raise Problem(f"there is no image {unknown.pop()}; the images are {', '.join(table())}")
    needed = {parent.name for name in chosen for parent in lineage(name)}
    return [name for name in table() if name in needed]


@contextmanager
def alone() -> Iterator[None]:
    """Let one build of this checkout run at a time, as `make -j pylab rlab` starts two."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_lists() -> None:
    """Stop where a list is missing."""
    for path in files():
        if not (ROOT / path).is_file():
            raise Problem(f"the list {path} is missing; an empty file is a valid list")


@dataclass(frozen=True)
class Session:
    """One run of builds: where they start from, and how they are followed."""

    python: str  # the identity of the Python image
    progress: Progress
    environment: dict[str, str]


@contextmanager
def session(source: str, python: str) -> Iterator[Session]:
    """Get ready to build from the Python image `source`; raises Problem where a proxy is in the way."""
    check()
    if source == "target:debian" and not ARCHIVE.exists():
        python = bootstrap()
    stage_lists()
    environment = {"PYTHON": source, "PYTHON_IMAGE": python, "LOCKS": str(locks.STAGED), **build_environment()}
    with Progress([*table()], CACHE / "build.log") as progress:
        yield Session(python, progress, environment)


def stage_lists() -> None:
    """Put all lists where a step finds them: in the folder python Python's, with what they point at."""
    shutil.rmtree(STAGED_LISTS, ignore_errors=True)
    own = requirements.own()
    for path in (path for path in files() if path not in own):
        requirements.copy(path, STAGED_LISTS / path)
    requirements.stage(STAGED_LISTS / "python")
    for each in chain.from_iterable(python_lists(image.lists) for image in table().values()):
        if each.file not in own:
            requirements.copy(each.file, STAGED_LISTS / "python" / each.file)


def stale_locks(names: list[str], python: str) -> list[str]:
    """The locks of the images `names` whose lists, or whatever else they rest on, have changed."""
    return [lock for lock in needed_locks(names) if is_stale(lock, python)]


def needed_locks(names: list[str]) -> list[str]:
    """The locks of the images `names`, each after those that it rests on."""
    return [lock for lock in locks.names() if any(lock in locks_of(name) for name in names)]


def is_stale(lock: str, python: str) -> bool:
    """Whether a staged lock was made of something else than there is now."""
    staged = locks.STAGED
    return locks.Lock.read(staged, lock).inputs != locks.inputs(lock, staged, python, locks.wanted(lock))


def make_locks(names: list[str], now: Session, upgrade: str = "", forced: bool = False) -> None:
    """Resolve the stale ones of the staged locks that the images `names` need, R's upon the others.

    `upgrade` has the packages, or * for all, that need not stay as locked; for it, or if `forced`, none is skipped.
    """
    needed = needed_locks(names)
    lines = {name: locks.wanted(name) for name in needed}  # a list may be edited while it is resolved
    stamp = str(time.time_ns())
    wrong: dict[str, Problem] = {}  # what the user reads of all lists at once
    for lock in needed:
        stale = upgrade or forced or is_stale(lock, now.python)
        if not stale or wrong.keys() & {*locks.rests_on(lock)}:
            continue
        environment = {**locking(lock), "UPGRADE": upgrade, "STAMP": stamp}
        target = f"lock-{locks.ecosystem_of(lock).lower()}"
        try:
            bake([target], now.progress, {**now.environment, **environment})
        except Problem as problem:
            if not problem.where:  # it is not about a list
                raise
            wrong[lock] = problem
            now.progress.forget("")
            continue
        locks.seal(lock, now.python, lines[lock])
        now.progress.erase()
        for note in now.progress.notes():
            print(f"pyrlab: {note}", file=sys.stderr)
    if wrong:
        raise Problem.of(wrong.values())


def locking(lock: str) -> dict[str, str]:
    """Which files a lock is made of: its own `LISTS`, and those `BELOW`, of which there is what their locks have."""
    below = [",".join(locks.files_of(other)) for other in locks.rests_on(lock)]
    headings = [heading(each) for each in locks.lists_of(lock)]
    same = [other for other in locks.names() if locks.ecosystem_of(other) == locks.ecosystem_of(lock) and other != lock]
    return {
        "LISTS": ",".join(locks.files_of(lock)),
        "BELOW": " ".join(below),
        "HEADINGS": ",".join(headings),
        "ALSO": " ".join(path for other in same for path in locks.files_of(other)),
    }


def survey(names: list[str], python: str) -> tuple[list[Image], list[str]]:
    """The images `names`, and which of them must be built; of a stale one the children are likely to be, too."""
    found: list[Image] = []
    stale: list[str] = []
    there = present(*map(tag_of, names))
    for name in names:
        parent = next((image for image in found if image.name == table()[name].parent), None)
        image = Image(name, inputs_of(name), parent, there.get(tag_of(name)))
        if not parent:
            image.inputs["Python image"] = python
        if outdated(image) or table()[name].parent in stale:
            stale.append(name)
        found.append(image)
    return found, stale


def build(
    names: list[str], upgrade: str = "", approve: Callable[[list[Image]], None] = lambda images: None
) -> list[Image]:
    """Build what must be built of `names` and their parents.

    Images and locks stay what they were unless all were built and `approve`, given the new ones, raises nothing.
    """
    check_lists()
    source, python = choose_python(refresh=upgrade == "*")
    names = wanted(names)
    sweep()
    locks.stage()
    found, stale = survey(names, python)
    if not stale and not stale_locks(names, python) and not upgrade:
        return found
    with session(source, python) as now:
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
    built, _ = survey(names, now.python)
    try:
        for image in built:
            if outdated(image):
                make(image, now)
        with ThreadPoolExecutor(1) as beside:
            listing = beside.submit(package_lists, built)
            try_labs(built, now.progress)
        lists = listing.result()
        approve(built)
        check_places(built)
        for image in built:
            publish(image)
        owner.claim_tag()
        before = locks.read(ROOT)
        locks.publish(asked)
        moved = [change for name, packages in lists.items() for change in note_packages(name, packages)]
        now.progress.erase()
        for note in [*now.progress.notes(), *locks.notes(before, locks.read(ROOT)), *locks.moved_on(moved)]:
            print(f"pyrlab: {note}", file=sys.stderr)
    finally:
        sweep()
    return built


def sweep() -> None:
    """Remove what a build has written and not published, be it one that was cut short."""
    left = (tag_of(name) + end for name in reversed(table()) for end in (NEW, PACKAGES))
    docker("image", "rm", *left, check=False)


def try_labs(images: list[Image], progress: Progress) -> None:
    """Start each new lab once; raises Problem where one does not work."""
    new = {image.name: image.tag for image in images if image.new and image.name in labs()}
    if not new:
        return
    progress.erase()
    why = ", ".join(dict.fromkeys(chain.from_iterable(image.why for image in images if image.new)))
    shown, more = locks.listed(locks.changes(locks.read(ROOT), locks.read(locks.STAGED)), 5)
    trial.start_once(new, f"{shown}{more}" or why)


def note_packages(name: str, packages: str) -> list[locks.Change]:
    """Write the list of an image's packages into the checkout if its locks are there, too; else say what differs."""
    path, apart = (folder / contents.LISTS / f"{name}.txt" for folder in (ROOT, locks.APART))
    if locks.published(locks_of(name)):
        contents.write_list(path, packages)
        apart.unlink(missing_ok=True)
        return []
    contents.write_list(apart, packages)
    before = contents.read_list(path.read_text()) if path.exists() else {}
    return locks.compare(before, contents.read_list(packages))


def package_lists(images: list[Image]) -> dict[str, str]:
    """The list of the packages that each new image has and its parent has not, by name."""
    return {
        image.name: contents.package_list(
            contents.manifest_of(image.tag), contents.manifest_of(image.parent.tag) if image.parent else None
        )
        for image in images
        if image.new
    }


def outdated(image: Image) -> list[str]:
    """Why `image` is not what its inputs and its parent would give now; empty where it is."""
    if image.parent:
        image.inputs["parent"] = identity(image.parent.stored)
    return reasons(image)


def make(image: Image, now: Session) -> None:
    """Build an image beside the one before, whose place it is to take if it did not turn out the same."""
    started = time.monotonic()
    now.progress.current = image.name
    packages = tag_of(image.name) + PACKAGES
    parent = f"docker-image://{image.parent.tag}" if image.parent else ""
    environment = {
        **now.environment,
        "TAG": parameter("TAG", "latest") + NEW,
        "IMAGE": image.name,
        "PARENT": parent,
        "PACKAGES": packages,
        "DOCKERFILE": dockerfile(image.name),
        "PLAN": str(PLAN),
    }
    said: dict[str, Any] = {}

    def load(archive: IO[bytes]) -> None:
        said.update(store.load(archive))

    def loaded() -> bool:
        """Whether the engine has all of it: one that lacks a layer may have said nothing."""
        found = inspect("image", packages)
        return found is not None and found["RootFS"]["Layers"] == [each["diff_id"] for each in said.get("layers", ())]

    for thin in (True, False):
        write_plan(image, now, thin)
        bake(["archive"], now.progress, environment, loaded, load)
        if loaded():
            break
    else:
        raise Problem(str(fault() or store.refusal(said["words"])))
    (PLAN / "lines.json").write_text(json.dumps(said["lines"]))
    bake(["checked"], now.progress, environment, lambda: inspect("image", tag_of(image.name) + NEW) is not None)
    new = inspect("image", tag_of(image.name) + NEW)
    assert new
    store.remember(store.RECORDS, new["Id"], said["layers"])
    image.why = outdated(image)
    if not image.before or image.before["Id"] != new["Id"]:
        image.new = new
    image.seconds = time.monotonic() - started
    store.remember(RECORDS, new["Id"], image.inputs)


def write_plan(image: Image, now: Session, thin: bool) -> None:
    """Write what an image is to have, for pyrlab/steps/image.py; `thin` leaves out what the engine has."""
    shutil.rmtree(PLAN, ignore_errors=True)
    family = lineage(image.name)
    own = table()[image.name]
    for each in chain.from_iterable(member.lists for member in family):
        for path in each.files:  # by ecosystem, for the manifest
            target = PLAN / "asked" / each.ecosystem / path.removeprefix("docker/")
            if path in requirements.own():
                requirements.write(requirements.asking(path), target.parent)
            else:
                requirements.copy(path, target)
    shutil.copytree(STAGED_LISTS, PLAN / "lists")
    shutil.copytree(locks.STAGED, PLAN / "locks")
    parent = image.parent and image.parent.stored
    plan = {
        "image": image.name,
        "name": tag_of(image.name) + PACKAGES,
        "python": now.python,
        "parent": identity(parent) if parent else "",
        "below": store.layers_of(image.parent.tag) if image.parent else [],
        "settings": {name: value for name, value in parent["Config"].items() if name in SETTINGS} if parent else {},
        "debian": [path for each in own.lists if each.ecosystem == "Debian" for path in each.files],
        "wheels": [
            [f"{each.lock}.lock", heading(each), each.file] for member in family for each in python_lists(member.lists)
        ],
        "own_wheels": len(python_lists(own.lists)),
        "r": next((each.file for each in own.lists if each.ecosystem == "R"), ""),
        "counts": counts(own.lists),
        **(store.has(table()) if thin else {"blobs": [], "chains": []}),
    }
    (PLAN / "plan.json").write_text(json.dumps(plan, indent=1))


def python_lists(lists: Iterable[List]) -> list[List]:
    """Those of some lists that are of Python packages."""
    return [each for each in lists if each.ecosystem == "Python"]


def counts(lists: Iterable[List]) -> dict[str, int]:
    """How many layers an image's packages of each ecosystem may have; most of R's are Debian's."""
    found: dict[str, int] = {}
    for each in lists:
        from_source = each.layers // 4 if each.ecosystem == "R" else 0
        shares = (
            {"R": from_source, "Debian": each.layers - from_source} if from_source else {each.ecosystem: each.layers}
        )
        found |= {ecosystem: found.get(ecosystem, 0) + share for ecosystem, share in shares.items()}
    return found


def check_places(images: list[Image]) -> None:
    """Raise Problem where a new image would take the place of another checkout's."""
    there = present(*(tag_of(image.name) for image in images))
    for image in images:
        image.before = there.get(tag_of(image.name))  # another checkout's build may have ended since
        if image.new and image.before:
            owner.check_tag(tag_of(image.name))


def publish(image: Image) -> None:
    """Put a new image in the place of the one before, which goes if nothing else names it."""
    if not image.new:
        return
    docker("tag", image.tag, tag_of(image.name))
    docker("image", "rm", image.tag)
    replaced, image.before, image.new = image.before, image.new, None
    if replaced:
        drop_image(replaced["Id"])


def report(images: list[Image]) -> str:
    """One line an image: name, unpacked size, layers, seconds, digest, what was rebuilt and why."""
    rows = [("image", "size", "layers", "seconds", "digest", "")]
    with ThreadPoolExecutor(len(images)) as pool:
        sizes = pool.map(lambda image: docker("history", "--human=false", "--format={{.Size}}", image.tag), images)
    for image, layer_sizes in zip(images, sizes, strict=True):
        assert image.stored
        size = f"{sum(map(int, layer_sizes.split())) / 1e6:,.0f} MB"
        seconds = f"{image.seconds:.0f}" if image.why else ""
        why = f"rebuilt: {', '.join(image.why)}" if image.why else "up to date"
        layers = str(len(image.stored["RootFS"]["Layers"]))
        rows.append((image.tag, size, layers, seconds, image.stored["Id"].removeprefix("sha256:")[:12], why))
    return aligned(rows, right=(1, 2, 3))


def main() -> None:
    """Build and report."""
    started = time.monotonic()
    with alone():
        images = build(sys.argv[1:])
    print(report(images))
    if any(image.why for image in images):
        print(f"built in {time.monotonic() - started:.0f} s; the log is {CACHE.name}/build.log")


if __name__ == "__main__":
    run_main(main)
