"""What uv installs becomes pieces that are the same on every machine, each file in that of its package."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from checkout import ROOT
from pyrlab.model.locked import Locked
from pyrlab.model.problem import Problem
from pyrlab.steps import compiled, network, pieces, wheels
from pyrlab.steps.pieces import Mode, Piece
from pyrlab.steps.trees import EXCLUDED
from servers import free_port, serve_files

UV = Path(sys.executable).with_name("uv")
SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"

# Constants of every kind whose order, or whether it is shared with another module, could be seen in bytecode.
MODULE = """\
NAMES = {"one", "two", "three", "four"}
def kind(name):
    return "odd" if name in {"alpha", "beta", "gamma", "delta", "epsilon", "", "zeta"} else "a longer text"
class Kind:
    'shared text'
    words = ("alpha", "shared text", 1.5, b"bytes", frozenset({"x", "y"}))
"""
TEMPLATE = "def {{ name }}():\n"


def checksum(text: str) -> str:
    """What a RECORD says of a file with this text."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def wheel(folder: Path, name: str, files: dict[str, str]) -> str:
    """Make a wheel of some files; the requirement that it satisfies, with its hash."""
    info = f"{name}-1.0.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    meta[f"{info}/RECORD"] = "".join(f"{path},{checksum(text)},\n" for path, text in {**files, **meta}.items())
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in {**files, **meta}.items():
            archive.writestr(zipfile.ZipInfo(place), text)
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def excluded_below(root: Path) -> str:
    """What is in no image, where a folder stands for the root of the file system."""
    return f"{re.escape(str(root))}(?:{EXCLUDED.pattern})"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with uv, no network, and an environment at a place of its own."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setattr(wheels, "UV", [str(UV)])
    monkeypatch.setattr(wheels, "VENV", tmp_path / "opt/venv")
    monkeypatch.setattr(wheels, "EXCLUDED", re.compile(excluded_below(tmp_path)))
    monkeypatch.setattr(wheels, "BESIDE", tmp_path / "wheels")
    (tmp_path / "opt").mkdir()
    (tmp_path / "wheels").mkdir()
    return tmp_path


def packages(machine: Path, **files: dict[str, str]) -> wheels.Packages:
    """Packages of some files each."""
    pins = {name: wheels.Pin(wheel(machine / "wheels", name, each), "", set()) for name, each in files.items()}
    return wheels.Packages(pins, {}, machine, machine / "requirements.txt", compiled.Cache(machine, machine))


def made(machine: Path, cache: str, **files: dict[str, str]) -> tuple[Piece, dict[str, Piece]]:
    """The pieces of the environment and of packages, with what was kept in a cache."""
    (machine / cache).mkdir(exist_ok=True)
    return wheels.pieces("pylab", packages(machine, **files), machine / cache)


def contents(piece: Piece, machine: Path) -> dict[str, bytes]:
    """The files of a piece by their path in the environment's library, or else in the environment."""
    inside = str(machine / "opt/venv")[1:] + "/"
    with pieces.opened(piece) as tree:
        return {
            member.name.removeprefix(inside).removeprefix(f"{SITE}/"): file.read()
            for member in tree
            if (file := tree.extractfile(member))
        }


def test_a_package_is_what_its_record_says(machine: Path) -> None:
    """A package's piece has its files and their bytecode, without uv's note of the time and what serves nobody."""
    files = {"one/__init__.py": MODULE, "one/template.py": TEMPLATE, "one/data.txt": "data"}
    files |= {"one/page.js.map": "{}", "one/__pycache__/__init__.cpython-33.pyc": "of the wheel's own"}
    _, found = made(machine, "cache", one=files)
    inside = contents(found["one"], machine)
    tag = sys.implementation.cache_tag
    assert {path for path in inside if not path.startswith("one-1.0")} == {
        "one/__init__.py",
        f"one/__pycache__/__init__.{tag}.pyc",
        "one/template.py",
        "one/data.txt",
    }
    info = {path.rpartition("/")[2] for path in inside if path.startswith("one-1.0.dist-info/")}
    assert {"METADATA", "RECORD"} <= info
    assert "uv_cache.json" not in info
    assert b"uv_cache.json" not in inside["one-1.0.dist-info/RECORD"]


def test_what_python_takes_of_it(machine: Path) -> None:
    """A lab starts from the bytecode of the image: Python takes it as it is, wherever and whenever that was made."""
    _, found = made(machine, "cache", one={"one.py": MODULE})
    bytecode = contents(found["one"], machine)[f"__pycache__/one.{sys.implementation.cache_tag}.pyc"]
    (machine / "one.py").write_text(MODULE)
    os.utime(machine / "one.py", (pieces.EPOCH, pieces.EPOCH))  # as it is in the image
    place = Path(importlib.util.cache_from_source(str(machine / "one.py")))
    place.parent.mkdir()
    place.write_bytes(bytecode)
    command = [sys.executable, "-v", "-c", "import one; print(one.kind('beta'))"]
    run = subprocess.run(command, cwd=machine, capture_output=True, text=True, check=True)
    assert run.stdout == "odd\n"
    assert f"code object from '{place}'" in run.stderr
    assert place.read_bytes() == bytecode
    (machine / "one.py").write_text(MODULE.replace('"odd"', '"new"'))
    assert subprocess.run(command, cwd=machine, capture_output=True, text=True, check=True).stdout == "new\n"


def test_who_may_change_it(machine: Path) -> None:
    """`pip install` in a notebook may replace what the image has: jovyan and his group own all of the environment."""
    scripts = {"one.py": MODULE, "one-1.0.data/scripts/tool": "#!python\nprint()\n"}
    empty, found = made(machine, "cache", one=scripts)
    inside = str(machine / "opt/venv")[1:]
    for piece in (empty, found["one"]):
        folders = {path: mode for path, mode in piece.folders.items() if path.startswith(inside)}
        assert {*folders.values()} == {Mode(0o2775, 1000, 100)}
        with pieces.opened(piece) as tree:
            found_modes = {each.name.removeprefix(f"{inside}/"): each for each in tree}
        assert {(each.uid, each.gid, each.mtime) for each in found_modes.values()} == {(1000, 100, pieces.EPOCH)}
        assert {each.mode for each in found_modes.values() if each.isreg()} <= {0o664, 0o775}
        for path in ("bin/tool", "bin/activate_this.py", f"{SITE}/one.py"):
            if path in found_modes:
                assert bool(found_modes[path].mode & stat.S_IXUSR) == (path == "bin/tool")
    assert f"{inside}/bin/tool" in found["one"].paths
    assert f"{inside}/bin/python" in empty.paths
    assert not {*empty.paths} & {*found["one"].paths}


def test_another_package_changes_no_other(machine: Path) -> None:
    """A package that comes is made, one that goes is in no image any more, and a new file changes its own."""
    one, two = {"one.py": MODULE}, {"two.py": MODULE}
    _, first = made(machine, "cache", one=one)
    before = first["one"].path.stat().st_ino
    _, both = made(machine, "cache", one=one, two=two)
    assert both["one"] == first["one"]
    assert both["one"].path.stat().st_ino == before
    _, alone = made(machine, "cache", two=two)
    assert alone == {"two": both["two"]}
    _, changed = made(machine, "cache", one={"one.py": f"{MODULE}#"}, two=two)
    assert changed["two"] == both["two"]
    assert changed["one"] != both["one"]


def test_what_a_package_needs_is_known_from_the_lock() -> None:
    """A package is imported again where anything that it needs has changed, however far down."""
    needs = {
        "pandas": ("numpy", "python-dateutil"),
        "numpy": (),
        "python-dateutil": ("six",),
        "six": (),
        "rich": ("of-another-lock",),
    }
    pins = wheels.pins_of({name: Locked("1", needs=others) for name, others in needs.items()})
    assert wheels.closure("pandas", pins) == ["numpy", "pandas", "python-dateutil", "six"]
    assert wheels.closure("rich", pins) == ["rich"]


def test_another_file_of_the_same_version(machine: Path) -> None:
    """What is kept of a package gives way to another file of its version: a wheel made anew, or compiled here."""
    made(machine, "cache", one={"one.py": MODULE}, two={"two.py": MODULE})
    _, found = made(machine, "cache", one={"one.py": f"{MODULE}#"}, two={"two.py": MODULE})
    assert contents(found["one"], machine)["one.py"] == f"{MODULE}#".encode()


def test_another_file_than_locked(machine: Path) -> None:
    """A lock with another checksum is not served from what is kept."""
    made(machine, "cache", one={"one.py": MODULE})
    forged = packages(machine, one={"one.py": MODULE})
    forged.pins["one"].text = f"one==1.0 --hash=sha256:{'0' * 64}"
    with pytest.raises(Problem, match="the file of one that the index serves is not the one that was locked"):
        wheels.pieces("pylab", forged, machine / "cache")


def test_the_index_that_the_lock_names(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index that a list names is asked for what it has, whatever other one a parameter names."""
    place = machine / "served/simple/own"
    place.mkdir(parents=True)
    text = wheel(place, "own", {"own.py": MODULE})
    [file] = place.iterdir()
    (place / "index.html").write_text(f'<a href="{file.name}">{file.name}</a>')
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{free_port()}")
    with serve_files(machine / "served") as server:
        index = f"{server.url}/simple"
        asked = replace(
            packages(machine), pins={"own": wheels.Pin(text, index, set())}, options={"--index-url": [index]}
        )
        _, found = wheels.pieces("pylab", asked, machine)
    assert contents(found["own"], machine)["own.py"] == MODULE.encode()


def test_a_wheel_for_each_kind_of_machine(machine: Path) -> None:
    """Of wheels of the checkout that are for different machines, the one for this is taken, in whatever line it is."""
    (machine / "own").mkdir()
    checked = wheel(machine / "own", "own", {"own.py": MODULE}).partition("--hash=")[2]
    [file] = (machine / "own").iterdir()
    locked = {
        f"own ; sys_platform {sign} '{sys.platform}'": Locked(url=f"./own/{file.name}", hashes=(checked,))
        for sign in ("!=", "==")
    }
    _, found = wheels.pieces("pylab", replace(packages(machine), pins=wheels.pins_of(locked)), machine)
    assert contents(found["own"], machine)["own.py"] == MODULE.encode()


def synced(machine: Path, **files: dict[str, str]) -> tuple[wheels.Packages, Path]:
    """The packages of the environment once that has these, and where pieces are kept."""
    asked = packages(machine, **files)
    asked.sync()
    return asked, machine / "cache/pieces"


@pytest.mark.parametrize("left", ["nothing", "an empty RECORD"])
def test_a_build_that_was_cut_short(left: str, machine: Path) -> None:
    """What uv had removed or installed only in part is installed by the next build, and is in its image."""
    both = {"one": {"one.py": MODULE}, "two": {"two.py": MODULE}}
    made(machine, "cache", **both)
    (machine / "opt/venv/installed.json").unlink()
    (machine / "opt/venv" / SITE / "one.py").unlink()
    info = machine / "opt/venv" / SITE / "one-1.0.dist-info"
    for path in info.iterdir():
        path.unlink()
    if left != "nothing":
        (info / "RECORD").touch()
    shutil.rmtree(machine / "cache/pieces")
    (machine / "cache/pieces").mkdir()
    found = wheels.make_pieces(*synced(machine, **both))
    assert contents(found["one"], machine)["one.py"] == MODULE.encode()
    assert found.keys() == both.keys()


def test_a_file_that_went_with_another_package(machine: Path) -> None:
    """A package has all of its files, though uv took one away with another package that had the same."""
    shared = {"shared/__init__.py": MODULE}
    (machine / "cache").mkdir()
    wheels.open_environment("pylab", machine / "cache")
    packages(machine, one=shared, two=shared).sync()  # and the build was cut short
    _, found = made(machine, "cache", one=shared)
    assert contents(found["one"], machine)["shared/__init__.py"] == MODULE.encode()


def test_a_wheel_that_was_changed_by_hand(machine: Path) -> None:
    """What is in a wheel counts, and not what it says of itself."""
    made(machine, "cache", own={"own.py": "A = 1\n"})
    asked = packages(machine, own={"own.py": "A = 1\n"})
    path = machine / "wheels/own-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | {"own.py": b"A = 2\n"}).items():
            archive.writestr(zipfile.ZipInfo(name), content)
    asked.pins["own"].text = f"own==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    _, found = wheels.pieces("pylab", asked, machine / "cache")
    assert contents(found["own"], machine)["own.py"] == b"A = 2\n"


def test_a_file_that_cannot_be_had_again(
    machine: Path, contested: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where uv cannot install a package once more whose file another has changed, no wrong piece is kept."""
    install = wheels.Packages.install

    def failing(self: wheels.Packages, *options: str, names: list[str]) -> network.Run:
        again = "--reinstall" in options
        return subprocess.CompletedProcess([], 1, stderr="") if again else install(self, *options, names=names)

    monkeypatch.setattr(wheels.Packages, "install", failing)
    with pytest.raises(Problem, match=r"^uv could not change what it had installed"):
        made(machine, "cache", **contested)


def test_a_compiled_wheel_is_kept_whole(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that was just being kept when a build ended is compiled again."""

    def compile_to(folder: Path, *_: object) -> str:
        folder.mkdir()
        (folder / "own-1.0-py3-none-any.whl").write_text("all of it")
        return ""

    def cut_short(source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        (target / "own-1.0-py3-none-any.whl").write_text("all")
        raise KeyboardInterrupt

    (machine / "base_debs.txt").touch()
    cache = compiled.Cache(machine / "compiled", machine / "base_debs.txt")
    monkeypatch.setattr(compiled, "prepare", lambda lists: None)
    monkeypatch.setattr(compiled, "compile_to", compile_to)
    with monkeypatch.context() as ending, pytest.raises(KeyboardInterrupt):
        ending.setattr(shutil, "copytree", cut_short)
        cache.wheel("own==1.0", [])
    found, _ = cache.wheel("own==1.0", [])
    assert found
    assert found.read_text() == "all of it"


@pytest.fixture
def contested() -> dict[str, dict[str, str]]:
    """Packages that have one file each with a content of its own, and one that two have the same."""
    return {
        "one": {"shared/file.py": "NAME = 'one'\n", "shared/same.py": MODULE, "one.py": MODULE},
        "two": {"shared/file.py": "NAME = 'two'\n", "shared/same.py": MODULE, "two.py": MODULE},
        "three": {"three.py": MODULE},
    }


def records(venv: Path) -> dict[str, Path]:
    """The RECORD of each package of an environment."""
    return {wheels.package_of(path): path for path in venv.glob("lib/*/site-packages/*.dist-info/RECORD")}


def test_a_file_of_two_packages(machine: Path, contested: dict[str, dict[str, str]]) -> None:
    """Each piece has the file as its own package has it, whichever uv has installed last."""
    _, found = made(machine, "cache", **contested)
    assert wheels.contested(records(wheels.VENV)) == {"one", "two"}
    for name in ("one", "two"):
        assert contents(found[name], machine)["shared/file.py"] == f"NAME = '{name}'\n".encode()
    _, again = made(machine, "other", **dict(reversed(contested.items())))
    for name in contested:
        assert again[name].path.read_bytes() == found[name].path.read_bytes()


def test_a_file_that_two_packages_have_alike(machine: Path) -> None:
    """Two packages with the same content of a file need nothing installed again."""
    made(machine, "cache", one={"same.py": MODULE}, two={"same.py": MODULE})
    assert wheels.contested(records(wheels.VENV)) == set()


MAKE = """
import re, sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
from pyrlab.steps import wheels
wheels.VENV, wheels.EXCLUDED = Path(sys.argv[2]), re.compile(sys.argv[3])
pins = defaultdict(lambda: SimpleNamespace(text=""))
wheels.make_pieces(SimpleNamespace(pins=pins), Path(sys.argv[4]))
"""


def test_the_same_bytecode_whatever_else_is_compiled(machine: Path) -> None:
    """Two machines that share a package have the same piece of it: no seed, no other package leaves a trace."""
    one, more = {"one.py": MODULE, "other.py": MODULE}, {"more.py": f"{MODULE}alpha = 'shared text'\n"}
    kept = []
    for seed, files in (("1", {"one": one}), ("2", {"more": more, "one": one, "third": {"third.py": MODULE}})):
        made(machine, "cache", **files)
        cache = machine / f"kept-{seed}"
        tools = [str(ROOT), str(wheels.VENV), excluded_below(machine), str(cache)]
        command = [sys.executable, "-c", MAKE, *tools]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        kept.append({path.name: path.read_bytes() for path in cache.iterdir()})
    assert kept[0].items() <= kept[1].items()
    assert len(kept[0]) == 2
    assert len(kept[1]) == 6


def test_whose_layer_memory_is_too_short_for(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system ends what takes too much memory, the build ends with the package, and does not wait for ever."""
    monkeypatch.setattr(wheels, "make", lambda job: os.kill(os.getpid(), signal.SIGKILL) if job == "b" else None)
    with pytest.raises(Problem, match=r"^b is too large for the memory that the engine has; give it more$"):
        wheels.in_processes(dict.fromkeys("acd", "a") | {"b": "b"})  # type: ignore[arg-type]
