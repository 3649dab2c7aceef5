"""Locks through the eyes of a user: nothing moves unasked, one command upgrades, and a failure changes nothing."""

from __future__ import annotations

import ast
import base64
import hashlib
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import (
    CHECKOUT,
    ROOT,
    TINY,
    TINY_LISTS,
    docker,
    forge,
    git,
    layers,
    refusal,
    run_make,
    succeeded,
    tagged,
    write_lists,
)
from checkout import state as images
from servers import serve_files

OWN = f"{TINY}-upgrade"  # the tag of the images that these tests change
LOCKS = [f"{name}.lock" for name in CHECKOUT.table.locks]


@pytest.fixture
def own_images(tiny: Path) -> Iterator[None]:
    """The images under a tag of their own."""
    assert tiny.exists()
    with tagged(OWN):
        yield


def make(checkout: Path, *targets: str, **parameters: str) -> subprocess.CompletedProcess[str]:
    """Run make on the images of these tests."""
    return run_make(checkout, *targets, TAG=OWN, **parameters)


def state(checkout: Path) -> list[str | bytes]:
    """All that must stay where something fails: images and locks."""
    return [*images(OWN).values(), *((checkout / lock).read_bytes() for lock in LOCKS)]


def in_pylab(code: str) -> str:
    """What Python code prints in pylab."""
    return docker("run", "--rm", f"pylab:{OWN}", "python", "-c", code)


def set_list(checkout: Path, *lines: str) -> None:
    """Let requirements.txt ask for `lines` besides what it asks for here."""
    write_lists(checkout, {"requirements.txt": [*TINY_LISTS["requirements.txt"], *lines]})


VERSIONS = "from importlib.metadata import version; print(version('cowsay'), version('pyjokes'))"


@pytest.mark.usefixtures("own_images")
def test_upgrade(checkout: Path) -> None:
    """An old version stays until its user asks for the new one of this package, and is told what came of it."""
    before, before_images, before_layers = state(checkout), images(OWN), layers(f"pylab:{OWN}")
    assert succeeded(make(checkout, "lock")) == "the locks are up to date\n"
    assert state(checkout) == before

    set_list(checkout, "cowsay<6.1", "pyjokes<0.8")
    built = make(checkout, "build")
    [row] = [line for line in succeeded(built).splitlines() if line.startswith("pylab:")]
    assert row.endswith("rebuilt: requirements.lock changed")
    assert {name for name, image in images(OWN).items() if image != before_images[name]} == {"pylab"}
    assert len({*layers(f"pylab:{OWN}")} - {*before_layers}) == 3  # one of each package, and the manifest
    old = dict(re.findall(r"(cowsay|pyjokes) ([^\s,]+)", built.stderr))
    assert in_pylab(VERSIONS).split() == [old["cowsay"], old["pyjokes"]]

    set_list(checkout, "cowsay  # any version", "pyjokes")
    locked = state(checkout)
    assert succeeded(make(checkout, "lock")) == "the locks are up to date\n"
    assert f'\ncowsay = {{ version = "{old["cowsay"]}", ' in (checkout / "requirements.lock").read_text()

    outdated = re.findall(r"^(\S+) +Python +(\S+) → (\S+)$", succeeded(make(checkout, "outdated")), re.MULTILINE)
    new = {name: version for name, before, version in outdated if before == old.get(name)}
    assert new.keys() == old.keys()
    assert state(checkout)[:4] == locked[:4]

    upgraded = succeeded(make(checkout, "upgrade", P="cowsay")).splitlines()
    assert upgraded[0] == f"cowsay  Python  {old['cowsay']} → {new['cowsay']}"
    [fetched] = re.findall(r"^to be pulled by those who have the images of before: ([\d.]+) MB$", upgraded[1])
    assert float(fetched) < 1  # of hundreds
    assert in_pylab(VERSIONS).split() == [new["cowsay"], old["pyjokes"]]
    assert f'\ncowsay = {{ version = "{new["cowsay"]}", ' in (checkout / "requirements.lock").read_text()


@pytest.mark.usefixtures("own_images")
def test_nothing_of_that_name(checkout: Path) -> None:
    """A package that is nowhere cannot be upgraded."""
    before = state(checkout)
    said = refusal(make(checkout, "upgrade", P="pandsa"))
    assert said == "pyrlab: no lock has a package named pandsa; grep pandsa *.lock finds its like"
    assert state(checkout) == before


@pytest.mark.usefixtures("own_images")
def test_changed_by_hand(checkout: Path) -> None:
    """A lock that someone has edited is refused, before anything is built."""
    path = checkout / "requirements.lock"
    path.write_text(path.read_text().replace("version = ", "version= ", 1))
    said = refusal(make(checkout, "build"))
    assert said.startswith("pyrlab: requirements.lock is not as make lock wrote it; ")


@pytest.mark.usefixtures("own_images")
@pytest.mark.parametrize(
    ("lock", "name", "called", "whose"),
    [("requirements", "simplejson", "simplejson", "index"), ("base_debs", "less", r"less \S+", "archive")],
)
def test_another_file_than_locked(checkout: Path, lock: str, name: str, called: str, whose: str) -> None:
    """What is served in the place of what was locked does not get into an image."""
    forge(checkout, lock, name)
    before = state(checkout)
    said = refusal(make(checkout, "build"))
    what = f"the file of {called} that the {whose} serves is not the one that was locked"
    assert re.fullmatch(f"pyrlab: {lock}.lock: {what}; if it is to be trusted, type make upgrade P={name}", said)
    assert state(checkout) == before


def wheel(folder: Path, version: str, code: str) -> str:
    """Make a wheel with one module; its name."""
    info = f"brittle-{version}.dist-info"
    files = {
        "brittle.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: brittle\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{name},sha256={sha256(text)},{len(text)}" for name, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(folder / f"brittle-{version}-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return f"brittle-{version}-py3-none-any.whl"


def sha256(text: str) -> str:
    """The checksum of a file as a wheel has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.mark.usefixtures("own_images")
def test_what_cannot_be_imported(checkout: Path, gateway: str, tmp_path: Path) -> None:
    """What a list names and does not even start changes neither image nor lock, be it built or upgraded to."""
    with serve_files(tmp_path, host=gateway) as server:
        set_list(checkout, f"brittle @ {server.url}/{wheel(tmp_path, '1.0', '')}")
        succeeded(make(checkout, "lock"))
        before = state(checkout)
        set_list(checkout, f"brittle @ {server.url}/{wheel(tmp_path, '2.0', 'raise RuntimeError(7)')}")
        for target, parameters in (("build_pylab", {}), ("upgrade", {"P": "brittle"})):
            said = refusal(make(checkout, target, **parameters))
            assert re.fullmatch(r"pyrlab: requirements.txt line \d: brittle cannot be imported: RuntimeError: 7", said)
            assert state(checkout) == before


@pytest.mark.usefixtures("own_images")
def test_what_a_dockerfile_breaks(checkout: Path) -> None:
    """What worked until the image's own Dockerfile broke it is found as well, and changes neither image nor lock."""
    before = state(checkout)
    with (checkout / "docker/pylab/Dockerfile").open("a") as file:
        file.write("USER 0\nRUN rm -r /opt/venv/lib/python3*/site-packages/simplejson\nUSER 1000\n")
    said = refusal(make(checkout, "build_pylab"))
    assert re.fullmatch(r"pyrlab: requirements.txt line \d+: simplejson cannot be imported: .*'simplejson'", said)
    assert state(checkout) == before


# Each with its version and what it needs.
ARCHIVE = [
    ("liba", "1", ""),
    ("liba", "2", ""),
    ("liba-dev", "2", "liba (= 2)"),
    ("app", "1", "liba"),
    ("app", "2", "liba"),
]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("asked", "expected"),
    [("app", {"app": "1", "liba": "1"}), ("app liba-dev", {"app": "1", "liba": "2", "liba-dev": "2"})],
    ids=["stays", "gives-way"],
)
def test_a_locked_debian_version_gives_way(asked: str, expected: dict[str, str], tmp_path: Path) -> None:
    """Only what a new package needs otherwise leaves its locked version, where Debian's archive has two."""
    entries = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nDepends: {needs}\nFilename: ./{name}.deb\nSize: 1\n"
        f"SHA256: {'0' * 64}\nDescription: test\n"
        for name, version, needs in ARCHIVE
    )
    (tmp_path / "Packages").write_text("\n".join(entries).replace("Depends: \n", ""))
    plan = f"debs.plan({asked.split()}, dict(app='1', liba='1'), 'base_debs.txt')"
    code = f"from pyrlab.steps import debs; print({plan}[0])"
    script = f"""
        rm -rf /etc/apt/sources.list.d/*
        echo 'deb [trusted=yes] file:/archive ./' >/etc/apt/sources.list
        apt-get update --quiet=2
        PYTHONPATH=/tools python3 -c "{code}" """
    mounts = [f"--volume={ROOT}/pyrlab:/tools/pyrlab:ro", f"--volume={tmp_path}:/archive:ro"]
    said = docker("run", "--rm", "--user=0", "--entrypoint=sh", *mounts, f"pyrlab-base:{TINY}", "-euc", script)
    assert ast.literal_eval(said.splitlines()[-1]) == expected


@pytest.mark.usefixtures("own_images")
def test_a_branch(checkout: Path, gateway: str, tmp_path: Path) -> None:
    """A branch of a git repository is locked to its commit."""
    repository = tmp_path / "brittle.git"
    work = tmp_path / "work"
    (work / "brittle").mkdir(parents=True)
    (work / "brittle/__init__.py").touch()
    (work / "pyproject.toml").write_text('[project]\nname = "brittle"\nversion = "1.0"\n')
    git(work, "init")
    git(work, "add", ".")
    git(work, "commit", "--message=First")
    git(work, "clone", "--bare", ".", str(repository))
    git(repository, "update-server-info")
    with serve_files(tmp_path, host=gateway) as server:
        url = f"git+{server.url}/brittle.git"
        set_list(checkout, f"brittle @ {url}")
        assert "brittle" in succeeded(make(checkout, "lock"))
    locked = (checkout / "requirements.lock").read_text()
    assert f'\nbrittle = {{ url = "{url}@{git(work, "rev-parse", "HEAD")}" }}\n' in locked
