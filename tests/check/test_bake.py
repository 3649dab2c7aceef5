"""Where BuildKit says that a build has failed whose results are there, as on a busy disk, the build goes on."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from bare import write_script
from pyrlab.host import bake
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
    write_script(tmp_path / "docker", '#!/bin/sh\necho $2 >>asked; echo "$WORDS" >&2; exit 1\n')
    return Project(tmp_path, {"PATH": f"{tmp_path}", "WORDS": LATE})


def asked(project: Project) -> list[str]:
    """The commands of Buildx that were asked for."""
    return (project.root / "asked").read_text().split()


def test_all_is_there(stumbling: Project) -> None:
    """Nothing is built again that is there."""
    with Progress([], stumbling.root / "log") as progress:
        bake.bake(stumbling, "pylab", progress, {}, done=lambda: True)
    assert asked(stumbling).count("bake") == 1


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
