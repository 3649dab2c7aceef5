"""Locks through the eyes of a user: nothing moves unasked, one command upgrades, and a failure changes nothing."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import NAMES, docker, forge, run_make, tagged
from pyrlab import locks
from servers import serve_files

OWN = "upgrade"  # the tag of the images that these tests change
LOCKS = [f"{name}.lock" for name in locks.NAMES]


@pytest.fixture
def own_images(images: str) -> Iterator[None]:
    """The images under a tag of their own."""
    with tagged(OWN):
        yield


def make(checkout: Path, *targets: str, **parameters: str) -> subprocess.CompletedProcess[str]:
    """Run make on the images of these tests."""
    return run_make(checkout, *targets, TAG=OWN, **parameters)


def succeeded(run: subprocess.CompletedProcess[str]) -> str:
    """What a make that must succeed printed."""
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def refusal(run: subprocess.CompletedProcess[str]) -> str:
    """The sentence with which make refuses."""
    assert run.returncode != 0, run.stdout
    [sentence] = [line for line in run.stderr.splitlines() if line.startswith("pyrlab: ")]
    return sentence


def state(checkout: Path) -> list[str | bytes]:
    """All that must stay where something fails: images and locks."""
    images = [docker("image", "inspect", f"{name}:{OWN}", "--format", "{{.Id}}") for name in NAMES]
    return [*images, *((checkout / lock).read_bytes() for lock in LOCKS)]


def in_pylab(code: str) -> str:
    """What Python code prints in pylab."""
    return docker("run", "--rm", f"pylab:{OWN}", "python", "-c", code)


def set_list(checkout: Path, *lines: str) -> None:
    """Let requirements.txt ask for `lines` besides what it asks for here."""
    listed = (Path(__file__).parent.parent / "requirements.txt").read_text()
    (checkout / "requirements.txt").write_text(listed + "".join(f"{line}\n" for line in lines))


VERSION = "from importlib.metadata import version; print(version('cowsay'))"


@pytest.mark.usefixtures("own_images")
def test_upgrade(checkout: Path) -> None:
    """An old version stays until its user asks for the new one, and is told what came of it."""
    before = state(checkout)
    assert succeeded(make(checkout, "lock")) == "the locks are up to date\n"
    assert state(checkout) == before

    set_list(checkout, "cowsay<6")
    built = make(checkout, "build")
    assert "pyrlab: locked cowsay 5.0" in succeeded(built) + built.stderr
    old = in_pylab(VERSION)
    assert old == "5.0"

    set_list(checkout, "cowsay  # any version")
    locked = state(checkout)
    assert succeeded(make(checkout, "lock")) == "the locks are up to date\n"
    assert "\ncowsay==5.0 \\\n" in (checkout / "requirements.lock").read_text()

    outdated = succeeded(make(checkout, "outdated"))
    [new] = re.findall(rf"^cowsay +Python +{re.escape(old)} → (\S+)$", outdated, re.MULTILINE)
    assert state(checkout)[:4] == locked[:4]

    upgraded = succeeded(make(checkout, "upgrade", P="cowsay")).splitlines()
    assert upgraded[0] == f"cowsay  Python  {old} → {new}"
    [fetched] = re.findall(r"^to be pulled by those who have the images of before: ([\d.]+) MB$", upgraded[1])
    assert 0 < float(fetched) < 1
    assert in_pylab(VERSION) == new
    assert f"\ncowsay=={new} \\\n" in (checkout / "requirements.lock").read_text()


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
    path.write_text(path.read_text().replace("==", ">=", 1))
    said = refusal(make(checkout, "build"))
    assert said.startswith("pyrlab: requirements.lock is not as make lock wrote it; ")


@pytest.mark.usefixtures("own_images")
def test_another_file_than_locked(checkout: Path) -> None:
    """What the index serves in the place of what was locked does not get into an image."""
    set_list(checkout, "cowsay")
    succeeded(make(checkout, "lock"))
    forge(checkout, "requirements", "cowsay")
    before = state(checkout)
    said = refusal(make(checkout, "build"))
    what = "the file of cowsay that the index serves is not the one that was locked"
    assert said == f"pyrlab: requirements.lock: {what}; if it is to be trusted, type make upgrade P=cowsay"
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
    """An upgrade to something that does not even start changes neither image nor lock."""
    with serve_files(tmp_path, host=gateway) as server:
        set_list(checkout, f"brittle @ {server.url}/{wheel(tmp_path, '1.0', '')}")
        succeeded(make(checkout, "build"))
        before = state(checkout)
        set_list(checkout, f"brittle @ {server.url}/{wheel(tmp_path, '2.0', 'raise RuntimeError(7)')}")
        said = refusal(make(checkout, "upgrade", P="brittle"))
    assert said == "pyrlab: nothing was upgraded, since brittle cannot be imported: RuntimeError: 7"
    assert state(checkout) == before
