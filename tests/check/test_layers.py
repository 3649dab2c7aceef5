"""What a build stage installs arrives in the image as it was, and each layer depends on its packages alone."""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

import layers
from checkout import ROOT

COUNT = 6  # layers of the split trees; the last is dpkg's own state
OLD, SINCE, NEW = 1_500_000_000, 1_600_000_000, 1_700_000_000  # unpacked, the step's start, generated
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
LARGE = 1000

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away and set capabilities")

Snapshot = dict[str, tuple[object, ...]]


def put(path: Path, content: str = "x", mode: int = 0o644, time: int = OLD) -> Path:
    """A file with what it needs: folders, content, mode and time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    os.utime(path, (time, time))
    return path


def copy(source: Path, target: Path) -> None:
    """Copy a tree with all that belongs to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--archive", source, target], check=True)


def snapshot(tree: Path) -> Snapshot:
    """All that a reader of the tree can see but for times, by path; folders have no content."""
    seen: Snapshot = {}
    for path in tree.rglob("*"):
        name = f"/{path.relative_to(tree)}"
        if name.startswith("/pyrlab"):
            continue
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        names = os.listxattr(path, follow_symlinks=False)
        attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
        seen[name] = (status.st_mode, status.st_uid, status.st_gid, attributes, content)
    return seen


def lay_over(parent: Snapshot, folders: Iterable[Path]) -> Snapshot:
    """What an engine shows of the layers `folders` over `parent`; no file may be in two of them."""
    union = dict(parent)
    placed: set[str] = set()
    for folder in folders:
        for path, entry in snapshot(folder).items():
            if not stat.S_ISDIR(int(str(entry[0]))):
                assert path not in placed
                placed.add(path)
            union[path] = entry
    return union


@dataclass(frozen=True)
class Step:
    """The file system of a build step, with its parent image and its layers where the Dockerfiles have them."""

    root: Path

    @property
    def parent(self) -> Path:
        """The mounted parent image."""
        return self.root / "pyrlab/parent"

    def install(self, package: str, *paths: str, size: int = 1, listed: Iterable[str] = ()) -> None:
        """Unpack a Debian package as dpkg does, and list `paths` (real ones) and `listed` as its own."""
        for path in paths:
            put(self.root / path[1:], package[0] * size)
        lines = [*sorted({str(folder) for path in paths for folder in Path(path).parents}), *paths, *listed]
        listing = put(self.root / f"var/lib/dpkg/info/{package}.list")
        listing.write_bytes(b"".join(os.fsencode(f"{line}\n") for line in lines))

    def split(self) -> list[Path]:
        """Split what was installed; the layers in order."""
        folder = self.root / "pyrlab/layers"
        layers.split_debs(self.root, self.parent, folder, COUNT, since=SINCE)
        return made_in(folder)

    def remaining(self) -> Snapshot:
        """What is left of the parent image on which the layers are laid."""
        copy(self.parent, self.root / "pyrlab/remaining")
        layers.remove(self.root / "pyrlab/remaining", (self.root / "pyrlab/layers/gone").read_bytes(), SINCE)
        return snapshot(self.root / "pyrlab/remaining")

    def inside(self, code: str, *arguments: str, before: str = "true") -> subprocess.CompletedProcess[str]:
        """Run `code` where this root is the current folder and /proc is its own, after the shell's `before`."""
        proc = self.root / "proc"
        proc.mkdir(exist_ok=True)
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        unshare = ["unshare", *user, "--pid", "--fork", f"--mount-proc={proc}"]
        shell = ["sh", "-c", f'{before} && exec "$@"', "sh"]
        python = [sys.executable, "-c", f"import layers, os, sys, pathlib\n{code}", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "docker/build")}
        return subprocess.run(
            [*unshare, *shell, *python], cwd=self.root, env=environment, capture_output=True, text=True
        )


def made_in(folder: Path) -> list[Path]:
    """The layers in a folder, in order."""
    return sorted(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """A step that starts from a small parent image."""
    parent = tmp_path / "parent"
    put(parent / "usr/bin/tool", "tool", 0o755)
    put(parent / "usr/share/doc/one")
    put(parent / "usr/share/doc/two")
    put(parent / "etc/hosts")
    put(parent / "etc/setting", "on")
    put(parent / "var/lib/dpkg/status", "one")
    put(parent / "var/lib/dpkg/info/tool.list", "/.\n/bin\n/bin/tool\n")
    (parent / "bin").symlink_to("usr/bin")
    (parent / "etc/link").symlink_to("setting")
    step = Step(tmp_path / "root")
    copy(parent, step.root)
    copy(parent, step.parent)
    return step


def where(folders: list[Path], path: str) -> int:
    """The number of the one layer that holds `path`."""
    (number,) = (number for number, folder in enumerate(folders) if os.path.lexists(folder / path[1:]))
    return number


def files(folders: Iterable[Path]) -> list[Path]:
    """All that the layers hold but for folders."""
    return [path for folder in folders for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]


def replace(path: Path, target: str) -> None:
    """Put a link where a file or another link is."""
    path.unlink()
    path.symlink_to(target)


def link_to_file(root: Path) -> None:
    """Put a file where a link is."""
    (root / "etc/link").unlink()
    put(root / "etc/link", "no link")


def moved_folder(root: Path) -> None:
    """Move a folder and leave a link, as merging /bin into /usr/bin did."""
    (root / "usr/share/doc").rename(root / "usr/share/docs")
    (root / "usr/share/doc").symlink_to("docs")


def link_to_folder(root: Path) -> None:
    """Put a folder with a file where a link is."""
    (root / "etc/link").unlink()
    put(root / "etc/link/file")


def file_to_folder(root: Path) -> None:
    """Put a folder with a file where a file is."""
    (root / "etc/setting").unlink()
    put(root / "etc/setting/file")


def folder_to_file(root: Path) -> None:
    """Put a file where a folder is."""
    shutil.rmtree(root / "usr/share/doc")
    put(root / "usr/share/doc")


def odd_names(root: Path) -> None:
    """Names with blanks, line ends, bytes that are not UTF-8, and some that sort between a folder and its files."""
    for name in ("a", "a b", "a-b", "a\nb", os.fsdecode(b"a\xff"), "a.b/c", "a+/c", "-", "\\", "*"):
        put(root / "opt" / "odd" / name)
        put(root / "opt" / f"{name}!" / "file")


CHANGES: list[tuple[str, Callable[[Path], object]]] = [
    ("new file", lambda root: put(root / "opt/new/file")),
    ("new file of the top folder", lambda root: put(root / "file")),
    ("content of another size", lambda root: put(root / "etc/setting", "off")),
    ("content of the same size", lambda root: put(root / "etc/setting", "no", time=NEW)),
    ("mode", lambda root: (root / "etc/setting").chmod(0o600)),
    ("mode of a folder", lambda root: (root / "usr/share/doc").chmod(0o2770)),
    ("setuid", lambda root: put(root / "usr/bin/su", mode=0o4755)),
    ("user attribute of a new file", lambda root: os.setxattr(put(root / "opt/new"), "user.note", b"\xff")),
    ("user attribute of a parent's file", lambda root: os.setxattr(root / "etc/setting", "user.note", b"a")),
    ("user attribute of a folder", lambda root: os.setxattr(root / "usr/share/doc", "user.note", b"a")),
    ("file to link", lambda root: replace(root / "etc/setting", "hosts")),
    ("link to another link", lambda root: replace(root / "etc/link", "hosts")),
    ("link to file", link_to_file),
    ("link to folder", link_to_folder),
    ("folder to link", moved_folder),
    ("link to nowhere", lambda root: (root / "etc/nowhere").symlink_to("/not/there")),
    ("new empty folder", lambda root: (root / "opt/a/b").mkdir(parents=True)),
    ("file gone", lambda root: (root / "etc/setting").unlink()),
    ("link gone", lambda root: (root / "etc/link").unlink()),
    ("folder gone", lambda root: shutil.rmtree(root / "usr/share/doc")),
    ("file to folder", file_to_folder),
    ("folder to file", folder_to_file),
    ("named pipe", lambda root: os.mkfifo(root / "etc/pipe")),
    ("odd names", odd_names),
    ("nothing", lambda root: None),
]
ROOTS_CHANGES: list[tuple[str, Callable[[Path], object]]] = [
    ("owner", lambda root: os.chown(root / "etc/setting", 1000, 100)),
    ("owner of a link", lambda root: os.chown(root / "etc/link", 1000, 100, follow_symlinks=False)),
    ("owner of a folder", lambda root: os.chown(root / "usr/share/doc", 1000, 100)),
    ("capability of a new file", lambda root: os.setxattr(put(root / "opt/x"), "security.capability", CAPABILITY)),
    ("capability", lambda root: os.setxattr(root / "usr/bin/tool", "security.capability", CAPABILITY)),
]


@pytest.mark.parametrize(
    "change",
    [
        *(pytest.param(change, id=name) for name, change in CHANGES),
        *(pytest.param(change, id=name, marks=needs_root) for name, change in ROOTS_CHANGES),
    ],
)
def test_the_image_is_what_was_installed(step: Step, change: Callable[[Path], object]) -> None:
    """A user finds every file, link and folder in the image as the installation left it."""
    step.install("package", "/usr/share/package/file")
    change(step.root)
    installed = snapshot(step.root)
    folders = step.split()
    assert lay_over(step.remaining(), folders) == installed


@pytest.mark.parametrize("kind", ["small", "large"])
def test_files_lie_in_the_layer_of_their_package(step: Step, kind: str) -> None:
    """A changed package changes one layer: all that is its own lies there, wherever its list says it is."""
    size = layers.LARGE if kind == "large" else 1
    own = ["/usr/share/own/file", "/var/lib/dpkg/info/own:amd64.postinst"]
    odd = [os.fsdecode(name) for name in (b"/opt/\xff", "/opt/\u2028 #".encode())]
    step.install("own:amd64", own[0], *odd, size=size, listed=["/bin/new", "/usr/share/own/module.py"])
    put(step.root / "usr/bin/new")
    put(step.root / own[1][1:])
    modules = [f"/usr/share/own/{name}" for name in ("module.py", "__pycache__/module.cpython-313.pyc")]
    modules.append("/usr/share/own/__pycache__/module.cpython-313.opt-1.pyc")
    for module in modules:
        put(step.root / module[1:], time=NEW)
    folders = step.split()
    paths = [*own, *odd, "/usr/bin/new", *modules, "/var/lib/dpkg/info/own:amd64.list"]
    numbers = {path: where(folders, path) for path in paths}
    assert len(set(numbers.values())) == 1, numbers
    assert COUNT - 1 not in numbers.values()


def test_files_of_no_package_lie_in_the_last_layer(step: Step) -> None:
    """What no package claims, dpkg's own state included, changes the last layer only."""
    step.install("package", "/usr/share/package/file")
    paths = ["/etc/generated", "/var/lib/dpkg/status", "/usr/share/package/__pycache__/stray.cpython-313.pyc"]
    for path in paths:
        put(step.root / path[1:], "changed")
    folders = step.split()
    assert {where(folders, path) for path in paths} == {COUNT - 1}


def test_a_file_that_two_packages_claim_lies_in_one_layer(step: Step) -> None:
    """A file that one package took over from another is in the image once."""
    for package in ("aa", "bb"):
        step.install(package, f"/usr/share/{package}/file", "/usr/share/both")
    folders = step.split()
    assert where(folders, "/usr/share/both") in {where(folders, f"/usr/share/{name}/file") for name in ("aa", "bb")}


def test_hard_links_of_a_package_stay_so(step: Step) -> None:
    """A package whose names share one file does not take its space twice."""
    step.install("package", "/usr/bin/a", listed=["/usr/lib/b"])
    (step.root / "usr/lib").mkdir()
    (step.root / "usr/lib/b").hardlink_to(step.root / "usr/bin/a")
    folders = step.split()
    layer = folders[where(folders, "/usr/bin/a")]
    assert (layer / "usr/bin/a").samefile(layer / "usr/lib/b")


def test_another_package_changes_its_own_layer_and_the_last(step: Step, tmp_path: Path) -> None:
    """Adding a package sends its layer over the network, not those of the packages that were there."""

    def split(name: str, packages: list[str]) -> list[Snapshot]:
        again = Step(tmp_path / name)
        copy(step.root, again.root)
        for package in packages:
            again.install(package, f"/usr/share/{package}/file", listed=["/usr/share/empty"])
        (again.root / "usr/share/empty").mkdir()
        return [snapshot(folder) for folder in again.split()]

    before, after = split("before", ["aa", "bb", "cc"]), split("after", ["aa", "bb", "cc", "dd"])
    changed = {number for number in range(COUNT) if before[number] != after[number]}
    own = next(number for number in range(COUNT) if "/usr/share/dd/file" in after[number])
    assert changed == {own, COUNT - 1}


def test_a_group_without_a_package_gives_an_empty_layer(step: Step) -> None:
    """The images build, with as many layers as they name, where a list is empty."""
    folders = step.split()
    assert [folder.name for folder in folders] == [f"{number:02d}" for number in range(COUNT)]
    assert not any(path for folder in folders for path in folder.iterdir())


def test_times_do_not_depend_on_when_it_was_built(step: Step) -> None:
    """Two builds of one list give the same layers: unpacked files keep their time, all else has a fixed one."""
    step.install("package", "/opt/package/unpacked")
    put(step.root / "opt/package/generated", time=NEW)
    (step.root / "opt/package/link").symlink_to("unpacked")
    (step.root / "opt/empty").mkdir()
    times = {
        path.relative_to(folder).as_posix(): path.lstat().st_mtime
        for folder in step.split()
        for path in folder.rglob("*")
    }
    assert times.pop("opt/package/unpacked") == OLD
    assert {"opt", "opt/empty", "opt/package", "opt/package/generated", "opt/package/link"} <= times.keys()
    assert set(times.values()) == {layers.EPOCH}


@needs_root
def test_every_layer_gives_a_folder_the_same_owner_and_mode(step: Step) -> None:
    """A layer does not undo the rights that a folder has: all name it, and the last one laid on decides."""
    packages = ["aa", "bb", "cc", "dd"]
    for package in packages:
        step.install(package, f"/opt/shared/deep/{package}")
    for folder, mode in (("opt/shared", 0o2775), ("opt/shared/deep", 0o1770)):
        os.chown(step.root / folder, 1000, 100)
        (step.root / folder).chmod(mode)
        os.setxattr(step.root / folder, "user.note", b"a")
    installed = snapshot(step.root)
    made = [snapshot(folder) for folder in step.split()]
    assert sum("/opt/shared/deep" in layer for layer in made) > 1
    for layer in made:
        assert all(layer[path] == installed[path] for path in ("/opt/shared", "/opt/shared/deep") if path in layer)


def test_what_differs_by_chance_stays_behind(step: Step) -> None:
    """Two builds of one list give the same layers: logs, caches, locks and identities are in none of them."""
    paths = ["etc/machine-id", "etc/passwd-", "tmp/file", "var/log/apt/term.log", "var/cache/debconf/config.dat"]
    paths += ["usr/share/javascript/one.js.map", "opt/venv/share/jupyterhub/static/components/one.js"]
    paths += ["root/.cache/file", "run/lock", "var/lib/apt/lists/lock", "var/lib/dpkg/status-old", "var/lib/dpkg/lock"]
    for path in paths:
        put(step.root / path)
    assert not files(step.split())
    assert all((step.root / path).exists() for path in paths)


def test_what_is_gone_is_named_once(step: Step) -> None:
    """An image loses what installing removed, a folder at once, and the folders that it was in get the one time."""
    shutil.rmtree(step.root / "usr/share/doc")
    replace(step.root / "etc/setting", "hosts")
    (step.root / "etc/link").unlink()
    step.split()
    gone = step.root / "pyrlab/layers/gone"
    assert gone.read_bytes() == b"/etc/link\0/usr/share/doc\0"
    layers.remove(step.parent, gone.read_bytes(), SINCE)
    assert not os.path.lexists(step.parent / "etc/link")
    assert {(step.parent / path).stat().st_mtime for path in ("etc", "usr/share")} == {layers.EPOCH}


KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n"


def test_what_installing_makes_up_is_left_out(step: Step, capsys: pytest.CaptureFixture[str]) -> None:
    """No key, identifier or database that installing made is in an image; what a package brings is, keys included."""
    step.install("server", "/usr/sbin/server", "/usr/share/server/example.key", listed=["/var/lib/server"])
    kept = ["etc/shadow", "etc/server.conf", "var/lib/server/flag", "usr/share/server/example.key", "etc/empty"]
    left_out = ["etc/ssh/ssh_host_x_key", "etc/ssh/ssh_host_x_key.pub", "etc/server/open.key", "var/lib/server/17"]
    left_out += ["var/lib/dbus/machine-id", "etc/ssl/certs/ssl-cert-snakeoil.pem", "etc/ssl/certs/c79d0093.0"]
    put(step.root / "etc/shadow", "root:*:20454:0:99999:7:::\n", 0o640)
    put(step.root / "etc/server.conf", "a setting of the server")
    put(step.root / "etc/empty", "", 0o600)
    put(step.root / "var/lib/server/flag", "made by the newest version")
    put(step.root / "usr/share/server/example.key", KEY, 0o600)
    put(step.root / "etc/ssh/ssh_host_x_key", "binary, perhaps, and secret", 0o600)
    put(step.root / "etc/ssh/ssh_host_x_key.pub", "for everybody")
    put(step.root / "etc/server/open.key", f"# of this host\n{KEY}")
    put(step.root / "var/lib/server/17/data/rows", "all that nobody may read", 0o600)
    put(step.root / "var/lib/server/17/data/version", "17", 0o600)
    (step.root / "var/lib/server/17/data/empty").mkdir()
    (step.root / "var/lib/server/17/data").chmod(0o700)
    put(step.root / "var/lib/dbus/machine-id", "3f308a3ba709")
    put(step.root / "etc/ssl/certs/ssl-cert-snakeoil.pem", "a certificate")
    (step.root / "etc/ssl/certs/c79d0093.0").symlink_to("ssl-cert-snakeoil.pem")
    folders = step.split()
    assert [path for path in left_out if any(os.path.lexists(folder / path) for folder in folders)] == []
    assert all(any(os.path.lexists(folder / path) for folder in folders) for path in kept)
    note = capsys.readouterr().out
    assert note.startswith("pyrlab note: left out, ")
    assert "/etc/server, /etc/ssh, /etc/ssl" in note
    ways = "ssh-keygen -A and make-ssl-cert generate-default-snakeoil and dbus-uuidgen --ensure"
    assert note.endswith(f"/var/lib/dbus, /var/lib/server/17; root makes it anew with {ways}\n")


def test_certificates_of_java_are_settled() -> None:
    """Two installations of Java have the same certificates, bit for bit, whenever and in whatever order they came."""

    def keystore(time: int, *names: bytes) -> bytes:
        entries = (
            struct.pack(">IH", 2, len(name)) + name + struct.pack(">QH5sI3s", time, 5, b"X.509", 3, b"abc")
            for name in names
        )
        return b"\xfe\xed\xfe\xed" + struct.pack(">II", 2, len(names)) + b"".join(entries) + b"-" * 20

    one, two = keystore(OLD, b"one", b"another"), keystore(NEW, b"another", b"one")
    assert layers.settled(one) == layers.settled(two)
    assert len(layers.settled(one)) == len(one)
    assert layers.settled(b"PKCS, perhaps") == b"PKCS, perhaps"


def test_what_is_mounted_over_is_neither_gone_nor_new(step: Step) -> None:
    """A build works although its engine mounts files and folders over the image's own."""
    split = f"layers.split_debs(*map(pathlib.Path, sys.argv[1:]), {COUNT}, 0)"
    mounts = "mount --bind /proc/version etc/hosts && mount -t tmpfs none usr/share/doc && touch usr/share/doc/three"
    folder = step.root / "pyrlab/layers"
    run = step.inside(split, str(step.root), str(step.parent), str(folder), before=mounts)
    assert run.returncode == 0, run.stderr
    assert not files(made_in(folder))
    assert (folder / "gone").read_bytes() == b""


def test_the_command_splits_its_own_file_system(step: Step) -> None:
    """The Dockerfiles' command works: / is what it splits, and the start of its step tells old from new."""
    replace(step.root / "bin", "/usr/bin")
    replace(step.parent / "bin", "/usr/bin")
    step.install("package", "/usr/share/package/file", listed=["/bin/new"])
    put(step.root / "usr/bin/new")
    command = "os.chroot('.'); pathlib.Path('/usr/bin/generated').write_text(''); layers.main()"
    run = step.inside(command, "split", "/pyrlab/parent", "/pyrlab/layers", str(COUNT))
    assert run.returncode == 0, run.stderr
    folders = made_in(step.root / "pyrlab/layers")
    new = folders[where(folders, "/usr/bin/new")]
    assert (new / "usr/share/package/file").exists()
    assert (new / "usr/bin/new").stat().st_mtime == OLD
    assert (folders[-1] / "usr/bin/generated").stat().st_mtime == layers.EPOCH


@needs_root
def test_a_wheel_may_be_changed_by_the_user_of_the_lab(step: Step) -> None:
    """`pip install` in a notebook may replace what the image has: jovyan and his group own the environment."""
    old = put(step.parent / "opt/venv/lib/old.py", mode=0o664)
    for path in (old, old.parent, old.parent.parent):
        os.chown(path, 1000, 100)
    old.parent.parent.chmod(0o2775)
    copy(step.parent / "opt/venv", step.root / "opt/venv")
    put(step.root / "opt/venv/lib/new.py", mode=0o600, time=NEW)
    put(step.root / "opt/venv/bin/tool", mode=0o700)
    put(step.root / "opt/elsewhere")
    (step.root / "opt/venv/lib64").symlink_to("lib")
    split = "layers.split_tree('/opt/venv', *map(pathlib.Path, sys.argv[1:]), (1000, 100))"
    run = step.inside(f"os.chroot('.'); {split}", "/pyrlab/parent", "/pyrlab/new")
    assert run.returncode == 0, run.stderr
    layer = step.root / "pyrlab/new"
    modes = {path.relative_to(layer).as_posix(): path.lstat().st_mode for path in (layer / "opt").rglob("*")}
    link = modes.pop("opt/venv/lib64")
    assert stat.S_ISLNK(link)
    assert {path: stat.S_IMODE(mode) for path, mode in modes.items()} == {
        "opt/venv": 0o2775,
        "opt/venv/bin": 0o2775,
        "opt/venv/bin/tool": 0o775,
        "opt/venv/lib": 0o2775,
        "opt/venv/lib/new.py": 0o664,
    }
    statuses = [path.lstat() for path in (layer / "opt/venv").rglob("*")]
    assert {(status.st_uid, status.st_gid, status.st_mtime) for status in statuses} == {(1000, 100, layers.EPOCH)}


@pytest.mark.parametrize("seed", range(20))
def test_a_package_that_comes_goes_or_grows_moves_no_other(seed: int) -> None:
    """Another package in a list leaves the layers of the others alone; a large one may move large ones only."""
    chance = random.Random(seed)
    count = chance.choice([4, 11, 28, 36])
    packages = {f"p{number}": chance.randrange(10, LARGE) for number in range(150)}
    packages |= {f"l{number}": chance.randrange(LARGE, 100 * LARGE) for number in range(count // 2)}
    full = layers.assign(packages, count, LARGE)
    assert set(full.values()) <= set(range(count))
    for name, size in packages.items():
        without = layers.assign({other: packages[other] for other in packages if other != name}, count, LARGE)
        grown = layers.assign({**packages, name: size * 2 if size >= LARGE else 11}, count, LARGE)
        moved = {other for other in without if without[other] != full[other]}
        assert grown == full
        assert all(size >= LARGE and packages[other] >= LARGE for other in moved)


def test_the_layer_of_a_package_is_the_same_on_every_machine() -> None:
    """Users who share a list share layers: neither the order of files nor the day decides."""
    sizes = {"numpy": LARGE, "pandas": LARGE, "six": 1, "idna": 1}
    backwards = dict(reversed(sizes.items()))
    assert layers.assign(sizes, 8, LARGE) == layers.assign(backwards, 8, LARGE)
    assert layers.bin_of_name("numpy", 1000) == 202


@pytest.mark.parametrize("number", [0, 1, 3, 4, 9])
def test_large_packages_have_a_layer_of_their_own(number: int) -> None:
    """An update of a large package sends that one only; where there are too many, the largest come first."""
    sizes = {f"large{index}": LARGE + index for index in range(number)} | {f"small{index}": 1 for index in range(50)}
    bins = layers.assign(sizes, 8, LARGE)
    alone = [name for name in sizes if list(bins.values()).count(bins[name]) == 1]
    assert sorted(alone) == [f"large{index}" for index in range(max(0, number - 4), number)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_layers_are_enough(count: int) -> None:
    """An image with one or two layers holds every package too."""
    bins = layers.assign({"large": LARGE, "larger": LARGE + 1, "small": 1}, count, LARGE)
    assert set(bins) == {"large", "larger", "small"}
    assert set(bins.values()) <= set(range(count))
