"""What an image's packages come to together: layers in which no path stands twice, upon what the parent has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyrlab.model.lists import Line
from pyrlab.model.locked import Locked
from pyrlab.steps import check, debian, grouping, image, r
from pyrlab.steps.pieces import FOLDER, Mode, Piece, Tar, opened


def made(folder: Path, name: str, *paths: str) -> Piece:
    """The piece of a package with files that say whose they are."""
    tar = Tar()
    for path in paths:
        tar.folder(path.rpartition("/")[0])
        tar.file(path, name.encode(), Mode(0o644))
    return tar.save(Piece(folder / name))


def owners(pieces: list[Piece]) -> dict[str, str]:
    """Whose each file is; none may stand twice."""
    found: dict[str, str] = {}
    for piece in pieces:
        with opened(piece) as tree:
            for member in tree:
                assert member.name not in found
                file = tree.extractfile(member)
                assert file
                found[member.name] = file.read().decode()
    return found


def test_a_file_of_two_packages_of_a_layer(tmp_path: Path) -> None:
    """Docker's classic store takes no layer in which a path stands twice: the first package keeps the file."""
    one, two, three = (made(tmp_path, name, f"opt/{name}", "opt/shared") for name in ("one", "two", "three"))
    [(about, pieces)] = image.distinct([("one two three", [one, two, three])])
    assert about == "one two three"
    assert owners(pieces) == {"opt/one": "one", "opt/shared": "one", "opt/two": "two", "opt/three": "three"}
    assert pieces[0] == one


def test_a_file_of_two_layers(tmp_path: Path) -> None:
    """Of packages in several layers each has its own file, and that of the uppermost is seen."""
    groups = [(name, [made(tmp_path, name, "opt/shared")]) for name in ("one", "two")]
    assert image.distinct(groups) == groups


@pytest.mark.parametrize("frozen", [False, True])
def test_layers_stand_on_the_parent(tmp_path: Path, frozen: bool) -> None:
    """A folder that the parent has stays as it is there; one that it has as a link is the package's own affair."""
    parent = tmp_path / "parent"
    (parent / "opt").mkdir(parents=True)
    (parent / "opt").chmod(0o2770)
    (parent / "lib").symlink_to("opt")
    tree = debian.Tree(parent)
    piece = made(tmp_path, "one", "opt/new/one", "lib/one")
    status = (os.getuid(), (parent / "opt").stat().st_gid)
    if frozen:  # since something is installed
        tree.freeze()
        (parent / "opt").chmod(0o755)
        (parent / "opt/new").mkdir()
    assert tree.folders_of([piece]) == {"opt": Mode(0o2770, *status)}
    assert piece.folders["opt"] == FOLDER


@pytest.mark.parametrize("count", [2, 5])
def test_how_many_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Packages and their state keep to the number of layers that they have, the state on top."""
    monkeypatch.setattr(image, "TREE", debian.Tree(tmp_path))
    monkeypatch.setattr(image, "CACHE", tmp_path)
    pieces = {name: made(tmp_path, name, f"opt/{name}") for name in map(str, range(9))}
    large = Tar()
    large.file("large", bytes(grouping.LARGE["Debian"]), Mode(0o644))
    pieces["large"] = large.save(Piece(tmp_path / "large"))
    state = made(tmp_path, "state", "var/lib/status")
    found = image.layers(pieces, "Debian", count, state)
    assert len(found) <= count
    assert found[-1].pieces == (state,)
    assert {piece.key for layer in found for piece in layer.pieces} == {*pieces, "state"}
    assert all(layer.about.startswith("Debian: ") for layer in found)


def test_when_a_package_of_r_is_loaded_again(tmp_path: Path) -> None:
    """It is where its parent, anything that it needs, however far down, or anything that was fetched has changed."""

    def mark(name: str, parent: str = "parent", fetched: str = "", **digests: str) -> str:
        needs = {"r-cran-ggplot2": ["r-cran-rlang"], "r-cran-rlang": ["libc6"], "libfribidi0": [], "r-cran-zoo": []}
        archives = {
            each: debian.Deb(digests.get(each.replace("-", "_"), each), each, "amd64", "", False, [], others, [])
            for each, others in needs.items()
        }
        locked = {"mine": Locked("1", needs=("rlang",))}
        of_r = r.Fetched(locked, {"mine": Line("mine", "r_packages.txt", 1)}, {}, "r_packages.lock")
        piece = made(tmp_path, f"mine{fetched}", "opt/mine")
        return image.r_mark(name, of_r, {"mine": piece}, debian.Result(archives=archives), parent)

    assert len({mark(name) for name in ("ggplot2", "rlang", "zoo", "mine", "stats", "tools")}) == 6
    for name, changes in {"ggplot2": 1, "mine": 1, "zoo": 0, "stats": 0}.items():
        assert (mark(name, r_cran_rlang="other") != mark(name)) == bool(changes)
        assert mark(name, libfribidi0="other") == mark(name)
        assert mark(name, parent="other") != mark(name)
        assert mark(name, fetched="2") != mark(name)


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({"works": "", "setup": "raise SystemExit('usage: setup.py')"}, ""),  # as packages that forgot to leave it out
        ({"own": "import sys; sys.exit(0)"}, "own\tSystemExit: 0\n"),
        ({"own": "import nothing_such"}, "own\tModuleNotFoundError: No module named 'nothing_such'\n"),
    ],
)
def test_what_can_be_imported(modules: dict[str, str], said: str, tmp_path: Path) -> None:
    """A package of which a module works, works; one that ends Python does not, and hides no other that is broken."""
    about = tmp_path / "own-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (about / "RECORD").write_text("".join(f"{name}.py,,\n" for name in modules))
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    command = [sys.executable, "-c", check.IMPORTS, "own"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (run.stderr, bool(run.returncode)) == (said, bool(said))
