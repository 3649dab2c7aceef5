"""What a build step installs arrives in the image as it was, but for what was made by chance."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from checkout import ROOT
from pyrlab.steps import chance, debian, trees
from pyrlab.steps.pieces import Piece, Tar, decompress, frames

OLD, SINCE, NEW = 1_500_000_000, 1_600_000_000, 1_700_000_000  # unpacked, the step's start, generated
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep

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

    def image(self) -> Snapshot:
        """What an engine shows of the parent with a layer of all that has changed on top of it."""
        entries, gone = trees.changed(self.root, trees.scan(self.parent))
        image = self.root / "pyrlab/image"
        copy(self.parent, image)
        for path in gone:
            place = image / path[1:]
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        tar = Tar()
        for path in sorted(entries):
            tar.from_disk(self.root, path[1:])
        layer = image.with_name("layer.tar")
        piece = tar.save(Piece(image.with_name("piece")))
        layer.write_bytes(b"".join(map(decompress, frames([piece], {}))))
        attributes = ["--xattrs", "--xattrs-include=*"]
        subprocess.run(["tar", *attributes, "--numeric-owner", "-xpf", layer, "-C", image], check=True)
        return snapshot(image)

    def inside(self, code: str, *arguments: str, before: str = "true") -> subprocess.CompletedProcess[str]:
        """Run `code` where this root is the current folder and /proc is its own, after the shell's `before`."""
        proc = self.root / "proc"
        proc.mkdir(exist_ok=True)
        ways = [["unshare", "--mount"], ["unshare", "--mount", "--user", "--map-root-user"]]
        way = next((way for way in ways if subprocess.run([*way, "true"], capture_output=True).returncode == 0), None)
        if way is None:
            pytest.skip("only who may mount, or make user namespaces, can mount something over an image's files")
        unshare = [*way, "--pid", "--fork", f"--mount-proc={proc}"]
        shell = ["sh", "-c", f'{before} && exec "$@"', "sh"]
        python = [sys.executable, "-c", f"import os, pathlib, sys\nfrom pyrlab.steps import trees\n{code}", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [*unshare, *shell, *python], cwd=self.root, env=environment, capture_output=True, text=True
        )


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
    change(step.root)
    assert step.image() == snapshot(step.root)


def test_what_differs_by_chance_stays_behind(step: Step) -> None:
    """Two builds of one list give the same layers: logs, caches, locks and identities are in none of them."""
    paths = ["etc/machine-id", "etc/passwd-", "tmp/file", "var/log/apt/term.log", "var/cache/debconf/config.dat"]
    paths += ["usr/share/javascript/one.js.map", "opt/venv/share/jupyterhub/static/components/one.js"]
    paths += ["root/.cache/file", "run/lock", "var/lib/apt/lists/lock", "var/lib/dpkg/status-old", "var/lib/dpkg/lock"]
    for path in paths:
        put(step.root / path)
    entries, gone = trees.changed(step.root, trees.scan(step.parent))
    assert all(trees.is_folder(entry) for entry in entries.values())
    assert "/var/log/apt" in entries  # and so is where a daemon would write
    assert not gone


def test_what_is_gone_is_named_once(step: Step) -> None:
    """An image loses what installing removed, a folder at once."""
    shutil.rmtree(step.root / "usr/share/doc")
    replace(step.root / "etc/setting", "hosts")
    (step.root / "etc/link").unlink()
    assert trees.changed(step.root, trees.scan(step.parent))[1] == ["/etc/link", "/usr/share/doc"]


KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n"


def test_what_installing_makes_up_is_left_out(step: Step) -> None:
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
    entries, _ = trees.changed(step.root, trees.scan(step.parent))
    found = chance.made_up(step.root, entries, trees.owners_of(step.root, entries))
    gone = {path for path in entries if path in found or trees.inside(path, found)}
    assert {f"/{path}" for path in left_out} <= gone
    assert not {f"/{path}" for path in kept} & gone
    note = chance.note(found)
    assert note.startswith("left out, ")
    assert "/etc/server, /etc/ssh, /etc/ssl" in note
    ways = "ssh-keygen -A and make-ssl-cert generate-default-snakeoil and dbus-uuidgen --ensure"
    assert note.endswith(f"/var/lib/dbus, /var/lib/server/17; root makes it anew with {ways}")


def test_the_day_of_an_account_is_settled(step: Step) -> None:
    """Whoever builds on another day has the same accounts."""
    shadow = "root:*:20454:0:99999:7:::\nold:!:19000::::::\nsshd:!:20784::::::\nopen:::\n"
    put(step.root / "etc/shadow", shadow, 0o640)
    debian.settle(step.root)
    assert (step.root / "etc/shadow").read_text() == shadow.replace("20784", "20454")
    assert (step.root / "etc/shadow").stat().st_mode & 0o777 == 0o640


def test_certificates_of_java_are_settled() -> None:
    """Two installations of Java have the same certificates, bit for bit, whenever and in whatever order they came."""

    def keystore(time: int, *names: bytes) -> bytes:
        entries = (
            struct.pack(">IH", 2, len(name)) + name + struct.pack(">QH5sI3s", time, 5, b"X.509", 3, b"abc")
            for name in names
        )
        return b"\xfe\xed\xfe\xed" + struct.pack(">II", 2, len(names)) + b"".join(entries) + b"-" * 20

    one, two = keystore(OLD, b"one", b"another"), keystore(NEW, b"another", b"one")
    assert chance.settled(one) == chance.settled(two)
    assert len(chance.settled(one)) == len(one)
    assert chance.settled(b"PKCS, perhaps") == b"PKCS, perhaps"


def test_what_is_mounted_over_is_neither_gone_nor_new(step: Step) -> None:
    """A build works although its engine mounts files and folders over the image's own, whatever happens in these."""
    mounts = "mount --bind /proc/version etc/hosts && mount -t tmpfs none usr/share/doc"
    look = """
root = pathlib.Path(sys.argv[1])
before = trees.scan(root)
(root / "usr/share/doc/three").touch()
print(trees.changed(root, before))
"""
    run = step.inside(look, str(step.root), before=mounts)
    assert run.stdout == "({}, [])\n", run.stderr


def test_settings_of_git(tmp_path: Path) -> None:
    """What git-lfs writes in no order gets one; whatever else a company's image tells git stays as it is."""
    (tmp_path / "etc").mkdir()
    config = tmp_path / "etc/gitconfig"
    lfs = ["\tclean = git-lfs clean -- %f\n", "\tprocess = git-lfs filter-process\n", "\trequired = true\n"]
    around = [
        '[url "https://git.invalid/"]\n\tinsteadOf = git://\n',
        "[safe]\n\tdirectory = *\n\tbareRepository = all\n",
    ]
    for written in (lfs, lfs[::-1]):
        config.write_text("".join([around[0], '[filter "lfs"]\n', *written, around[1]]))
        debian.settle(tmp_path)
        assert config.read_text() == "".join([around[0], '[filter "lfs"]\n', *lfs, around[1]])
