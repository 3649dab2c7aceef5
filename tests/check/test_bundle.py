"""A build step is given what it reads and no more, so that nothing else makes it run again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from checkout import ROOT

SOURCE = ROOT / "docker/build"


def bundle(source: Path, tools: Path) -> dict[str, bytes]:
    """The files of the tools' folders, by path."""
    subprocess.run([sys.executable, SOURCE / "bundle.py", source, tools], check=True)
    return {str(path.relative_to(tools)): path.read_bytes() for path in tools.rglob("*.py")}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two tools, of which one needs a module that needs another; and a module that nobody needs."""
    source = tmp_path / "source"
    source.mkdir()
    files = {
        "one": "import os\nimport two\nprint(two.NAME)\n",
        "two": "from three import NAME\n",
        "three": "NAME = 'three'  # a comment\n",
        "other": "print('other')\n",
    }
    for name, text in files.items():
        (source / f"{name}.py").write_text(text)
    return source


def test_a_tool_has_what_it_imports(source: Path, tmp_path: Path) -> None:
    """A change to a module concerns the tools that need it, and no other."""
    made = bundle(source, tmp_path / "tools")
    assert {path for path in made if path.startswith("one/")} == {"one/one.py", "one/two.py", "one/three.py"}
    assert {path for path in made if path.startswith("other/")} == {"other/other.py"}
    said = subprocess.run([sys.executable, tmp_path / "tools/one/one.py"], check=True, capture_output=True, text=True)
    assert said.stdout == "three\n"


def test_a_comment_changes_nothing(source: Path, tmp_path: Path) -> None:
    """Whoever explains a tool better repeats no step of a build."""
    before = bundle(source, tmp_path / "before")
    (source / "three.py").write_text("# Why.\nNAME = 'three'\n\n# The end.\n")
    assert bundle(source, tmp_path / "after") == before
    (source / "three.py").write_text("NAME = 'four'\n")
    assert bundle(source, tmp_path / "changed") != before


def test_every_tool_runs_from_its_folder(tmp_path: Path) -> None:
    """No tool misses a module of its own where the steps find it."""
    bundle(SOURCE, tmp_path / "tools")
    for tool in sorted(path.stem for path in SOURCE.glob("*.py")):
        code = f"import sys; sys.path[:0] = [{str(tmp_path / 'tools' / tool)!r}]; import {tool}"
        subprocess.run([sys.executable, "-c", code], check=True)
