"""What is built again, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import NAMES, TINY, run_make, state, tagged

CHANGE = f"{TINY}-change"  # the tag of images that these tests rebuild


@pytest.fixture
def own_images(tiny: Path) -> Iterator[None]:
    """The images under a tag of their own."""
    assert tiny.exists()
    with tagged(CHANGE):
        yield


def test_nothing_changed(checkout: Path) -> None:
    """Building twice does nothing the second time, and says so for every image."""
    before = state(TINY)
    built = run_make(checkout, "build", TAG=TINY)
    assert built.returncode == 0, built.stderr
    lines = built.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [f"{name}:{TINY}" for name in NAMES]
    assert all(line.endswith("up to date") for line in lines[1:5])
    assert built.stderr == ""
    assert state(TINY) == before


@pytest.mark.usefixtures("own_images")
def test_a_comment(checkout: Path) -> None:
    """What a tool makes is made again where the tool changed; if it is the same, no image is another."""
    before = state(CHANGE)
    for tool in ("debs", "trees", "wheels"):
        path = checkout / f"pyrlab/steps/{tool}.py"
        path.write_text(f"# Nobody reads this.\n{path.read_text()}")
    built = run_make(checkout, "build_pylab", TAG=CHANGE)
    assert built.returncode == 0, built.stderr
    assert built.stdout.count("rebuilt: pyrlab/steps changed") == 2
    assert state(CHANGE) == before
