"""Split what a build stage installed into folders, one per layer of the final image.

A stage installs packages the ordinary way (apt, uv, R); this module then finds every file that differs
from the parent image, asks which package owns it, and links it to ``LAYERS/NN``. The final image copies
each folder as one layer, so a layer's bytes depend on its packages alone. The stage itself stays complete:
the next stage of packages can start from it before any image is put together.

    layers.py split PARENT LAYERS COUNT

does so for the Debian packages of this very file system, where PARENT is the mounted parent image. What the stage has
removed of the parent no folder can tell, so LAYERS/gone names it, and

    layers.py remove GONE

removes it on top of the parent, before the folders are copied.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

EPOCH = 1_767_225_600  # 2026-01-01, the one time stamp of everything a build generates
LARGE = 8_000_000  # bytes; a package of this size or more gets a layer of its own while there are any

# What differs between two runs or serves nobody in an image: source maps are for those who debug minified
# scripts, and the components of JupyterHub's own pages for a hub, which runs elsewhere. `/pyrlab` holds the
# layers themselves.
EXCLUDED = re.compile(
    r"/(pyrlab|dev|proc|sys|tmp|run|root|var/(tmp|log|cache|lib/apt/lists))(/|$)"
    r"|/etc/(machine-id|\.pwd\.lock|[a-z]+-)$"
    r"|/var/lib/dpkg/([a-z]+-old|lock.*|triggers/Lock)$"
    r"|/opt/venv/share/jupyterhub/static/components(/|$)"
    r"|.*\.(js|css)\.map$"
)


@dataclass(frozen=True)
class Entry:
    """One file, link or folder of a tree; `path` is absolute within that tree."""

    path: str
    status: os.stat_result
    target: str | None  # of a symbolic link

    def same(self, other: Entry | None) -> bool:
        """Whether both are the same to a reader; folders do not count their time or size."""
        if other is None:
            return False
        a, b = self.status, other.status
        if (a.st_mode, a.st_uid, a.st_gid, self.target) != (b.st_mode, b.st_uid, b.st_gid, other.target):
            return False
        return not stat.S_ISREG(a.st_mode) or (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def scan(root: Path, below: str = "") -> dict[str, Entry]:
    """Every entry of the tree `root` below its folder `below`, but for mounts and what is EXCLUDED."""
    entries: dict[str, Entry] = {}
    device = os.lstat(root).st_dev
    prefix = "" if root == Path("/") else str(root)
    pending = [below]
    while pending:
        folder = pending.pop()
        with os.scandir(prefix + folder or "/") as items:
            for item in items:
                path = f"{folder}/{item.name}"
                status = item.stat(follow_symlinks=False)
                if status.st_dev != device or EXCLUDED.match(path):
                    continue
                entries[path] = Entry(path, status, os.readlink(item.path) if item.is_symlink() else None)
                if item.is_dir(follow_symlinks=False):
                    pending.append(path)
    return entries


def bin_of_name(name: str, count: int) -> int:
    """A bin from 0 to `count` - 1 that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % count


def assign(sizes: Mapping[str, int], count: int, large: int = LARGE) -> dict[str, int]:
    """Give every package (name to bytes) one of `count` bins.

    Packages of at least `large` bytes get a bin each in the first half, the largest first where there
    are too many; the others share the second half by a hash of their name. So a small package moves no
    other one, and a large one that comes or goes at most other large ones; and since an engine unpacks every
    layer above a changed one again, what changes most often stands last.
    """
    half = count // 2
    own = sorted((name for name in sizes if sizes[name] >= large), key=lambda name: (-sizes[name], name))[:half]
    bins = {name: half + bin_of_name(name, count - half) for name in sizes}
    taken: set[int] = set()
    for name in sorted(own):
        slot = bin_of_name(name, half)
        while slot in taken:
            slot = (slot + 1) % half
        taken.add(slot)
        bins[name] = slot
    return bins


def dpkg_owners(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Which Debian package owns each of `paths`: from dpkg's file lists, with links of folders resolved.

    A package's own records in dpkg's database and bytecode of its modules belong to it too.
    """
    info = root / "var/lib/dpkg/info"
    owners: dict[str, str] = {}
    resolved: dict[str, str] = {}
    for listing in sorted(info.glob("*.list")):
        package = listing.stem
        for line in os.fsdecode(listing.read_bytes()).split("\n"):
            folder, _, name = line.rpartition("/")
            if folder not in resolved:
                resolved[folder] = "/" + str(Path(os.path.realpath(f"{root}/{folder}")).relative_to(root))
            owners[f"{resolved[folder].rstrip('/')}/{name}"] = package
    found: dict[str, str] = {}
    for path in paths:
        source = re.sub(r"/__pycache__/([^/]+)\.cpython-\d+(\.opt-\d)?\.pyc$", r"/\1.py", path)
        record = re.fullmatch(r"/var/lib/dpkg/info/(.+)\.[a-z0-9]+", path)
        owner = record.group(1) if record else owners.get(source)
        if owner:
            found[path] = owner
    return found


def changed(root: Path, parent: Path, below: str = "") -> tuple[dict[str, Entry], list[str]]:
    """What the tree `root` has below its folder `below` and `parent` has not, or has otherwise; and what is gone.

    Gone is whatever `parent` has and `root` has not, and a folder that is none any more, or was none; of a folder with
    all that was in it, the folder.
    """
    after, before = scan(root, below), scan(parent, below)
    gone: list[str] = []
    for path in sorted(before, key=lambda path: path.split("/")):
        if gone and path.startswith(f"{gone[-1]}/"):
            continue
        now = after.get(path)
        if is_folder(now) != is_folder(before[path]) if now else not present(root, path):
            gone.append(path)
    return {
        path: entry
        for path, entry in after.items()
        if not entry.same(before.get(path)) or attributes(f"{root}{path}") != attributes(f"{parent}{path}")
    }, gone


def is_folder(entry: Entry) -> bool:
    """Whether it is a folder, and no link to one."""
    return stat.S_ISDIR(entry.status.st_mode)


def present(root: Path, path: str) -> bool:
    """Whether `root` has `path`, or had it before something was mounted there, as a step's /etc/hosts is."""
    nearest = Path(f"{root}{path}")
    if os.path.lexists(nearest):
        return True
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    return nearest.lstat().st_dev != root.lstat().st_dev


def attributes(path: str) -> dict[str, bytes]:
    """The extended attributes of `path`, such as capabilities, but for the host's own labels."""
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names if name != "security.selinux"}


def collect(root: Path, entries: Iterable[Entry], layer_of: Callable[[str], Path], since: float) -> None:
    """Link every entry of `root` to the folder that `layer_of` its path names, below the same parents.

    What is newer than `since` (seconds) was generated, not unpacked, and gets EPOCH as its time; so do
    all folders.
    """
    folders: dict[str, None] = {}
    for entry in sorted(entries, key=lambda entry: entry.path):
        path, layer = entry.path, layer_of(entry.path)
        for parent in reversed(Path(path).parents[:-1]):
            folder(root / str(parent)[1:], layer / str(parent)[1:], folders)
        target = layer / path[1:]
        if stat.S_ISDIR(entry.status.st_mode):
            folder(root / path[1:], target, folders)
            continue
        os.link(root / path[1:], target, follow_symlinks=False)
        if entry.status.st_mtime >= since:
            os.utime(target, (EPOCH, EPOCH), follow_symlinks=False)
    for made in folders:
        os.utime(made, (EPOCH, EPOCH))


def folder(source: Path, target: Path, made: dict[str, None]) -> None:
    """Make `target` with the owner, mode and extended attributes of `source`, once."""
    if str(target) in made:
        return
    made[str(target)] = None
    target.mkdir(parents=True, exist_ok=True)
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(source, target)


def split_debs(root: Path, parent: Path, layers: Path, count: int, since: float) -> None:
    """Split what apt installed in `root` into `count` folders; the last is dpkg's own state."""
    entries, gone = changed(root, parent)
    # Files bring their folders along. Many packages may claim a folder without a file: it is nobody's.
    owners = dpkg_owners(root, (path for path in entries if not stat.S_ISDIR(entries[path].status.st_mode)))
    sizes: dict[str, int] = {}
    for path, package in owners.items():
        sizes[package] = sizes.get(package, 0) + entries[path].status.st_size
    bins = assign(sizes, count - 1)
    folders = [layers / f"{number:02d}" for number in range(count)]
    for layer in folders:  # COPY wants each of them, an empty one included
        layer.mkdir(parents=True)
    (layers / "gone").write_bytes(b"".join(os.fsencode(path) + b"\0" for path in gone))
    collect(root, entries.values(), lambda path: folders[bins[owners[path]] if path in owners else -1], since)


def remove(root: Path, gone: bytes, since: float) -> None:
    """Remove from `root` what is `gone`; the folders that it was in, newer than `since` (seconds) now, get EPOCH."""
    folders = {root / "etc"}  # where BuildKit makes what it mounts there, if the image has none
    for name in filter(None, gone.split(b"\0")):
        path = root / os.fsdecode(name)[1:]
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        folders.add(path.parent)
    for folder in folders:
        if folder.stat().st_mtime >= since:
            os.utime(folder, (EPOCH, EPOCH))


def split_tree(folder: str, parent: Path, layer: Path, owner: tuple[int, int]) -> None:
    """Link what `folder` (an absolute path) has and has not in `parent` to the one folder `layer`.

    Everything gets `owner` (uid, gid), and the group may do what the owner may.
    """
    layer.mkdir(parents=True)
    root = Path("/")
    for path, entry in scan(root, folder).items():
        os.chown(path, *owner, follow_symlinks=False)
        if stat.S_ISDIR(entry.status.st_mode):
            os.chmod(path, 0o2775)
        elif stat.S_ISREG(entry.status.st_mode):
            os.chmod(path, 0o775 if entry.status.st_mode & 0o100 else 0o664)
    entries, _ = changed(root, parent, folder)
    collect(root, entries.values(), lambda path: layer, since=0)


def step_started() -> float:
    """When this build step (its process 1) started, in seconds since 1970, two seconds early at most."""
    lines = Path("/proc/stat").read_text().splitlines()
    boot = next(int(line.split()[1]) for line in lines if line.startswith("btime"))
    ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
    return boot + ticks / os.sysconf("SC_CLK_TCK") - 1


def main() -> None:
    """Dispatch; see the module's docstring."""
    match sys.argv[1:]:
        case "split", parent, layers, count:
            split_debs(Path("/"), Path(parent), Path(layers), int(count), since=step_started())
        case "remove", gone:
            remove(Path("/"), Path(gone).read_bytes(), since=step_started())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
