"""What a tree of files has, and in what it differs from what it had, as a build step's root once apt has installed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# What differs between two runs or serves nobody in an image: source maps are for those who debug minified
# scripts, and the components of JupyterHub's own pages for a hub, which runs elsewhere. `/pyrlab` holds what
# a build step is given.
EXCLUDED = re.compile(
    r"/(pyrlab|dev|proc|sys|tmp|run|root|var/(tmp|lib/apt/lists))(/|$)"
    r"|/etc/(machine-id|\.pwd\.lock|[a-z]+-)$"
    r"|/var/lib/dpkg/([a-z]+-old|lock.*|triggers/Lock)$"
    r"|/opt/venv/share/jupyterhub/static/components(/|$)"
    r"|.*\.(js|css)\.map$"
)
EMPTIED = re.compile("/var/(log|cache)/")  # but for the folders below, without which a daemon writes no log
RECORD = re.compile(r"/var/lib/dpkg/info/(.+)\.[a-z0-9]+")  # of a package in dpkg's database
BYTECODE = re.compile(r"/__pycache__/([^/]+)\.cpython-\d+(\.opt-\d)?\.pyc$")


@dataclass(frozen=True)
class Entry:
    """One file, link or folder of a tree."""

    status: os.stat_result
    target: str | None  # of a symbolic link
    attributes: dict[str, bytes]  # extended ones, such as capabilities

    @property
    def facts(self) -> tuple[object, ...]:
        """What makes it another one to a reader; time and size do so of files only."""
        about = self.status
        of_files = (about.st_size, about.st_mtime_ns) if stat.S_ISREG(about.st_mode) else ()
        return about.st_mode, about.st_uid, about.st_gid, self.target, self.attributes, *of_files


def walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str], os.stat_result]]:
    """Every entry of the tree `root`, with its path and what it is, but for mounts and what is left out."""
    device = os.lstat(root).st_dev
    prefix = str(root).rstrip("/")
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(prefix + folder or "/") as items:
            for item in items:
                path = f"{folder}/{item.name}"
                status = item.stat(follow_symlinks=False)
                entered = item.is_dir(follow_symlinks=False)
                if status.st_dev != device or is_left_out(path, folder=entered):
                    continue
                yield path, item, status
                if entered:
                    pending.append(path)


def is_left_out(path: str, *, folder: bool) -> bool:
    """Whether an image has no use for a path."""
    return bool(EXCLUDED.match(path) or (not folder and EMPTIED.match(path)))


def scan(root: Path) -> dict[str, Entry]:
    """Every entry of the tree `root`, by its path."""
    entries: dict[str, Entry] = {}
    for path, item, status in walk(root):
        target = os.readlink(item.path) if item.is_symlink() else None
        entries[path] = Entry(status, target, attributes(item.path))
    return entries


def changed(root: Path, before: Mapping[str, Entry]) -> tuple[dict[str, Entry], list[str]]:
    """What the tree `root` has that was not there `before`, or otherwise; and what is gone.

    Gone is what was there and is not, and a folder that is none any more, or was none; of a folder with all that was in
    it, the folder.
    """
    after = scan(root)
    gone: list[str] = []
    for path in sorted(before, key=lambda path: path.split("/")):
        if gone and path.startswith(f"{gone[-1]}/"):
            continue
        now = after.get(path)
        if now is None or is_folder(now) != is_folder(before[path]):
            gone.append(path)
    new = {path: entry for path, entry in after.items() if path not in before or entry.facts != before[path].facts}
    return new, gone


def is_folder(entry: Entry) -> bool:
    """Whether it is a folder, and no link to one."""
    return stat.S_ISDIR(entry.status.st_mode)


def attributes(path: str) -> dict[str, bytes]:
    """The extended attributes of `path`, but for the host's own labels."""
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names if name != "security.selinux"}


def owners_of(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Which Debian package owns each of `paths`: from dpkg's file lists, with links of folders resolved.

    A package's own records in dpkg's database and bytecode of its modules belong to it too.
    """
    owners: dict[str, str] = {}
    resolved: dict[str, str] = {}
    for listing in sorted((root / "var/lib/dpkg/info").glob("*.list")):
        package = listing.stem
        for line in os.fsdecode(listing.read_bytes()).split("\n"):
            folder, _, name = line.rpartition("/")
            if folder not in resolved:
                resolved[folder] = f"/{os.path.relpath(os.path.realpath(f'{root}/{folder}'), root)}"
            owners[f"{resolved[folder]}/{name}"] = package
    found: dict[str, str] = {}
    for path in paths:
        record = RECORD.fullmatch(path)
        if owner := record[1] if record else owners.get(source_of(path)):
            found[path] = owner
    return found


def source_of(path: str) -> str:
    """The module that bytecode was made from; other files stand for themselves."""
    return BYTECODE.sub(r"/\1.py", path) if path.endswith(".pyc") else path


def folders_of(paths: Iterable[str]) -> set[str]:
    """All folders that `paths` are in."""
    return {str(folder) for path in paths for folder in Path(path).parents}


def inside(path: str, folders: Collection[str]) -> bool:
    """Whether `path` is in one of `folders`."""
    return any(path[: slash.start()] in folders for slash in re.finditer("/", path))


def step_started() -> float:
    """When this build step (its process 1) started, in seconds since 1970, two seconds early at most."""
    lines = Path("/proc/stat").read_text().splitlines()
    boot = next(int(line.split()[1]) for line in lines if line.startswith("btime"))
    ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
    return boot + ticks / os.sysconf("SC_CLK_TCK") - 1
