#!/usr/bin/env python3
"""Make the packages of an image, and write the layers that the engine lacks of it as an archive: image.py PLAN ARCHIVE.

This very file system is that of the image's parent. PLAN is a folder in which plan.json says what the image has (see
`Plan`), with the lists and locks that it names. Beside the archive's own files there is ARCHIVE/pyrlab.json: the layers
of the image, and what is to be checked once they are in the engine.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from pyrlab.model import events
from pyrlab.model.lists import Line
from pyrlab.model.locked import Lock, reached
from pyrlab.model.plan import Plan
from pyrlab.steps import compiled, debian, debs, grouping, network, oci, r, wheels
from pyrlab.steps.pieces import FORMAT, Folders, Mode, Piece, Tar, sweep

CACHE = Path("/opt")  # a cache mount: what was made before; at /opt, since an environment's files name their place
PYTHON = Path("/pyrlab/base")  # the Python image, untouched
TREE = debian.Tree(Path("/"), opt=Path("/pyrlab/opt"))  # of the parent
BACKUPS = re.compile(r"etc/(\.pwd\.lock|[a-z]+-)")  # of whoever changed accounts: no image needs what was before
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def root_layers(plan: Plan) -> list[oci.Layer]:
    """The Python image as one layer, so that all layers are made here, whatever store the engine has."""
    key = wheels.digest(f"{plan.python} {FORMAT} {BACKUPS.pattern}")
    piece = Piece(CACHE / "pieces" / f"root-{key}")
    if not piece.exists:
        tar = Tar()
        paths = root_paths()
        for path in (path for path in paths if not BACKUPS.fullmatch(path)):
            tar.from_disk(PYTHON, path)
        compile_library(tar, paths)
        tar.save(piece)
    return oci.layers([(plan.python, [piece])], CACHE / "layers", {})


def root_paths() -> list[str]:
    """All that the Python image has, without a leading slash."""
    found: list[str] = []
    for folder, folders, files in os.walk(PYTHON):
        folders.sort()
        found += [str((Path(folder) / name).relative_to(PYTHON)) for name in sorted([*folders, *files])]
    return found


def compile_library(tar: Tar, paths: Collection[str]) -> None:
    """Add the bytecode of Python's own library, of which the Python image has `paths`, where it has none.

    Who may not write it, as in a registry's image, compiles the same at every start of a kernel.
    """
    if sys.base_prefix == "/usr":
        return
    there = {*paths}
    for path in [path for path in paths if path.startswith(f"{sys.base_prefix[1:]}/lib/python3")]:
        if re.search(r"/(site-packages|test)/", path) or not path.endswith(".py") or not (PYTHON / path).is_file():
            continue
        mtime = int((PYTHON / path).stat().st_mtime)
        for name, content in wheels.with_bytecode(path, PYTHON / path, mtime).items():
            if name not in there:
                tar.file(name, content, Mode(0o644))


def distinct(groups: list[tuple[str, list[Piece]]]) -> list[tuple[str, list[Piece]]]:
    """The groups of packages, with no path twice in one of them: the first package keeps it."""
    found = []
    for about, pieces in groups:
        seen: set[str] = set()
        kept = []
        for piece in pieces:
            kept.append(piece.without(seen) if seen.intersection(piece.paths) else piece)
            seen.update(piece.paths)
        found.append((about, kept))
    return found


def layers(
    pieces: dict[str, Piece], ecosystem: str, count: int, last: Piece | None = None, folders: Folders | None = None
) -> list[oci.Layer]:
    """The layers of some packages, with `folders` as these are known; a `last` piece gets a layer of its own."""
    groups = distinct(grouping.groups(pieces, count - 1 if last else count, ecosystem))
    groups += [("state of the packages", [last])] if last else []
    known = TREE.folders_of(piece for _, group in groups for piece in group) | (folders or {})
    return oci.layers([(f"{ecosystem}: {about}", group) for about, group in groups], CACHE / "layers", known)


def mark(name: str, pins: Mapping[str, wheels.Pin], found: dict[str, Piece], stands_on: str) -> str:
    """What a package is known by that was imported: all that it needs, and what its image stands on."""
    needed = [found[each].key for each in wheels.closure(name, pins) if each in found]
    return wheels.digest(" ".join([stands_on, *needed]))


def r_mark(
    name: str, fetched: r.Fetched, library: Mapping[str, Piece], installed: debian.Result, stands_on: str
) -> str:
    """The same of a package of R; whatever was fetched counts, since it stands before what Debian has."""
    packages = reached([name], lambda each: fetched.packages[each].needs if each in fetched.packages else ())
    names = r.debian_packages(packages, installed.archives)
    needed = [installed.archives[each].digest for each in sorted(debian.closure(names, installed.archives))]
    return wheels.digest(" ".join([name, stands_on, *needed, *(piece.key for piece in library.values())]))


def python_layers(plan: Plan, stands_on: str, there: debs.Versions) -> tuple[list[oci.Layer], dict[str, Any]]:
    """The layers of an image's own Python packages, and what is to be imported of them, with its mark."""
    locks = {name: Lock.read(plan.locks / name) for name, _, _ in plan.wheels}
    wheels.check_python(plan.wheels[-1][0])
    of_each = [wheels.pins_of(locks[lock].of(section)) for lock, section, _ in plan.wheels]
    pins = {name: pin for each in of_each for name, pin in each.items()}
    own = {name for each in of_each[-plan.own_wheels :] for name in each}
    root = plan.list("python")
    cache = compiled.Cache(CACHE / "compiled", plan.list("base_debs.txt"), there)
    packages = wheels.Packages(pins, wheels.options_of(locks.values()), root, root / plan.wheels[-1][2], cache)
    empty, found = wheels.pieces(plan.image, packages, CACHE)
    asked: dict[str, Line] = {}
    for package in packages.wanted:
        if package.name in own:
            asked.setdefault(package.name, package.line)
    made = layers({"environment": empty}, "Python", 1) if len(plan.wheels) == plan.own_wheels else []
    made += layers({name: found[name] for name in found if name in own}, "Python", plan.counts["Python"])
    return made, {name: [astuple(line), mark(name, pins, found, stands_on)] for name, line in asked.items()}


def own_layers(plan: Plan) -> tuple[list[oci.Layer], dict[str, Any]]:
    """The layers of an image's own packages, which are made here, and what is to be checked of them, by ecosystem."""
    own: list[oci.Layer] = []
    lines: dict[str, Any] = {"Python": {}, "R": {}}
    order, fetched, there = debs.Order(), None, debs.installed()
    if plan.debian:
        order = debs.order(plan.locks, [plan.list(path) for path in plan.debian])
    # What may break a package besides what it needs: the parent, the Dockerfile, and what Debian has for the own lists.
    stands_on = " ".join(
        [plan.parent or plan.python, plan.dockerfile, *(package.sha256 for package in order.packages.values())]
    )
    if plan.r:
        own_debian = {name: package.version for name, package in order.packages.items()}
        of_r, fetched = r.order(plan.locks, plan.list(plan.r), there | own_debian)
        if r.PROFILE.exists():  # not where an image is built without make
            r.Repositories.note(there)
        packages, removed = order.packages | of_r.packages, order.removed + of_r.removed
        order = replace(of_r, names=order.names + of_r.names, packages=packages, removed=removed)
    installed = debian.Result()
    if order.packages:
        events.step("Debian packages")
        count = plan.counts["Debian"]
        installed = debian.pieces(order, CACHE, plan.parent or plan.python, TREE)
        own += layers(installed.packages, "Debian", count, installed.state, installed.folders)
    if plan.own_wheels:
        events.step("Python packages")
        made, lines["Python"] = python_layers(plan, stands_on, debs.installed())
        own += made
    if fetched:
        events.step("R packages")
        library = r.library(fetched, lambda: debian.unpack_missing(installed, TREE), CACHE / "pieces")
        own += layers(library, "R", plan.counts["R"])
        marks = {name: r_mark(name, fetched, library, installed, stands_on) for name in fetched.lines}
        lines["R"] = {name: [astuple(line), marks[name]] for name, line in fetched.lines.items()}
    return own, lines


def main() -> None:
    """Write the archive; see the module's docstring."""
    network.connect()
    plan, archive = Plan.read(Path(sys.argv[1])), Path(sys.argv[2])
    parents = [oci.Layer(**layer) for layer in plan.below] if plan.parent else root_layers(plan)
    own, lines = own_layers(plan)
    settings = plan.settings or {"Env": [f"PATH={os.environ['PATH']}"], "Cmd": ["python3"]}
    events.step("layers")
    image = oci.Image.of([*parents, *own], settings, MACHINES.get(platform.machine(), platform.machine()))
    lacking = image.lacking(plan.blobs, plan.chains)
    image.write(archive, plan.name, [layer for layer in lacking if layer.pieces])  # a parent's are in the engine
    for folder in (CACHE / "pieces", CACHE / "layers", debs.ARCHIVES):
        sweep(folder, time.time())
    (archive / "pyrlab.json").write_text(json.dumps({"layers": image.described(), "lines": lines}))


if __name__ == "__main__":
    events.run(main)
