#!/usr/bin/env python3
"""Make the packages of an image where there is nothing but the checkout, as in a plain docker build: plain.py IMAGE.

This very file system is that of the image's parent. The lists and locks are the checkout's own, and each lock must be
of its lists as they are. What is made is checked here, and written down for unpack.py.
"""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from pyrlab.model import events, images, plan
from pyrlab.model.checkout import Checkout
from pyrlab.model.locked import digest, is_before, unseal
from pyrlab.model.problem import Problem
from pyrlab.steps import image, network, oci, wheels
from pyrlab.steps.pieces import END, Piece, Tar
from pyrlab.steps.unpack import MADE, unpack

CONTEXT = Path("/pyrlab/context")  # the checkout
PLAN = Path("/pyrlab/plan")
MANIFEST = "usr/share/pyrlab/manifest.json"  # of the parent: it does not tell what this image has


def check_lock(checkout: Checkout, name: str) -> None:
    """Stop where a lock of the checkout is not what its lists resolve to."""
    path = checkout.root / f"{name}.lock"
    made, content = (unseal(path.read_text()) if path.exists() else None) or (None, "")
    if not made or is_before(content):
        raise Problem("not there, or not as make lock wrote it; type make lock", path.name)
    if made.lists != digest("\n".join(checkout.wanted(name))):
        lists = " or ".join(checkout.table.files_of(name))
        raise Problem(f"made before {lists} was changed, so that it lacks what is asked for; type make lock", path.name)


def library() -> list[oci.Layer]:
    """The layer with what the Python image lacks of the bytecode of its own library."""
    tar = Tar()
    image.compile_library(tar, image.root_paths())
    piece = tar.save(Piece(Path("/pyrlab/library")))
    return oci.layers([("", [piece])], PLAN, image.TREE.folders_of([piece]))


def in_the_way(pieces: Iterable[Piece]) -> Iterator[str]:
    """What must go from the parent before pieces are unpacked: by their whiteouts, or as what is a folder is none."""
    for piece in pieces:
        for path, folder in [*((path, False) for path in piece.paths), *((path, True) for path in piece.folders)]:
            place, _, name = path.rpartition("/")
            if name.startswith(".wh."):
                yield f"{place}/{name.removeprefix('.wh.')}"
            elif (there := image.TREE.status(path)) and stat.S_ISDIR(there.st_mode) != folder:
                yield path


def main() -> None:
    """Make the packages of an image; see the module's docstring."""
    network.connect()
    [name] = sys.argv[1:]
    checkout = Checkout(CONTEXT, images.read((CONTEXT / images.FILE).read_bytes()))
    image.TREE.opt = image.PYTHON / "opt"  # where the whole parent is
    image.TREE.freeze()
    assert image.TREE.found is not None
    own = checkout.table[name]
    for lock in dict.fromkeys(each.lock for each in own.lists):
        check_lock(checkout, lock)
    checkout.stage(PLAN / "lists")
    (PLAN / "locks").mkdir()
    for path in CONTEXT.glob("*.lock"):
        shutil.copy(path, PLAN / "locks")
    parent = wheels.digest(repr([(path, entry.facts) for path, entry in sorted(image.TREE.found.items())]))
    plan.write(PLAN, checkout, name, name="", python=parent, parent=parent if own.parent else "")
    layers, lines = image.own_layers(plan.Plan.read(PLAN))
    gone = [MANIFEST]
    if not own.parent:
        layers = [*library(), *layers]
        gone += filter(image.BACKUPS.fullmatch, image.root_paths())
    gone += in_the_way(piece for layer in layers for piece in layer.pieces)
    MADE.mkdir()
    (MADE / "gone").write_text("\0".join(gone), errors="surrogateescape")
    frames = (frame for layer in layers for frame in layer.frames() if frame != END)
    for number, frame in enumerate(chain(frames, [END])):
        (MADE / f"{number:05}.zst").write_bytes(frame)
    (PLAN / "lines.json").write_text(json.dumps(lines))
    unpack(but="opt")  # where the packages of Python are already, and what is kept for other builds
    check = [sys.executable, "-m", "pyrlab.steps.check", f"{PLAN}/lines.json", f"{PLAN}/marks"]
    sys.exit(subprocess.run(check).returncode)


if __name__ == "__main__":
    events.run(main)
