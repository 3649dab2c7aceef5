"""Packages are shared out to layers so that a change to one changes one layer, whoever builds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pyrlab.steps import grouping
from pyrlab.steps.pieces import FOLDER, Mode, Piece, Tar

LARGE, SMALL = 1000, 100


def made(folder: Path, **sizes: int) -> dict[str, Piece]:
    """Pieces of packages with one file each, of so many bytes."""
    found = {}
    for name, size in sizes.items():
        tar = Tar()
        tar.folder("opt", FOLDER)
        tar.file(f"opt/{name}", bytes(size), Mode(0o644))
        found[name] = tar.save(Piece(folder / name))
    return found


@pytest.mark.parametrize("count", [4, 11, 28, 36])
def test_a_package_that_comes_goes_or_grows_moves_no_other(count: int) -> None:
    """Another package in a list leaves the layers of the others alone; a large one may move large ones only.

    Nor is a small one in a layer with any that is not.
    """
    chance = random.Random(count)
    packages = {f"p{number}": chance.randrange(10, LARGE) for number in range(150)}
    packages |= {f"l{number}": chance.randrange(LARGE, 100 * LARGE) for number in range(count // 2)}
    full = grouping.assign(packages, count, LARGE, SMALL)
    assert set(full.values()) <= set(range(count))
    assert not {full[name] for name in packages if packages[name] < SMALL} & {
        full[name] for name in packages if packages[name] >= SMALL
    }
    for name, size in packages.items():
        without = grouping.assign({other: packages[other] for other in packages if other != name}, count, LARGE, SMALL)
        more = size + 1 if size + 1 not in (SMALL, LARGE) else size
        grown = grouping.assign({**packages, name: more}, count, LARGE, SMALL)
        moved = {other for other in without if without[other] != full[other]}
        assert grown == full
        assert all(size >= LARGE and packages[other] >= LARGE for other in moved)


def test_the_layer_of_a_package_is_the_same_on_every_machine() -> None:
    """Users who share a list share layers: neither the order of files nor the day decides."""
    sizes = {"numpy": LARGE, "pandas": LARGE, "six": 1, "idna": 1}
    backwards = dict(reversed(sizes.items()))
    assert grouping.assign(sizes, 8, LARGE, SMALL) == grouping.assign(backwards, 8, LARGE, SMALL)
    assert grouping.bin_of_name("numpy", 1000) == 202


@pytest.mark.parametrize("number", [0, 1, 3, 4, 9])
def test_large_packages_have_a_layer_of_their_own(number: int) -> None:
    """An update of a large package sends that one only; where there are too many, the largest come first."""
    sizes = {f"large{index}": LARGE + index for index in range(number)} | {f"small{index}": 1 for index in range(50)}
    bins = grouping.assign(sizes, 8, LARGE, SMALL)
    alone = [name for name in sizes if list(bins.values()).count(bins[name]) == 1]
    assert sorted(alone) == [f"large{index}" for index in range(max(0, number - 4), number)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_layers_are_enough(count: int) -> None:
    """An image with one or two layers holds every package too."""
    bins = grouping.assign({"large": LARGE, "larger": LARGE + 1, "small": 1}, count, LARGE, SMALL)
    assert set(bins) == {"large", "larger", "small"}
    assert set(bins.values()) <= set(range(count))


def test_every_package_is_in_one_layer(tmp_path: Path) -> None:
    """The layers hold every package once; none is empty, and each is told of by the names of its packages."""
    pieces = made(tmp_path, **{f"p{number}": number for number in range(9)}, numpy=grouping.LARGE["Python"])
    groups = grouping.groups(pieces, 8, "Python")
    assert sorted(piece.key for _, group in groups for piece in group) == sorted(pieces)
    assert all(about.split() == [piece.key for piece in group] for about, group in groups)
    assert groups[0][0] == "numpy"


@pytest.mark.parametrize("count", [2, 11])
def test_no_package(count: int) -> None:
    """An empty list gives no layer."""
    assert grouping.groups({}, count, "Debian") == []


def test_a_long_history_is_cut() -> None:
    """What docker history says of a layer stays readable, and says how many packages it leaves out."""
    names = [f"package{number:02d}" for number in range(40)]
    said = grouping.described(names)
    named, _, left = said.partition(" and ")
    assert len(said) < grouping.LONG + 20
    assert named.split() == names[: len(named.split())]
    assert left == f"{40 - len(named.split())} more"
    assert grouping.described(names[:3]) == "package00 package01 package02"
