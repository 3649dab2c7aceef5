"""A lock is what make wrote or is refused, stays what it was until its list changes, and tells what changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import CHECKOUT, ROOT, git
from pyrlab.host import contents, diff, locks
from pyrlab.host.project import Project
from pyrlab.model import checkout
from pyrlab.model.locked import Lock, Locked, Made, pinned
from pyrlab.model.problem import Problem
from pyrlab.steps import debs, wheels

# What uv 0.13.8 writes, shortened: a package in two versions, one from an address, one that another needs.
LOCKED = """\
contourpy==1.3.3 ; python_full_version < '3.14' \\
    --hash=sha256:11 \\
    --hash=sha256:12
    # via bokeh
contourpy==1.4.0 ; python_full_version >= '3.14' \\
    --hash=sha256:13
    # via bokeh
own @ https://packages.invalid/own-1.0-py3-none-any.whl \\
    --hash=sha256:2
    # via -r requirements.txt
Send2Trash==1.8.3 \\
    --hash=sha256:3
    # via
    #   -r jupyter.txt
    #   notebook
"""
BEFORE = f"--extra-index-url https://packages.invalid/simple\n# in pylab\n{LOCKED}"  # as locks were once
PACKAGES = {  # as locks are now
    "contourpy ; python_full_version < '3.14'": Locked("1.3.3", hashes=("sha256:11", "sha256:12")),
    "contourpy ; python_full_version >= '3.14'": Locked("1.4.0", hashes=("sha256:13",)),
    "own": Locked(url="https://packages.invalid/own-1.0-py3-none-any.whl", hashes=("sha256:2",)),
    "send2trash": Locked("1.8.3", hashes=("sha256:3",)),
}


@pytest.fixture
def lock(tmp_path: Path) -> locks.Lock:
    """A lock of base_debs.txt, written into the test's folder."""
    lock = made("base_debs", "curl 8.14.1-2\ngit 1:2.47.3-0+deb13u1\n", python="python:3.14@sha256:12")
    lock.write(tmp_path)
    return lock


def made(name: str, content: str, inputs: str = "0123456789abcdef", python: str = "", lists: str = "") -> locks.Lock:
    """A lock of the shipped lists."""
    return locks.Lock(CHECKOUT.table.locks[name], Made(inputs, lists, python), content)


def read(folder: Path, name: str) -> locks.Lock:
    """The lock of that name in a folder."""
    return locks.Lock.read(CHECKOUT.table, folder, name)


def test_read_as_written(lock: locks.Lock, tmp_path: Path) -> None:
    """What was written is read again, and says on top what it is and that the list is what to change."""
    assert read(tmp_path, "base_debs") == lock
    first = (tmp_path / "base_debs.lock").read_text().splitlines()[0]
    assert first == "# What base_debs.txt resolves to, written by make lock; change the list, not this file."


@pytest.mark.parametrize(
    ("python", "found"),
    [
        ("registry.invalid:5000/python:3@sha256:12", {("image", "registry.invalid:5000/python:3"): "12"}),
        ("Debian 49798b1e671f9f9b", {("image", "Debian"): "49798b1e671f"}),
        ("python:3.14", {("image", "python:3.14"): ""}),  # with BASE=registry, where the engine alone gets online
    ],
)
def test_the_python_image(python: str, found: dict[tuple[str, str], str]) -> None:
    """A lock tells which Python image it rests on, be its digest known or not."""
    assert made("base_debs", "", python=python).versions() == found


def test_none_yet(tmp_path: Path) -> None:
    """Where there is no lock, nothing is locked."""
    assert read(tmp_path, "base_debs").versions() == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("8.14.1-2", "8.14.1-3"),
        ("curl 8.14.1-2\n", ""),
        ("git", "<<<<<<< HEAD\ngit"),
        ("made = ", "mode = "),
        ("made = {", "made = "),
        ("# What", "What"),
        ("deb13u1\n", "deb13u1\nless 668-1\n"),
    ],
    ids=["version", "line-gone", "conflict", "header", "header-broken", "comment", "line-more"],
)
def test_changed_by_hand(lock: locks.Lock, tmp_path: Path, old: str, new: str) -> None:
    """A lock that is not as it was written is refused with a sentence that says how to have it back."""
    path = tmp_path / "base_debs.lock"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(Problem) as refused:
        read(tmp_path, "base_debs")
    way_out = (
        "take the committed one back with git checkout HEAD -- base_debs.lock, "
        "and make lock adds what the lists have besides"
    )
    assert str(refused.value) == f"base_debs.lock is not as make lock wrote it; {way_out}"


@pytest.mark.parametrize(
    ("content", "same"),
    [
        ("pandas\nnumpy\n", True),
        ("# all\nnumpy # why\n\n pandas", True),
        ("numpy>=2\npandas\n", False),
        ("pandas", False),
    ],
    ids=["order", "comments", "version", "gone"],
)
def test_what_makes_a_lock_stale(content: str, same: bool) -> None:
    """Only what a list asks for counts, not how it is written."""
    assert (checkout.stripped("numpy\npandas\n") == checkout.stripped(content)) == same


def test_changes(tmp_path: Path) -> None:
    """Between two sets of locks, what came, went and changed is told by ecosystem."""
    old, new = tmp_path / "old", tmp_path / "new"
    contents = {
        old: {
            "base_debs": "",
            "requirements": BEFORE,
            "r_packages": "# R packages that are not from Debian\nglue 1.7 cran 12\nown 1 own/own#aaaaaaaaa 14\n"
            "# Debian packages\nr-cran-zoo 1.8-13\n",  # as it was before locks named archives
        },
        new: {
            "base_debs": "",
            "requirements": """\
[Python.jupyter]
send2trash = { version = "1.8.4", hashes = [
  "sha256:4",
] }

[Python.requirements]
"contourpy ; python_full_version < '3.14'" = { version = "1.3.3" }
"contourpy ; python_full_version >= '3.14'" = { version = "1.4.0" }
own = { url = "https://packages.invalid/own-1.0-py3-none-any.whl" }
""",
            "r_packages": """\
[R]
glue = { version = "1.8", source = "cran" }
own = { version = "1", source = "own/own#bbbbbbbbb" }

[Debian]
libgsl28 = { version = "2.8" }
r-cran-zoo = { version = "1.8-14" }
""",
        },
    }
    for folder, sets in contents.items():
        folder.mkdir()
        for name, content in sets.items():
            python = f"python:3.14@sha256:{folder.name:0<64}" if name == "base_debs" else ""
            made(name, content, python=python).write(folder)
    before, after = (locks.read(CHECKOUT.table, folder) for folder in (old, new))
    found = locks.changes(before, after)
    assert found == [
        locks.Change("Debian", "libgsl28", "", "2.8"),
        locks.Change("Debian", "r-cran-zoo", "1.8-13", "1.8-14"),
        locks.Change("Python", "send2trash", "1.8.3", "1.8.4"),
        locks.Change("R", "glue", "1.7", "1.8"),
        locks.Change("R", "own", "1 (aaaaaaa)", "1 (bbbbbbb)"),
        locks.Change("image", "python:3.14", "old000000000", "new000000000"),
    ]
    assert locks.table(found).splitlines() == [
        "libgsl28     Debian         (new) → 2.8",
        "r-cran-zoo   Debian        1.8-13 → 1.8-14",
        "send2trash   Python         1.8.3 → 1.8.4",
        "glue         R                1.7 → 1.8",
        "own          R        1 (aaaaaaa) → 1 (bbbbbbb)",
        "python:3.14  image   old000000000 → new000000000",
    ]
    form, changed = locks.notes(before, after)
    assert form == "another form, of data alone, has now requirements.lock, r_packages.lock; commit them"
    assert changed == (
        "locked libgsl28 2.8, r-cran-zoo 1.8-14 (was 1.8-13), send2trash 1.8.4 (was 1.8.3), glue 1.8 (was 1.7), "
        "own 1 (bbbbbbb) (was 1 (aaaaaaa)) and 1 more; git diff shows it all"
    )
    assert locks.changes(before, before) == []


@pytest.fixture
def committed(project: Project) -> Project:
    """A checkout whose base_debs.txt and lock were committed together, and staged."""
    for name in project.table.locks:
        made(name, "", "0" * 15 + "1", lists="0" * 16).write(project.root)
    write(project.root, curl(1))
    locks.stage(project)
    return project


def curl(version: int) -> str:
    """What a lock of base_debs.txt says of one package."""
    return f'[Debian]\ncurl = {{ version = "{version}" }}\n'


def write(folder: Path, content: str, lists: str = "1" * 16) -> None:
    """Write the lock of base_debs.txt, whose lines have the digest `lists`."""
    made("base_debs", content, python="python:3.14@sha256:12", lists=lists).write(folder)


def test_debian_moves_on_and_the_checkout_stays(committed: Project) -> None:
    """What only the archive has changed leaves the committed lock alone, and is what later builds go by."""
    write(committed.staged, curl(2))
    before = (committed.root / "base_debs.lock").read_text()
    locks.publish(committed, asked=False)
    assert (committed.root / "base_debs.lock").read_text() == before
    assert not locks.published(committed, ["base_debs"])
    locks.stage(committed)
    assert read(committed.staged, "base_debs").content == curl(2)


def test_another_committed_lock_counts_again(committed: Project) -> None:
    """A lock that git brings is what builds go by, whatever they had made of the one before."""
    write(committed.staged, curl(2))
    locks.publish(committed, asked=False)
    write(committed.root, curl(3))
    locks.stage(committed)
    assert read(committed.staged, "base_debs").content == curl(3)


def test_what_was_kept_apart_in_part(committed: Project) -> None:
    """Where a build was killed while it kept a lock apart, builds go by the committed one again."""
    write(committed.staged, curl(2))
    locks.publish(committed, asked=False)
    apart = committed.apart / "base_debs.lock"
    apart.write_text(apart.read_text()[:-10])
    locks.stage(committed)
    assert read(committed.staged, "base_debs").content == curl(1)


def test_a_full_disk(committed: Project) -> None:
    """What cannot be written whole stays what it was: a lock, and the user's own local.mk."""
    (committed.root / "local.mk").write_text("PORT = 8890\n")
    before = {path: path.read_text() for path in committed.root.iterdir() if path.is_file()}
    program = """
import resource, signal, sys
from contextlib import suppress
from pathlib import Path
from pyrlab.host import locks, proxies
from pyrlab.host.project import Project
project = Project(Path(sys.argv[1]), {})
lock = locks.Lock.read(project.table, project.root, "base_debs")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
for write in (lambda: lock.write(project.root), lambda: proxies.write(project.root / "local.mk", ["TZ = UTC"])):
    with suppress(OSError):
        write()
        sys.exit("it was written")
"""
    subprocess.run([sys.executable, "-c", program, committed.root], cwd=ROOT, check=True)
    assert {path: path.read_text() for path in committed.root.iterdir() if path.is_file()} == before


def test_a_conflict_in_what_is_installed() -> None:
    """What git leaves between the lines of two branches is none."""
    text = "<<<<<<< HEAD\nDebian curl 1\n=======\nDebian curl 2\n>>>>>>> other branch of mine\nR zoo 1.8\n"
    assert contents.read_list(text) == {("Debian", "curl"): "2", ("R", "zoo"): "1.8"}


def test_a_checkout_within_a_repository(project: Project, tmp_path: Path) -> None:
    """What a revision had is found where the checkout is a folder of a larger repository."""
    inner = tmp_path / "larger/pyrlab"
    (inner / "installed").mkdir(parents=True)
    shutil.copy(project.root / "images.toml", inner)
    (inner / "installed/pyrlab-base.txt").write_text("Debian curl 1\n")
    git(inner.parent, "init", "--quiet")
    git(inner.parent, "add", ".")
    git(inner.parent, "commit", "--quiet", "--message=all")
    assert diff.from_git(Project(inner, {}), "HEAD").keys() == {"pyrlab-base"}


def test_what_was_kept_apart_ends_with_its_cause(committed: Project) -> None:
    """Once the committed lock is right again, builds go by it, and lock nothing anew each time."""
    right = read(committed.root, "base_debs")
    write(committed.staged, curl(2))
    locks.publish(committed, asked=False)
    right.write(committed.staged)
    locks.publish(committed, asked=False)
    assert locks.current(committed, "base_debs") == right


@pytest.mark.parametrize(("lists", "asked"), [("1" * 16, True), ("2" * 16, False)], ids=["asked", "list-changed"])
def test_a_lock_is_written_where_one_wants_it(committed: Project, lists: str, asked: bool) -> None:
    """A changed list, or make lock, brings the new lock into the checkout."""
    write(committed.staged, curl(2), lists)
    locks.publish(committed, asked=asked)
    assert read(committed.root, "base_debs").content == curl(2)
    assert locks.published(committed, ["base_debs"])


def test_what_rests_on_a_lock_follows_it(committed: Project) -> None:
    """Where a changed list moves another list's packages, the checkout has both or neither."""
    made("r_debs", "r-base-core 1\n", "0" * 15 + "2", lists="0" * 16).write(committed.staged)
    write(committed.staged, curl(2), "2" * 16)
    locks.publish(committed, asked=False)
    assert read(committed.root, "r_debs").content == "r-base-core 1\n"


def test_what_is_installed_of_a_lock() -> None:
    """Every package of a lock is installed: all versions of one, under their conditions, with their hashes."""
    assert {name: pin.text for name, pin in wheels.pins_of(PACKAGES).items()} == {
        "contourpy": "contourpy==1.3.3 ; python_full_version < '3.14' --hash=sha256:11 --hash=sha256:12\n"
        "contourpy==1.4.0 ; python_full_version >= '3.14' --hash=sha256:13",
        "own": "own @ https://packages.invalid/own-1.0-py3-none-any.whl --hash=sha256:2",
        "send2trash": "send2trash==1.8.3 --hash=sha256:3",
    }


def test_what_uv_has_found() -> None:
    """What uv writes for people is taken apart: versions, addresses, conditions, hashes, and who needs which."""
    found = pinned(f"{LOCKED}bokeh==3.8.0\n    # via -r requirements.txt\n    # from https://packages.invalid/simple\n")
    needs = ("contourpy",)
    assert found == {**PACKAGES, "bokeh": Locked("3.8.0", needs=needs, index="https://packages.invalid/simple")}


def test_debian_moves_on() -> None:
    """What Debian's archive no longer has is named, a few of many."""
    locked = {"curl": "8.14.1-2", "git": "2.47.3-0", "less": "668-1", "nano": "8.4-1", "tree": "2.2.1-1"}
    found = {"curl": "8.14.1-3", "git": "2.47.4-0", "less": "gone", "nano": "8.4-2", "tree": "2.2.1-1"}
    assert str(debs.moved("base_debs.lock", locked, found)) == (
        "base_debs.lock: Debian's archive has moved on: curl 8.14.1-2 is now 8.14.1-3, "
        "git 2.47.3-0 is now 2.47.4-0, less 668-1 is now gone and 1 more; type make lock"
    )


@pytest.mark.parametrize(
    ("upgrade", "kept"),
    [("", {"curl", "git"}), ("*", set()), ("git", {"curl"}), ("pandas git curl", set()), ("gi", {"curl", "git"})],
)
def test_what_an_upgrade_leaves(monkeypatch: pytest.MonkeyPatch, upgrade: str, kept: set[str]) -> None:
    """An upgrade of some packages leaves the others at their versions."""
    monkeypatch.setenv("UPGRADE", upgrade)
    assert debs.kept({"curl": "1", "git": "2"}).keys() == kept


def test_archives_are_read_as_written(tmp_path: Path) -> None:
    """What a step reads of a lock is what a step has written, whatever packages are called."""
    lock = Lock(
        {
            "R": {"own": Locked("0.1", "https://own.invalid/v1.tar.gz", 7, "ab", "github::somebody/own@v1", ("R6",))},
            "Debian": {"libstdc++6": Locked("14.2.0-19", "pool/main/g/gcc-14/libstdc++6.deb", 8, "cd")},
        },
        ("exim4",),
        "0123456789abcdef",
    )
    lock.write(tmp_path / "r_packages.lock")
    assert Lock.read(tmp_path / "r_packages.lock") == lock
    python = Lock({"Python.jupyter": {}, "Python.requirements": PACKAGES}, options=("--index-url https://own.invalid",))
    made("requirements", written(python, tmp_path)).write(tmp_path)
    assert Lock.read(tmp_path / "requirements.lock") == python
    assert python.of("Python") == python.of("Python.requirements") == PACKAGES
    Lock({"Debian": {}}).write(tmp_path / "empty.lock")
    assert Lock.read(tmp_path / "empty.lock").versions("Debian") == {}


def written(lock: Lock, folder: Path) -> str:
    """A lock as a step writes it."""
    lock.write(folder / "written")
    return (folder / "written").read_text()


def test_a_lock_from_before_is_read(tmp_path: Path) -> None:
    """A lock of versions only keeps these, and one that says in a comment what it was made of is known by that."""
    head = "# What base_debs.txt resolves to, written by make lock; change the list, not this file.\n"
    sealed = "# for 0123456789abcdef, content 49260c20edf76285, lists fedcba9876543210, on Debian 49798b1e671f9f9b\n"
    (tmp_path / "base_debs.lock").write_text(f"{head}{sealed}{curl(1)}")
    about = Made("0123456789abcdef", "fedcba9876543210", "Debian 49798b1e671f9f9b")
    assert read(tmp_path, "base_debs") == locks.Lock(CHECKOUT.table.locks["base_debs"], about, curl(1))
    assert Lock.parse(BEFORE) == Lock(
        {"Python": PACKAGES}, options=("--extra-index-url https://packages.invalid/simple",)
    )
    before = tmp_path / "r_packages.lock"
    before.write_text("# R packages, of repositories 01\nglue 1.8.0 cran ab\n# Debian packages\nr-cran-zoo 1.8-14-1\n")
    lock = Lock.read(before)
    assert lock.versions("R") == {"glue": "1.8.0"}
    assert lock.versions("Debian") == {"r-cran-zoo": "1.8-14-1"}
