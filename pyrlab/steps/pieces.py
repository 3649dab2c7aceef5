"""Pieces of layers: the files of one package as a tar without an end, compressed once and kept.

A layer is a frame with the folders of its packages, their pieces one behind the other, and an end: both tar files and
frames of zstd may be joined (RFC 8878, section 3). So a package is unpacked, compiled and compressed once, ever, and a
layer that changes is put together by copying. Folders stand apart, since packages share them, and a layer may name
each path but once (Docker's classic image store insists on it).
"""

from __future__ import annotations

import copy
import ctypes
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from pyrlab.model.problem import Problem
from pyrlab.steps import trees

EPOCH = 1_767_225_600  # 2026-01-01, the one time stamp of everything that a build generates
FORMAT = "6"  # part of every piece's key; counted up where the same package would give another piece
XATTR = "SCHILY.xattr."  # begins the names of extended attributes in a tar file
KEPT = 30 * 86_400  # seconds for which a piece or an archive is kept that nobody asks for
LEVEL = 3  # of compression: half the size for a tenth of the time of gzip's default
CHUNK = 1 << 24  # bytes that a frame unpacks to at most, so that of a package of gigabytes memory holds no more

# Every Debian has it, since dpkg needs it; a registry's Python before 3.14 has no module for it.
zstd = ctypes.CDLL("libzstd.so.1")
for function in ("ZSTD_compressBound", "ZSTD_compress", "ZSTD_decompress"):
    getattr(zstd, function).restype = ctypes.c_size_t
zstd.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong


def compress(content: bytes) -> bytes:
    """One frame that holds `content`."""
    room = ctypes.create_string_buffer(zstd.ZSTD_compressBound(ctypes.c_size_t(len(content))))
    size = zstd.ZSTD_compress(room, ctypes.c_size_t(len(room)), content, ctypes.c_size_t(len(content)), LEVEL)
    return ctypes.string_at(room, size)


def decompress(frame: bytes) -> bytes:
    """What one frame holds."""
    size = zstd.ZSTD_getFrameContentSize(frame, ctypes.c_size_t(len(frame)))
    room = ctypes.create_string_buffer(max(size, 1))
    zstd.ZSTD_decompress(room, ctypes.c_size_t(size), frame, ctypes.c_size_t(len(frame)))
    return ctypes.string_at(room, size)


END = compress(bytes(1024))  # of a tar file


@dataclass(frozen=True)
class Mode:
    """Who owns a file or folder, and who may do what with it."""

    mode: int  # the permission bits
    uid: int = 0
    gid: int = 0

    @classmethod
    def of(cls, status: os.stat_result) -> Mode:
        """What the system says of one."""
        return cls(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


FOLDER = Mode(0o755)
Folders = dict[str, Mode]  # by path, without a leading slash


@dataclass
class Tar:
    """The files of a package, in the order in which they are added, and apart from them its folders.

    All is compressed as it comes; a frame begins every CHUNK bytes, so the same files always give the same frames.
    """

    folders: Folders = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    linked: dict[tuple[int, int], str] = field(default_factory=dict)  # files with several names: the first, by inode
    usual: Mode = FOLDER  # of folders of which nothing else is said
    size: int = 0  # bytes
    rest: bytearray = field(default_factory=bytearray)  # what is in no frame yet
    frames: list[int] = field(default_factory=list)  # the bytes of each frame
    compressed: IO[bytes] = field(default_factory=lambda: tempfile.SpooledTemporaryFile(CHUNK))  # noqa: SIM115

    def folder(self, path: str, mode: Mode | None = None) -> None:
        """Add the folder `path`, unless it is there, and those that it is in."""
        while path and path not in self.folders:
            self.folders[path] = mode or self.usual
            path, mode = path.rpartition("/")[0], None

    def add(self, member: tarfile.TarInfo, content: bytes | Path = b"") -> None:
        """Add whatever is no folder, and the folders that it is in where they are not there yet."""
        self.folder(member.name.rpartition("/")[0])
        self.paths.append(member.name)
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
            member.size = file.seek(0, os.SEEK_END)
            file.seek(0)
            self.write(head(member))
            while block := file.read(CHUNK):
                self.write(block)
            self.write(bytes(-member.size % 512))

    def write(self, block: bytes) -> None:
        """Add to the tar file as it is."""
        self.rest += block
        self.size += len(block)
        while len(self.rest) >= CHUNK:
            self.end_frame()

    def end_frame(self) -> None:
        """Compress the rest, as much of it as a frame has."""
        frame = compress(bytes(self.rest[:CHUNK]))
        del self.rest[:CHUNK]
        self.frames.append(self.compressed.write(frame))

    def end(self) -> IO[bytes]:
        """All frames; nothing more is added."""
        if self.rest or not self.frames:
            self.end_frame()
        self.compressed.seek(0)
        return self.compressed

    def file(
        self,
        path: str,
        content: bytes | Path,
        mode: Mode,
        mtime: int = EPOCH,
        kind: bytes = tarfile.REGTYPE,
        target: str = "",
    ) -> None:
        """Add a regular file, or of another `kind`, as a link to a `target`."""
        self.add(described(path, mode, mtime, kind, target), content)

    def gone(self, path: str) -> None:
        """Say that a file or folder of a layer below is there no more, as the OCI's image-spec has it (layer.md)."""
        folder, _, name = path.rpartition("/")
        self.file(f"{folder}/.wh.{name}".lstrip("/"), b"", Mode(0o644))

    def from_disk(self, root: Path, path: str, mtime: int | None = None) -> None:
        """Add what is at `path` of the tree `root`, a folder included; its own time, or `mtime`."""
        place = root / path
        status = place.lstat()
        if stat.S_ISDIR(status.st_mode):
            self.folders[path] = Mode.of(status)
            return
        member = described(path, Mode.of(status), int(status.st_mtime) if mtime is None else mtime)
        attributes = trees.attributes(str(place)).items()
        member.pax_headers = {f"{XATTR}{name}": value.decode("utf-8", "surrogateescape") for name, value in attributes}
        first = self.linked.setdefault((status.st_dev, status.st_ino), path) if status.st_nlink > 1 else path
        content: bytes | Path = b""
        if stat.S_ISLNK(status.st_mode):
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, os.readlink(place), 0o777
        elif stat.S_ISFIFO(status.st_mode):
            member.type = tarfile.FIFOTYPE
        elif not stat.S_ISREG(status.st_mode):
            return  # sockets and devices belong to a running system
        elif first != path:
            member.type, member.linkname = tarfile.LNKTYPE, first
        else:
            content = place
        self.add(member, content)

    def save(self, piece: Piece, about: Mapping[str, Any] | None = None) -> Piece:
        """Keep it as `piece`, with what is said `about` it."""
        content = self.end()
        index = {
            "size": self.size,
            "frames": self.frames,
            "folders": {path: [mode.mode, mode.uid, mode.gid] for path, mode in self.folders.items()},
            "paths": self.paths,
            "about": dict(about or {}),
        }
        write(piece.beside, json.dumps(index).encode())
        with whole(piece.path) as file:  # last: where it is, its index is
            shutil.copyfileobj(content, file)
        return piece


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to be written that is kept for builds to come, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
        yield part
    Path(part.name).rename(path)


def write(path: Path, content: bytes) -> None:
    """Write such a file."""
    with whole(path) as file:
        file.write(content)


def described(path: str, mode: Mode, mtime: int, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """The member of a tar file that something is."""
    member = tarfile.TarInfo(path)
    member.mode, member.uid, member.gid, member.mtime = mode.mode, mode.uid, mode.gid, mtime
    member.type, member.linkname = kind, target
    return member


def head(member: tarfile.TarInfo) -> bytes:
    """The header of a member; names that are not UTF-8 stay as they are."""
    return member.tobuf(tarfile.PAX_FORMAT if member.pax_headers else tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


@dataclass(frozen=True)
class Piece:
    """A piece that is kept: its frames in the file `path`, and its index beside it."""

    path: Path

    @property
    def beside(self) -> Path:
        """The file of the index."""
        return self.path.with_suffix(".json")

    @property
    def exists(self) -> bool:
        """Whether it is kept already; if so it is noted that somebody asked for it."""
        if self.path.exists():
            os.utime(self.path)
            return True
        return False

    @property
    def key(self) -> str:
        """What it is known by."""
        return self.path.name

    @cached_property
    def index(self) -> Any:
        """Its size in bytes (unpacked), those of its frames, its folders and paths, and what was said about it."""
        return json.loads(self.beside.read_text())

    def frames(self) -> Iterator[bytes]:
        """Its frames, one by one."""
        with self.path.open("rb") as file:
            yield from map(file.read, self.index["frames"])

    @property
    def size(self) -> int:
        """The bytes that it unpacks to."""
        return int(self.index["size"])

    @property
    def paths(self) -> list[str]:
        """The paths of all that is no folder, without a leading slash."""
        return list(self.index["paths"])

    @property
    def folders(self) -> Folders:
        """Its folders."""
        return {path: Mode(*about) for path, about in self.index["folders"].items()}

    def without(self, paths: Collection[str]) -> Piece:
        """The piece of the same package that has not these paths, which is made where it is not kept yet."""
        left_out = set(paths).intersection(self.paths)
        ways = hashlib.sha256("\0".join([self.key, *sorted(left_out)]).encode(errors="surrogateescape"))
        found = Piece(self.path.with_name(ways.hexdigest()))
        if not found.exists:
            tar = Tar(folders=self.folders)
            first: dict[str, str] = {}  # of the other names of a file that is left out: which has the content now
            with opened(self) as tree:
                for each in tree:
                    if each.name in left_out:
                        continue
                    member = copy.copy(each)
                    if each.islnk() and each.linkname in left_out:
                        member.linkname = first.setdefault(each.linkname, each.name)
                        if member.linkname == each.name:
                            member = copy.copy(tree.getmember(each.linkname))
                            member.name = each.name
                    tar.add(member, content_of(tree, member))
            tar.save(found, self.about)
        return found

    @property
    def about(self) -> Any:
        """What was said about it."""
        return self.index["about"]


def sweep(folder: Path, now: float) -> None:
    """Remove the pieces, layers or archives that nobody has asked for in a while."""
    for item in os.scandir(folder) if folder.exists() else ():
        if item.is_file() and not item.name.endswith(".json") and item.stat().st_mtime < now - KEPT:
            Piece(Path(item.path)).beside.unlink(missing_ok=True)
            os.unlink(item)


def opened(piece: Piece) -> tarfile.TarFile:
    """A piece as a tar file."""
    content = io.BytesIO(b"".join([*map(decompress, piece.frames()), bytes(1024)]))
    return tarfile.open(fileobj=content, encoding="utf-8", errors="surrogateescape")


def content_of(tree: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The content of a regular file of a tar file, nothing of anything else."""
    file = tree.extractfile(member) if member.isreg() else None
    return file.read() if file else b""


def frames(pieces: Iterable[Piece], known: Mapping[str, Mode]) -> Iterator[bytes]:
    """The layer of some pieces, frame by frame; folders that are `known` are as they are there."""
    pieces = list(pieces)
    folders = {path: mode for piece in reversed(pieces) for path, mode in piece.folders.items()}  # the first decides
    members = (described(path, known.get(path, folders[path]), EPOCH, tarfile.DIRTYPE) for path in sorted(folders))
    yield compress(b"".join(map(head, members)))
    for piece in pieces:
        yield from piece.frames()
    yield END


def extract(layer: Iterable[bytes], root: Path, *options: str) -> None:
    """Let tar unpack the frames of a layer to the tree `root`, but for its whiteouts."""
    command = ["tar", "--extract", f"--directory={root}", "--numeric-owner", "--preserve-permissions"]
    command += ["--xattrs", "--xattrs-include=*", "--exclude=.wh.*", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as tar:
        assert tar.stdin
        for frame in layer:
            tar.stdin.write(decompress(frame))
    if tar.returncode:
        raise Problem("the packages cannot be unpacked", words="tar")


def unpack(pieces: Iterable[Piece], root: Path) -> None:
    """Unpack pieces to the tree `root`: its own folders stay as they are, and what else is in the way goes."""
    pieces = list(pieces)
    for place in (root / path for piece in pieces for path in sorted(piece.folders)):
        if place.is_symlink() or place.is_file():
            place.unlink()
    for place in (root / path for piece in pieces for path in piece.paths):
        remove(place.with_name(place.name.removeprefix(".wh.")))
    extract(frames(pieces, {}), root, "--no-overwrite-dir")


def remove(path: Path) -> None:
    """Remove whatever is at `path`, if anything is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)  # a program may run, and a link must not be written through
