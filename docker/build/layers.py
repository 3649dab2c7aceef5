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
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

EPOCH = 1_767_225_600  # 2026-01-01, the one time stamp of everything a build generates
PRIVATE_KEY = re.compile(rb"^-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----", re.MULTILINE)
# What has no package, is closed to others, and yet is the same wherever the same is installed.
ACCOUNTS = {"/etc/shadow", "/etc/gshadow"}
# What is open to everybody and made by chance, too: the certificate of a key, and an identifier.
OPEN = {"/etc/ssl/certs/ssl-cert-snakeoil.pem", "/var/lib/dbus/machine-id"}
KEYSTORE = bytes.fromhex("feedfeed00000002")  # begins one of Java's
CERTIFICATE = 2  # the kind of entry of Java's keystores that is no key
JAVA = "etc/ssl/certs/java/cacerts"  # the keystore that a Java runtime is installed with
REMAKE = {  # what makes anew what begins so
    "/etc/ssh/ssh_host_": "ssh-keygen -A",
    "/etc/ssl/": "make-ssl-cert generate-default-snakeoil",
    "/var/lib/dbus/": "dbus-uuidgen --ensure",
}
MANY = 6  # paths that a sentence can hold
SHORT = 16  # bytes; less is no secret
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


def made_up(root: Path, entries: Mapping[str, Entry], owners: Collection[str]) -> set[str]:
    """Which of `entries` installing made up, as keys and databases, so that no two installations may share them.

    They have no package among `owners`, and are closed to others or hold a private key. With them go the public key
    beside, links to them, closed folders that they are in, and such as have nothing else in them.
    """
    nobodys = {path: entry for path, entry in entries.items() if path not in owners}
    files = [path for path in nobodys if not is_folder(nobodys[path])]
    found = {path for path in files if path in OPEN or is_secret(root, nobodys[path])}
    for path in files:
        target = os.path.normpath(Path(path).parent / (nobodys[path].target or ""))
        if is_public(path, found) or target in found:
            found.add(path)
    if not found:
        return found
    found |= {path for path in folders_of(found) & nobodys.keys() if not nobodys[path].status.st_mode & stat.S_IRWXO}
    others = (path for path in entries if not is_folder(entries[path]) and path not in found)
    return found | folders_of(found) & nobodys.keys() - folders_of(path for path in others if not inside(path, found))


def is_public(path: str, keys: Collection[str]) -> bool:
    """Whether `path` is the public key of one of the private `keys`."""
    return path.endswith(".pub") and path.removesuffix(".pub") in keys


def folders_of(paths: Iterable[str]) -> set[str]:
    """All folders that `paths` are in."""
    return {str(folder) for path in paths for folder in Path(path).parents}


def is_secret(root: Path, entry: Entry) -> bool:
    """Whether a file that no package owns is for its owner's eyes only, or has a private key in it."""
    status = entry.status
    if not stat.S_ISREG(status.st_mode) or status.st_size < SHORT or entry.path in ACCOUNTS:
        return False
    if not status.st_mode & stat.S_IROTH:
        return True
    return status.st_size < LARGE and PRIVATE_KEY.search(Path(f"{root}{entry.path}").read_bytes()) is not None


def inside(path: str, folders: Collection[str]) -> bool:
    """Whether `path` is in one of `folders`."""
    return any(str(parent) in folders for parent in Path(path).parents)


def note(left_out: Collection[str]) -> str:
    """What to tell the user of what is `left_out`."""
    top = sorted(path for path in left_out if not inside(path, left_out) and not is_public(path, left_out))
    shown = ", ".join(top[:MANY]) + (f" and {len(top) - MANY} more" if len(top) > MANY else "")
    ways = [command for start, command in REMAKE.items() if any(path.startswith(start) for path in left_out)]
    remake = f"; root makes it anew with {' and '.join(ways)}" if ways else ""
    return f"left out, since all who have the images would share what installing made up: {shown}{remake}"


def settled(keystore: bytes) -> bytes:
    """A keystore of certificates as Java writes it, but all of one time and in the order of their names."""
    if not keystore.startswith(KEYSTORE):
        return keystore
    (count,) = struct.unpack_from(">8xI", keystore)
    entries: list[bytes] = []
    at = 12
    for _ in range(count):
        tag, name = struct.unpack_from(">IH", keystore, at)
        time = at + 6 + name
        (kind,) = struct.unpack_from(">8xH", keystore, time)
        (size,) = struct.unpack_from(">I", keystore, time + 10 + kind)
        end = time + 14 + kind + size
        if tag != CERTIFICATE:
            return keystore
        entries.append(keystore[at:time] + struct.pack(">Q", EPOCH * 1000) + keystore[time + 8 : end])
        at = end
    content = keystore[:12] + b"".join(sorted(entries))
    checksum = hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + content)
    return content + checksum.digest()


def split_debs(root: Path, parent: Path, layers: Path, count: int, since: float) -> None:
    """Split what apt installed in `root` into `count` folders; the last is dpkg's own state.

    What installing made by chance is in none of them.
    """
    if (keystore := root / JAVA).is_file() and (content := settled(before := keystore.read_bytes())) != before:
        keystore.write_bytes(content)
    entries, gone = changed(root, parent)
    owners = dpkg_owners(root, entries)
    if left_out := made_up(root, entries, owners):
        print(f"pyrlab note: {note(left_out)}")
        entries = {path: entries[path] for path in entries if path not in left_out and not inside(path, left_out)}
    # Files bring their folders along. Many packages may claim a folder without a file: it is nobody's.
    owners = {path: package for path, package in owners.items() if path in entries and not is_folder(entries[path])}
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
