"""What is put into a piece comes out of a layer, on every machine from the same bytes."""

from __future__ import annotations

import filecmp
import hashlib
import io
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard

from checkout import ROOT
from pyrlab.steps import pieces
from pyrlab.steps.pieces import EPOCH, FOLDER, Mode, Piece, Tar

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, which is no UTF-8 either
BYTES = bytes.fromhex("80ff00fe")
PUBLIC = Mode(0o644)
ODD = os.fsdecode(b"opt/\xff\xfe")
LONG = f"opt/{'long/' * 60}name"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away and set capabilities")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty tree."""
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def put(tree: Path, path: str, content: bytes = b"x", mode: int = 0o644) -> Path:
    """A file of a tree, with the folders that it is in."""
    place = tree / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    place.chmod(mode)
    return place


def taken(tree: Path, mtime: int | None = EPOCH) -> Tar:
    """All of a tree."""
    tar = Tar()
    for path in sorted(tree.rglob("*")):
        tar.from_disk(tree, str(path.relative_to(tree)), mtime)
    return tar


def unpacked(folder: Path, *made: Piece) -> Path:
    """What zstd and GNU tar make of the layer of some pieces."""
    target = folder / "unpacked"
    target.mkdir()
    tar = ["tar", "--extract", "--xattrs", "--xattrs-include=*", "--same-permissions", "--directory", str(target)]
    subprocess.run(tar, input=decompressed(b"".join(pieces.frames(made, {}))), check=True)
    return target


def decompressed(frames: bytes) -> bytes:
    """What zstd makes of frames, one behind the other."""
    with zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True) as reader:
        return reader.read()


def members(made: Iterable[Piece], known: dict[str, Mode] | None = None) -> list[tarfile.TarInfo]:
    """What a reader of a layer finds in it, in order."""
    content = b"".join(map(pieces.decompress, pieces.frames(made, known or {})))
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:", encoding="utf-8", errors="surrogateescape") as found:
        return found.getmembers()


def seen(tree: Path) -> dict[str, tuple[object, ...]]:
    """What there is to see of a tree: by path: kind and mode, owner, times, attributes and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in tree.rglob("*"):
        status = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        names = os.listxattr(path, follow_symlinks=False)
        attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
        owner = (status.st_uid, status.st_gid)
        time = None if path.is_dir() and not path.is_symlink() else int(status.st_mtime)
        found[str(path.relative_to(tree))] = (status.st_mode, *owner, time, attributes, content)
    return found


@pytest.fixture
def full(tree: Path) -> Path:
    """A tree with whatever a package may have."""
    put(tree, "usr/bin/tool", b"#!/bin/sh\n" * 1000, 0o755)
    put(tree, "usr/bin/su", mode=0o4755)
    put(tree, "usr/share/empty", b"")
    put(tree, "usr/share/block", bytes(512))
    put(tree, "usr/share/more", bytes(513))
    put(tree, "opt/caf\u00e9", b"utf-8")
    put(tree, ODD, b"no utf-8")
    put(tree, LONG)
    put(tree, "opt/a b\nc")
    (tree / "opt/first").hardlink_to(tree / "usr/bin/tool")
    (tree / "usr/lib").symlink_to("bin")
    (tree / "opt/far").symlink_to("/" + "far/" * 40 + "away")
    (tree / "opt/odd").symlink_to(os.fsdecode(b"\xff"))
    (tree / "opt/nothing").mkdir()
    (tree / "opt/nothing").chmod(0o2770)
    os.setxattr(put(tree, "opt/noted"), "user.note", b"caf\xc3\xa9")
    os.setxattr(put(tree, "opt/bytes"), "user.note", BYTES)
    for path in tree.rglob("*"):
        os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    return tree


def test_what_is_put_in_comes_out(full: Path, tmp_path: Path) -> None:
    """Files, links, modes, attributes and odd names are in the image as they were installed."""
    piece = taken(full, None).save(Piece(tmp_path / "kept/piece"))
    found = unpacked(tmp_path, piece)
    assert seen(found) == seen(full)
    assert (found / "opt/first").samefile(found / "usr/bin/tool")


def test_a_step_unpacks_it_too(full: Path, tmp_path: Path) -> None:
    """What a later step compiles against is what was installed."""
    piece = taken(full, None).save(Piece(tmp_path / "piece"))
    (tmp_path / "root").mkdir()
    pieces.unpack([piece], tmp_path / "root")
    found, expected = seen(tmp_path / "root"), seen(full)
    assert found.keys() == expected.keys()
    assert {path: entry[0] for path, entry in found.items()} == {path: entry[0] for path, entry in expected.items()}
    assert {path: entry[-1] for path, entry in found.items()} == {path: entry[-1] for path, entry in expected.items()}


@needs_root
def test_owners_and_capabilities(tree: Path, tmp_path: Path) -> None:
    """A file that belongs to somebody, or may open sockets, does so in the image."""
    os.chown(put(tree, "opt/own"), 1000, 100)
    os.setxattr(put(tree, "usr/bin/ping", mode=0o755), "security.capability", CAPABILITY)
    (tree / "opt/link").symlink_to("own")
    os.chown(tree / "opt/link", 1000, 100, follow_symlinks=False)
    os.chown(tree / "opt", 1000, 100)
    (tree / "opt").chmod(0o2775)
    piece = taken(tree).save(Piece(tmp_path / "piece"))
    assert seen(unpacked(tmp_path, piece)) == {
        path: (*entry[:3], EPOCH if entry[3] else None, *entry[4:]) for path, entry in seen(tree).items()
    }


def test_one_layer_of_several_pieces(tmp_path: Path) -> None:
    """Packages that share folders are unpacked from one layer, which names no path twice, be it a folder."""
    made = []
    for name in ("one", "two", "three"):
        tar = Tar()
        tar.folder(f"usr/share/{name}")
        tar.folder("usr/bin", Mode(0o755))
        tar.file(f"usr/bin/{name}", name.encode(), Mode(0o755))
        tar.file(f"usr/share/{name}/file", b"", PUBLIC)
        made.append(tar.save(Piece(tmp_path / name)))
    found = members(made)
    paths = [member.name for member in found]
    assert len(set(paths)) == len(paths) == 6 + 6
    assert all(path.rpartition("/")[0] in ["", *paths[:number]] for number, path in enumerate(paths))
    assert all(member.mtime == EPOCH for member in found)
    assert (unpacked(tmp_path, *made) / "usr/bin/two").read_text() == "two"


def test_folders_known_of_the_image_below(tmp_path: Path) -> None:
    """A layer gives a folder that is there already no other owner or mode; of a new one the first package decides."""
    made = []
    for name, mode in (("one", Mode(0o700)), ("two", Mode(0o750, 1, 1))):
        tar = Tar()
        tar.folder("srv", mode)
        tar.folder("opt", mode)
        tar.file(f"opt/{name}", b"", PUBLIC)
        made.append(tar.save(Piece(tmp_path / name)))
    modes = {member.name: Mode(member.mode, member.uid, member.gid) for member in members(made, {"opt": FOLDER})}
    assert modes["opt"] == FOLDER
    assert modes["srv"] == Mode(0o700)


def test_an_empty_layer(tmp_path: Path) -> None:
    """A package without a file is one, and so is no package at all."""
    assert members([]) == []
    piece = Tar().save(Piece(tmp_path / "piece"))
    assert members([piece]) == []
    assert list(unpacked(tmp_path, piece).iterdir()) == []


def test_what_is_gone(tmp_path: Path) -> None:
    """What a package removes of a layer below is told as the image specification has it."""
    tar = Tar()
    tar.folder("etc")
    tar.gone("etc/setting")
    tar.gone("top")
    found = members([tar.save(Piece(tmp_path / "piece"))])
    assert [(member.name, member.size, member.isreg()) for member in found] == [
        ("etc", 0, False),
        ("etc/.wh.setting", 0, True),
        (".wh.top", 0, True),
    ]


def test_sockets_stay_behind(tree: Path) -> None:
    """What belongs to a running system is in no layer."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
    put(tree, "file")
    assert taken(tree).paths == ["file"]


def test_links_and_files_that_are_made(tmp_path: Path) -> None:
    """What a tool makes itself, as bytecode, has the owner and mode that it says, and one time."""
    tar = Tar()
    tar.folder("opt/venv", Mode(0o2775, 1000, 100))
    tar.file("opt/venv/module.py", b"pass\n", Mode(0o664, 1000, 100))
    tar.file("opt/venv/link", b"", Mode(0o777, 1000, 100), kind=tarfile.SYMTYPE, target="module.py")
    found = {member.name: member for member in members([tar.save(Piece(tmp_path / "piece"))])}
    assert {path: (member.mode, member.uid, member.gid, member.mtime) for path, member in found.items()} == {
        "opt": (0o755, 0, 0, EPOCH),
        "opt/venv": (0o2775, 1000, 100, EPOCH),
        "opt/venv/module.py": (0o664, 1000, 100, EPOCH),
        "opt/venv/link": (0o777, 1000, 100, EPOCH),
    }
    assert found["opt/venv/link"].linkname == "module.py"


def test_a_piece_is_known_by_its_index(full: Path, tmp_path: Path) -> None:
    """A build that finds a piece made before knows its files, folders and size without unpacking it."""
    tar = taken(full)
    tar.save(Piece(tmp_path / "piece"), {"name": "own", "version": "1.0"})
    again = Piece(tmp_path / "piece")
    assert again.exists
    assert again.paths == tar.paths
    assert {*again.paths, *again.folders} == {str(path.relative_to(full)) for path in full.rglob("*")}
    assert again.folders["opt/nothing"].mode == 0o2770
    assert again.size == tar.size
    assert again.about == {"name": "own", "version": "1.0"}
    assert not Piece(tmp_path / "other").exists
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["piece", "piece.json"]


def test_a_piece_without_some_paths(full: Path, tmp_path: Path) -> None:
    """Of a file that two packages have, one gives it up; all else of it stays as it was."""
    whole = taken(full, None).save(Piece(tmp_path / "whole"), {"name": "own"})
    left = {"usr/share/empty", ODD, "not/there"}
    part = whole.without(left)
    assert part.paths == [path for path in whole.paths if path not in left]
    assert (part.folders, part.about) == (whole.folders, whole.about)
    found, expected = seen(unpacked(tmp_path, part)), seen(full)
    assert found == {path: entry for path, entry in expected.items() if path not in left}
    assert whole.without(["usr/share/empty", ODD]).key == part.key != whole.key
    assert whole.without([ODD]).key != part.key


def test_a_piece_without_the_first_of_three_names(tree: Path, tmp_path: Path) -> None:
    """A file that has more names keeps its content under the others, where one is given up."""
    os.setxattr(put(tree, "a", b"content", 0o750), "user.note", b"a")
    for name in ("b", "c"):
        (tree / name).hardlink_to(tree / "a")
    found = unpacked(tmp_path, taken(tree).save(Piece(tmp_path / "whole")).without(["a"]))
    assert sorted(path.name for path in found.iterdir()) == ["b", "c"]
    assert (found / "b").samefile(found / "c")
    assert seen(found) == {path: (*entry[:3], EPOCH, *entry[4:]) for path, entry in seen(tree).items() if path != "a"}


MAKE = """
import hashlib, sys
from pathlib import Path
from pyrlab.steps.pieces import Piece, Tar, frames
tar, root = Tar(), Path(sys.argv[1])
for path in sorted(root.rglob("*")):
    tar.from_disk(root, str(path.relative_to(root)), 1)
piece = tar.save(Piece(Path(sys.argv[2]) / "piece"))
part = piece.without({"usr/share/empty", "opt/noted"})
for each in (piece, part):
    print(each.key, hashlib.sha256(b"".join(frames([each], {}))).hexdigest())
"""


def test_the_same_bytes_twice(full: Path, tmp_path: Path) -> None:
    """Two machines that install the same have the same pieces and layers."""
    said = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", MAKE, str(full), str(tmp_path / seed)]
        said.append(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert said[0] == said[1]
    assert (tmp_path / "1/piece").read_bytes() == (tmp_path / "2/piece").read_bytes()
    assert (tmp_path / "1/piece.json").read_bytes() == (tmp_path / "2/piece.json").read_bytes()


LARGE = """
import resource, sys
from pathlib import Path
from pyrlab.steps import oci, pieces
resource.setrlimit(resource.RLIMIT_DATA, (150_000_000, 150_000_000))
root, cache = map(Path, sys.argv[1:])
tar = pieces.Tar()
tar.from_disk(root, "large.so")
piece = tar.save(pieces.Piece(cache / "piece"))
[layer] = oci.layers([("large", [piece])], cache / "layers", {})
pieces.extract(layer.frames(), cache)
"""


def test_a_package_larger_than_memory(tmp_path: Path) -> None:
    """Whoever installs PyTorch in an engine of a few gigabytes gets its layer: no more than a part is in memory."""
    root, cache = tmp_path / "root", tmp_path / "cache"
    root.mkdir()
    cache.mkdir()
    with (root / "large.so").open("wb") as file:
        for place in (0, 200_000_000, 399_999_990):
            file.seek(place)
            file.write(f"at {place}".encode().ljust(10))
    command = [sys.executable, "-c", LARGE, str(root), str(cache)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert filecmp.cmp(root / "large.so", cache / "large.so", shallow=False)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1 << 20, 20_000_001])
def test_what_is_compressed_is_what_was_given(size: int) -> None:
    """Contents of every size come back, and zstd itself reads them."""
    content = hashlib.sha256(b"seed").digest() * (size // 32) + bytes(size % 32)
    frame = pieces.compress(content)
    assert pieces.decompress(frame) == content
    assert decompressed(frame) == content


def test_pieces_that_nobody_asks_for_go(tmp_path: Path) -> None:
    """What a build keeps does not grow for ever: a piece goes a month after the last image that had it was built."""
    used, left = (Tar().save(Piece(tmp_path / name)) for name in ("used", "left"))
    later = left.path.stat().st_mtime + 40 * 86_400
    os.utime(used.path, (later, later))
    pieces.sweep(tmp_path, later)
    assert (used.exists, used.beside.exists(), left.exists, left.beside.exists()) == (True, True, False, False)
