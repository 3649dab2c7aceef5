"""Where BuildKit says that a build has failed whose results are there, as on a busy disk, the build goes on."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest

from bare import write_script
from pyrlab.host import bake
from pyrlab.host.engine import Engine
from pyrlab.host.progress import Progress
from pyrlab.host.project import Project
from pyrlab.model.problem import Problem

# What Buildx 0.13 says where BuildKit could not write its history in time, and where its cache was pruned meanwhile.
LATE = "ERROR: failed to solve: DeadlineExceeded: context deadline exceeded"
PRUNED = "ERROR: failed to solve: not found"
UNKNOWN = "ERROR: failed to solve: python:3-slum: failed to resolve source metadata: python:3-slum: not found"


@pytest.fixture
def stumbling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """A checkout where every build ends with $WORDS, waits for no other of this user, and is noted."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(bake, "PAUSE", 0)
    (tmp_path / ".cache").mkdir()
    script = 'echo $2 >>asked; [ "$2" != bake ] || echo FROM scratch >$TMPDIR/Dockerfile; echo "$WORDS" >&2; exit 1'
    write_script(tmp_path / "docker", f"#!/bin/sh\n{script}\n")
    return Project(tmp_path, {"PATH": str(tmp_path), "TMPDIR": str(tmp_path), "WORDS": LATE})


def asked(project: Project) -> list[str]:
    """The commands of Buildx that were asked for."""
    return (project.root / "asked").read_text().split()


def test_all_is_there(stumbling: Project) -> None:
    """Nothing is built again that is there."""
    with Progress([], stumbling.root / "log") as progress:
        bake.bake(stumbling, "pylab", progress, {}, done=lambda: True)
    assert asked(stumbling).count("bake") == 1


def test_nothing_is_left(stumbling: Project) -> None:
    """Of what Buildx puts among the temporary files nothing stays."""
    with Progress([], stumbling.root / "log") as progress:
        bake.bake(stumbling, "pylab", progress, {}, done=lambda: True)
    assert not [*stumbling.root.rglob("Dockerfile")]


@pytest.mark.parametrize(("words", "times"), [(LATE, 3), (PRUNED, 3), (UNKNOWN, 1)])
def test_something_is_wanting(stumbling: Project, words: str, times: int) -> None:
    """What is not there is asked for again, a few times, and then the user reads why; not what is nowhere."""
    with Progress([], stumbling.root / "log") as progress, pytest.raises(Problem, match=f"^the build failed: {words}$"):
        bake.bake(stumbling, "pylab", progress, {"WORDS": words}, attempts=3)
    assert asked(stumbling).count("bake") == times


def test_what_builds_leave(stumbling: Project) -> None:
    """It is looked for at the first build after the machine's start, and then where it may be much."""
    looked = []
    for layers in (bake.MANY - 1, 1, 1, bake.MANY, 1):
        with bake.turn(stumbling.engine, layers):
            looked.append(asked(stumbling).count("du"))
    assert looked == [1, 1, 2, 2, 3]


def chain(name: str, length: int) -> dict[str, str]:
    """Records of BuildKit's cache, each with the one that it rests on: an image's layers, and a step."""
    ids = [f"{name}{number:02}".ljust(25, "0") for number in range(length)]
    return dict(zip(ids, ["", *ids], strict=False))


@pytest.mark.parametrize(
    ("version", "images", "removed"),
    [("26.1.5+dfsg1", 4, True), ("26.1.5+dfsg1", 3, False), ("28.5.2", 4, False)],
    ids=["many", "few", "a newer engine"],
)
def test_what_other_builds_leave(tmp_path: Path, version: str, images: int, *, removed: bool) -> None:
    """Of builds on many images with many layers nothing stays that would keep an old engine from starting again."""
    long = {name: parent for image in range(images) for name, parent in chain(f"long{image}", 62).items()}
    records = {**long, **chain("short", 12)}
    shown = "".join(
        f"ID:\t\t{name}\nParent:\t\t{parent}\nReclaimable:\ttrue\nType:\t\tregular\n\n"
        for name, parent in records.items()
    )
    (tmp_path / "shown").write_text(shown)
    info = json.dumps({"ServerVersion": version})
    script = f"case $* in info*) echo '{info}' ;; *du*) cat shown ;; *) echo \"$*\" >>pruned ;; esac"
    write_script(tmp_path / "docker", f"#!/bin/sh\n{script}\n")
    (tmp_path / "cat").symlink_to("/bin/cat")
    assert bake.forget_steps(Engine(tmp_path, {"PATH": str(tmp_path)}))
    pruned = tmp_path / "pruned"
    asked_for = re.findall(r"\b(?:long|short)\w+", pruned.read_text()) if pruned.exists() else []
    assert {*asked_for} == ({name[:8] for name in long} if removed else set())
