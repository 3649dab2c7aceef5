"""Build the images that a changed list makes necessary, and say which and why (make build).

python3 -m pyrlab.build [IMAGE …]      the images, and those they start from; all where none is named
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
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pyrlab import contents, dockerfile, locks, owner, requirements, trial
from pyrlab.bake import bake
from pyrlab.base import ARCHIVE, bootstrap, choose_python
from pyrlab.docker import CACHE, ROOT, Problem, docker, drop_image, inspect, parameter, run_main, tag_of
from pyrlab.dockerfile import PARENT, lineage
from pyrlab.lab import LABS
from pyrlab.online import build_environment, check
from pyrlab.progress import Progress
from pyrlab.table import aligned

NEW = ".new"  # ends the tag of what is built until everything is
RECORDS = CACHE / "built.json"  # what decides whether to build is no part of an image

# What an image is made of besides its parent and its locks; a change of any is a reason to build.
INPUTS = {
    "pyrlab-base": [
        "docker/pyrlab-base",
        "docker/run",
        "docker/manifest",
        "docker/build",
        "docker/bake.hcl",
        "pyrlab/dockerfile.py",
    ],
    "pylab": ["docker/pylab"],
    "rlab-base": ["docker/rlab-base"],
    "rlab": ["docker/rlab"],
}
LOCKS = {  # of which an image has the packages; of requirements.lock, pyrlab-base has a section
    "pyrlab-base": ["requirements", "base_debs"],
    "pylab": ["requirements"],
    "rlab-base": ["r_debs"],
    "rlab": ["r_packages"],
}
LISTS = {  # of what an image has and its parent has not, by ecosystem
    "pyrlab-base": {
        "Debian": ["docker/pyrlab-base/debs.txt", "base_debs.txt"],
        "Python": ["docker/pyrlab-base/jupyter.txt"],
    },
    "pylab": {"Python": ["requirements.txt"]},
    "rlab-base": {"Debian": ["docker/rlab-base/debs.txt", "r_debs.txt"]},
    "rlab": {"R": ["r_packages.txt"]},
}
STAGED_LISTS = CACHE / "lists"
TARGETS = {"requirements": "lock-python", "base_debs": "lock-debian", "r_debs": "lock-debian", "r_packages": "lock-r"}
MOVED = r"\w+\.lock: .*; type make lock"


@dataclass
class Image:
    """One image, what it would be made of now, and how it came out."""

    name: str
    inputs: dict[str, str]
    parent: Image | None
    why: list[str] = field(default_factory=list)
    seconds: float = 0.0
    written: bool = False  # as NEW, beside the one before

    @property
    def tag(self) -> str:
        """Its name in the engine's store; until all images are built, that of the new one beside the one before."""
        return tag_of(self.name) + (NEW if self.written else "")

    def inspect(self) -> dict[str, Any] | None:
        """What the engine knows of it, None where it is not built yet."""
        return inspect("image", self.tag)


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


def inputs_of(name: str) -> dict[str, str]:
    """What the image `name` is made of besides its parent, by what a user would say has changed."""
    inputs = {path: digest(ROOT / path) for path in INPUTS[name]}
    for lock in LOCKS[name]:
        content = locks.Lock.read(locks.STAGED, lock).content
        section = locks.SHARED.search(content) if name == "pyrlab-base" else None
        inputs[f"{lock}.lock"] = locks.digest(re.sub(r"(?m)^\s*#.*\n", "", section[1] if section else content))
    for setting in chain.from_iterable(locks.SETTINGS.get(lock, ()) for lock in LOCKS[name]):
        if value := parameter(setting):
            inputs[setting] = hashlib.sha256(value.encode()).hexdigest()[:16]  # it may hold a password
    return inputs


def records() -> dict[str, dict[str, str]]:
    """What the images that this checkout has built were made of, by the engine's id of each."""
    found: dict[str, dict[str, str]] = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    return found


def record(image: dict[str, Any], inputs: dict[str, str]) -> None:
    """Note what an image was made of, beside the latest others."""
    found = {**records(), image["Id"]: inputs}
    part = RECORDS.with_suffix(".part")
    part.write_text(json.dumps(dict([*found.items()][-100:])))
    part.replace(RECORDS)


def identity(image: dict[str, Any] | None) -> str:
    """What a child depends on: the layers and the configuration of the parent `image`."""
    return locks.digest(json.dumps([image["RootFS"]["Layers"], image["Config"]])) if image else ""


def reasons(image: Image) -> list[str]:
    """Why `image` must be built; empty where the one in the store is made of the very same."""
    stored = image.inspect()
    if stored is None:
        return ["no such image yet"]
    before = records().get(stored["Id"])
    if before is None:
        return ["not known to this checkout"]
    names = [*image.inputs, *(name for name in before if name not in image.inputs)]
    changes = [f"{name} changed" for name in names if before.get(name) != image.inputs.get(name)]
    return [change.replace("parent changed", f"{PARENT.get(image.name)} changed") for change in changes]


def wanted(names: list[str]) -> list[str]:
    """The named images and all that they start from, parents first."""
    chosen = set(names or INPUTS)
    if unknown := chosen - INPUTS.keys():
        raise Problem(f"there is no image {unknown.pop()}; the images are {', '.join(INPUTS)}")
    return [name for name in INPUTS if any(name in lineage(image) for image in chosen)]


@contextmanager
def alone() -> Iterator[None]:
    """Let one build of this checkout run at a time, as `make -j pylab rlab` starts two."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_lists() -> None:
    """Stop where one of the four lists is missing."""
    for path in ("requirements.txt", "r_packages.txt", "base_debs.txt", "r_debs.txt"):
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
    (CACHE / "Dockerfile").write_text(dockerfile.whole())
    stage_lists()
    requirements.stage(STAGED_LISTS / "python")
    environment = {"PYTHON": source, "PYTHON_IMAGE": python, "LOCKS": str(locks.STAGED), **build_environment()}
    with Progress([*INPUTS], CACHE / "build.log") as progress:
        yield Session(python, progress, environment)


def stage_lists() -> None:
    """Put the lists of each image and its parents, by ecosystem, where its manifest is made from them."""
    shutil.rmtree(STAGED_LISTS, ignore_errors=True)
    for image in INPUTS:
        for ancestor in lineage(image):
            for ecosystem, paths in LISTS[ancestor].items():
                for path in paths:
                    copy = STAGED_LISTS / image / ecosystem / path.removeprefix("docker/")
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    if path == requirements.LIST:
                        requirements.write(requirements.asking(), copy.parent)
                    else:
                        shutil.copyfile(ROOT / path, copy)


def stale_locks(names: list[str], python: str) -> list[str]:
    """The locks of the images `names` whose lists, or whatever else they rest on, have changed."""
    needed = {lock for name in names for lock in LOCKS[name]}
    staged = locks.STAGED
    return [
        name
        for name in locks.NAMES
        if name in needed
        and locks.Lock.read(staged, name).inputs != locks.inputs(name, staged, python, locks.wanted(name))
    ]


def make_locks(names: list[str], now: Session, upgrade: str = "", forced: bool = False) -> None:
    """Resolve the stale ones of the staged locks that the images `names` need, R's upon the others.

    `upgrade` has the packages, or * for all, that need not stay as locked; for it, or if `forced`, none is skipped.
    """
    lines = {name: locks.wanted(name) for name in locks.NAMES}  # a list may be edited while it is resolved
    needed = {lock for name in names for lock in LOCKS[name]}
    for group in (locks.NAMES[:-1], locks.NAMES[-1:]):
        stale = needed if upgrade or forced else stale_locks(names, now.python)
        targets = sorted({TARGETS[lock] for lock in group if lock in stale})
        if targets:
            bake(targets, now.progress, {**now.environment, "UPGRADE": upgrade, "STAMP": str(time.time_ns())})
        for lock in group:
            if TARGETS[lock] in targets:
                locks.seal(lock, now.python, lines[lock])
        now.progress.erase()
        for note in now.progress.notes():
            print(f"pyrlab: {note}", file=sys.stderr)


def survey(names: list[str], python: str) -> tuple[list[Image], list[str]]:
    """The images `names`, and which of them must be built; of a stale one the children are likely to be, too."""
    images: list[Image] = []
    stale: list[str] = []
    for name in names:
        parent = next((image for image in images if image.name == PARENT.get(name)), None)
        image = Image(name, inputs_of(name), parent)
        if not parent:
            image.inputs["Python image"] = python
        if outdated(image) or PARENT.get(name) in stale:
            stale.append(name)
        images.append(image)
    return images, stale


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
    images, stale = survey(names, python)
    if not stale and not stale_locks(names, python) and not upgrade:
        return images
    with session(source, python) as now:
        make_locks(names, now, upgrade)
        try:
            return build_images(names, now, approve, asked=bool(upgrade))
        except Problem as problem:
            if not re.search(MOVED, str(problem)):
                raise
            now.progress.erase()
            print(f"pyrlab: {str(problem).rpartition(';')[0]}; locking again", file=sys.stderr)
            now.progress.forget("")
        make_locks(names, now, upgrade, forced=True)
        return build_images(names, now, approve, asked=bool(upgrade))


def build_images(names: list[str], now: Session, approve: Callable[[list[Image]], None], asked: bool) -> list[Image]:
    """Build what must be built of `names` with the staged locks, and publish it all if `approve` raises nothing.

    Files of the checkout change where a list has, or if the user `asked` for it.
    """
    images, stale = survey(names, now.python)
    try:
        if stale:
            write(stale, now)
        for image in images:
            compare(image, now.progress)
        try_labs(images, now.progress)
        approve(images)
        lists = {image.name: package_list(image) for image in images if image.written}
        for image in images:
            check_place(image)
        for image in images:
            publish(image)
        owner.claim_tag()
        before = locks.read(ROOT)
        locks.publish(asked)
        changes = locks.changes(before, locks.read(ROOT))
        moved = [change for name, packages in lists.items() for change in note_packages(name, packages)]
        now.progress.erase()
        for note in [*now.progress.notes(), *locks.notes(changes), *locks.moved_on(moved)]:
            print(f"pyrlab: {note}", file=sys.stderr)
    finally:
        sweep()
    return images


def sweep() -> None:
    """Remove what a build has written and not published, be it one that was cut short."""
    docker("image", "rm", *(tag_of(name) + NEW for name in reversed(INPUTS)), check=False)


def try_labs(images: list[Image], progress: Progress) -> None:
    """Start each new lab once; raises Problem where one does not work."""
    new = {image.name: image.tag for image in images if image.written and image.name in LABS}
    if not new:
        return
    progress.erase()
    why = ", ".join(dict.fromkeys(chain.from_iterable(image.why for image in images if image.written)))
    shown, more = locks.listed(locks.changes(locks.read(ROOT), locks.read(locks.STAGED)), 5)
    trial.start_once(new, f"{shown}{more}" or why)


def note_packages(name: str, packages: str) -> list[locks.Change]:
    """Write the list of an image's packages into the checkout if its locks are there, too; else say what differs."""
    path, apart = (folder / contents.LISTS / f"{name}.txt" for folder in (ROOT, locks.APART))
    if locks.published(LOCKS[name]):
        contents.write_list(path, packages)
        apart.unlink(missing_ok=True)
        return []
    contents.write_list(apart, packages)
    before = contents.read_list(path.read_text()) if path.exists() else {}
    return locks.compare(before, contents.read_list(packages))


def package_list(image: Image) -> str:
    """The list of the packages that `image` has and its parent has not."""
    parent = contents.manifest_of(image.parent.tag) if image.parent else None
    return contents.package_list(contents.manifest_of(image.tag), parent)


def outdated(image: Image) -> list[str]:
    """Why `image` is not what its inputs and its parent would give now; empty where it is."""
    if image.parent:
        image.inputs["parent"] = identity(image.parent.inspect())
    return reasons(image)


def write(names: list[str], now: Session) -> None:
    """Build images and put each into the engine's store beside the one before.

    In one go, for BuildKit gets steps that several runs share wrong at times (moby/buildkit#3714, #6808).
    """

    def done() -> bool:
        return all(inspect("image", tag_of(name) + NEW) for name in names)

    bake(names, now.progress, {**now.environment, "TAG": parameter("TAG", "latest") + NEW}, done=done)


def compare(image: Image, progress: Progress) -> None:
    """Say why a new image takes the place of the one before; it does not where it turned out the same."""
    new = inspect("image", tag_of(image.name) + NEW)
    if not new:
        return
    image.why = outdated(image)
    image.written = bool(image.why)
    if image.written:
        record(new, image.inputs)
        image.seconds = progress.seconds(image.name)


def check_place(image: Image) -> None:
    """Raise Problem where a new image would take the place of another checkout's."""
    before = inspect("image", tag_of(image.name))
    if image.written and before and before["Id"] != (image.inspect() or {})["Id"]:
        owner.check_tag(tag_of(image.name))


def publish(image: Image) -> None:
    """Put a new image in the place of the one before, which goes if nothing else names it."""
    if not image.written:
        return
    before = inspect("image", tag_of(image.name))
    docker("tag", image.tag, tag_of(image.name))
    docker("image", "rm", image.tag)
    image.written = False
    if before:
        drop_image(before["Id"])


def table(images: list[Image]) -> str:
    """One line an image: name, unpacked size, layers, seconds, digest, what was rebuilt and why."""
    rows = [("image", "size", "layers", "seconds", "digest", "")]
    for image in images:
        stored = image.inspect()
        assert stored is not None
        sizes = docker("history", "--human=false", "--format={{.Size}}", image.tag).split()
        size = f"{sum(map(int, sizes)) / 1e6:,.0f} MB"
        seconds = f"{image.seconds:.0f}" if image.why else ""
        why = f"rebuilt: {', '.join(image.why)}" if image.why else "up to date"
        layers = str(len(stored["RootFS"]["Layers"]))
        rows.append((image.tag, size, layers, seconds, stored["Id"].removeprefix("sha256:")[:12], why))
    return aligned(rows, right=(1, 2, 3))


def main() -> None:
    """Build and report."""
    started = time.monotonic()
    with alone():
        images = build(sys.argv[1:])
    print(table(images))
    if any(image.why for image in images):
        print(f"built in {time.monotonic() - started:.0f} s; the log is {CACHE.name}/build.log")


if __name__ == "__main__":
    run_main(main)
