"""Where BuildKit says that a build has failed whose results are there, as on a busy disk, the build goes on."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pyrlab.host import bake
from pyrlab.host.progress import Progress
from pyrlab.model.problem import Problem

# What Buildx 0.13 says where BuildKit could not write its history in time.
WORDS = "ERROR: failed to solve: DeadlineExceeded: context deadline exceeded"


@pytest.fixture
def stumbling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let every build end like that, wait for no other of this user, and note that there was one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(bake, "BAKE", ["sh", "-c", f"echo >>{tmp_path}/builds; echo '{WORDS}' >&2; exit 1"])
    monkeypatch.setattr(bake, "PAUSE", 0)
    return tmp_path / "builds"


def test_all_is_there(stumbling: Path, tmp_path: Path) -> None:
    """Nothing is built again that is there."""
    with Progress([], tmp_path / "log") as progress:
        bake.bake(["pylab"], progress, {}, done=lambda: True)
    assert stumbling.read_text() == "\n"


def test_something_is_wanting(stumbling: Path, tmp_path: Path) -> None:
    """What is not there is asked for again, a few times, and then the user reads why."""
    with Progress([], tmp_path / "log") as progress, pytest.raises(Problem, match="DeadlineExceeded"):
        bake.bake(["pylab"], progress, {}, attempts=3)
    assert stumbling.read_text() == "\n\n\n"
