"""Changed lists: what is rebuilt, and what a mistake in a list leads to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import NAMES, TINY, docker, layers, run_make, state, tagged

CHANGE = f"{TINY}-change"  # the tag of images that these tests rebuild


@pytest.fixture
def own_images(tiny: Path) -> Iterator[None]:
    """The images under a tag of their own."""
    assert tiny.exists()
    with tagged(CHANGE):
        yield


def append(path: Path, line: str) -> int:
    """Add a line to a list; its number."""
    path.write_text(path.read_text() + f"\n# a comment\n{line}  # and another\n")
    return len(path.read_text().splitlines())


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
def test_one_package_added(checkout: Path) -> None:
    """Adding a small Python package changes its layer of pylab and the manifest, and no other image."""
    before, before_layers = state(CHANGE), layers(f"pylab:{CHANGE}")
    append(checkout / "requirements.txt", "cowsay")
    built = run_make(checkout, "build", TAG=CHANGE)
    assert built.returncode == 0, built.stderr
    row = next(line for line in built.stdout.splitlines() if line.startswith("pylab:"))
    assert row.endswith("rebuilt: requirements.lock changed")
    after = state(CHANGE)
    assert {name for name in NAMES if after[name] != before[name]} == {"pylab"}
    assert len(set(layers(f"pylab:{CHANGE}")) - set(before_layers)) == 2  # cowsay's and the manifest
    assert docker("run", "--rm", f"pylab:{CHANGE}", "python", "-c", "import cowsay; print('moo')").endswith("moo")


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


def test_list_missing(checkout: Path) -> None:
    """A list that is not there is named."""
    (checkout / "r_debs.txt").unlink()
    built = run_make(checkout, "build", TAG=TINY)
    assert built.returncode != 0
    assert "pyrlab: the list r_debs.txt is missing; an empty file is a valid list" in built.stderr
