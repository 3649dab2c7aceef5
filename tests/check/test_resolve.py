"""What lists resolve to, by uv itself and a small index: what is locked stays, and is not asked about."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from pyrlab.model.locked import Lock
from pyrlab.model.problem import Problem
from pyrlab.steps import resolve, wheels
from servers import WebServer, serve_files


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """An index of packages in the folder `served`, which uv knows nothing of yet."""
    monkeypatch.setattr(wheels, "UV", [str(Path(sys.executable).with_name("uv"))])
    monkeypatch.setattr(resolve, "RESOLVE", tmp_path / "resolve")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    (tmp_path / "served").mkdir()
    with serve_files(tmp_path / "served") as server:
        yield server


def offer(folder: Path, name: str, version: str, *needs: str) -> None:
    """Put a package into the index, which tells what it needs beside its file."""
    place = folder / "served/simple" / name
    place.mkdir(parents=True, exist_ok=True)
    file = f"{name}-{version}-py3-none-any.whl"
    about = "".join(f"Requires-Dist: {need}\n" for need in needs)
    (place / file).touch()
    (place / f"{file}.metadata").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{about}")
    digest = hashlib.sha256(file.encode()).hexdigest()
    with (place / "index.html").open("a") as page:
        page.write(f'<a href="{file}#sha256={digest}" data-core-metadata="true">{file}</a>\n')


def lock(folder: Path, index: WebServer, *lines: str) -> dict[str, str]:
    """What is locked for some lines, in the place of what was locked before."""
    (folder / "jupyter.txt").touch()
    (folder / "requirements.txt").write_text("\n".join([f"--index-url {index.url}/simple", *lines]))
    paths = [folder / "jupyter.txt", folder / "requirements.txt"]
    previous = folder / "requirements.lock"
    previous.touch()
    sections = ["Python.jupyter", "Python.requirements"]
    resolve.lock(paths, folder, folder / "base_debs.txt", sections, [], previous).write(previous)
    return Lock.read(previous).versions("Python")


def lock_below(folder: Path, *names: str) -> dict[str, str]:
    """What is locked for lists of an image whose parent has what is in parent.lock."""
    (folder / "course.lock").touch()
    paths, parent = [folder / name for name in names], [folder / "parent.lock"]
    sections = [f"Python.{path.stem}" for path in paths]
    made = resolve.lock(paths, folder, folder / "base_debs.txt", sections, parent, folder / "course.lock")
    return made.versions("Python")


def test_what_is_locked(tmp_path: Path, index: WebServer) -> None:
    """One package more asks the index for that, and for what it needs; what is locked stays."""
    offer(tmp_path, "aside", "1.0")
    assert lock(tmp_path, index, "aside") == {"aside": "1.0"}
    offer(tmp_path, "aside", "2.0")
    offer(tmp_path, "new", "1.0", "needed")
    offer(tmp_path, "needed", "1.0")
    index.paths.clear()
    assert lock(tmp_path, index, "aside", "new") == {"aside": "1.0", "needed": "1.0", "new": "1.0"}
    asked = {path.split("/")[2] for path in index.paths if path.count("/") > 2}
    assert {"new", "needed"} <= asked
    assert "aside" not in asked


def test_what_must_move(tmp_path: Path, index: WebServer) -> None:
    """What cannot stay as it is locked becomes the newest that will do, and not the newest that uv has heard of."""
    for version in ("1.0", "1.5"):
        offer(tmp_path, "old", version)
    assert lock(tmp_path, index, "old") == {"old": "1.5"}
    assert lock(tmp_path, index, "old<1.5") == {"old": "1.0"}
    offer(tmp_path, "old", "2.0")
    assert lock(tmp_path, index, "old>=1.2") == {"old": "2.0"}


def test_what_is_wrong_besides(tmp_path: Path, index: WebServer) -> None:
    """An index that lets nothing be kept is not asked all again for each line that is wrong."""
    wrong = ["two", "three", "four", "five"]
    for name in ("one", *wrong):
        offer(tmp_path, name, "1.0")
    with pytest.raises(Problem) as problem:
        lock(tmp_path, index, "one", *(f"{name}==2" for name in wrong))
    assert str(problem.value).splitlines() == [
        f"requirements.txt line {number}: no version of {name} satisfies '{name}==2'"
        for number, name in enumerate(wrong, start=3)
    ]
    assert index.paths.count("/simple/one/") <= 2


def test_checksums(tmp_path: Path, index: WebServer) -> None:
    """A checksum holds that any line demands, of a list of constraints, too; of lines for some systems each its own."""
    for version in ("1.0", "2.0"):
        offer(tmp_path, "one", version)
    right, wrong = (
        hashlib.sha256(f"one-{version}-py3-none-any.whl".encode()).hexdigest() for version in ("2.0", "1.0")
    )
    here = f'one==2.0; sys_platform == "linux" --hash=sha256:{right}'
    there = f'one==1.0; sys_platform != "linux" --hash=sha256:{wrong}'
    assert lock(tmp_path, index, here, there) == lock(tmp_path, index, there, here) == {"one": "2.0"}
    (tmp_path / "limits.txt").write_text(f"one==2.0 --hash=sha256:{wrong}\n")
    said = r"^limits\.txt line 1: no file of one 2\.0 has the checksum that the line demands; "
    with pytest.raises(Problem, match=said):
        lock(tmp_path, index, "one", "-c limits.txt")


def test_two_images_with_an_index(tmp_path: Path, index: WebServer) -> None:
    """The lists of an image and of the one that it starts from may name the same indexes, or each its own."""
    offer(tmp_path, "one", "1.0")
    offer(tmp_path, "two", "1.0", "one")
    lock(tmp_path, index, "one", f"--extra-index-url {index.url}/simple/")
    (tmp_path / "requirements.lock").rename(tmp_path / "parent.lock")
    for named in (f"--index-url {index.url}/simple", f"--index-url {index.url}/./simple"):
        (tmp_path / "course.txt").write_text(f"{named}\n--extra-index-url {index.url}/simple/\ntwo\n")
        found = lock_below(tmp_path, "course.txt")
        assert found == {"two": "1.0"}


def test_a_list_beside_its_dockerfile(tmp_path: Path, index: WebServer) -> None:
    """Wheels and other lists are where a list says, from the top of the checkout and from its own folder on."""
    offer(tmp_path, "one", "1.0")
    offer(tmp_path, "two", "1.0")
    for folder in ("docker/course", "wheels"):
        (tmp_path / folder).mkdir(parents=True)
    with ZipFile(tmp_path / "wheels/own-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("own-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
        wheel.writestr("own-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("own-1.0.dist-info/RECORD", "")
    (tmp_path / "common.txt").write_text("two\n")
    (tmp_path / "parent.lock").touch()
    (tmp_path / "docker/course/course.txt").write_text(
        f"--index-url {index.url}/simple\none\n-r ../../common.txt\n./wheels/own-1.0-py3-none-any.whl\n"
    )
    assert lock_below(tmp_path, "docker/course/course.txt").keys() == {"one", "two", "own"}


def test_a_wrong_line_of_the_other_list(tmp_path: Path, index: WebServer) -> None:
    """A line that cannot be read is told, too, where its list shares the lock of another."""
    offer(tmp_path, "one", "1.0")
    (tmp_path / "common.txt").write_text("one=>2\n")
    (tmp_path / "course.txt").write_text("one\n")
    (tmp_path / "parent.lock").touch()
    with pytest.raises(Problem, match=r"^common\.txt line 1: 'one=>2' is not a requirement"):
        lock_below(tmp_path, "common.txt", "course.txt")


def test_what_is_not_there(tmp_path: Path, index: WebServer) -> None:
    """A name that the index does not have is refused with its line, whatever is locked."""
    offer(tmp_path, "old", "1.0")
    lock(tmp_path, index, "old")
    with pytest.raises(Problem, match=r"requirements\.txt line 3: the Python index has no package named 'another'"):
        lock(tmp_path, index, "old", "another")
