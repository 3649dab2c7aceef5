"""A checkout and a PATH of a test's own: make, and what a machine may lack, have twice or have too old."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from checkout import ROOT, Run, users_environment

PARTS = (
    "Makefile",
    "compose.yaml",
    "docker",
    "images.toml",
    "notebooks",
    "pyrlab",
    "tests/venv.sh",
    "tests/requirements.txt",
)
TOOLS = ("bash", "env", "git", "make", "sh")


def copy_parts(copy: Path) -> Path:
    """What it takes to type make in a checkout, and to be refused."""
    for part in PARTS:
        (copy / part).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, copy / part)
    return copy


def make_path(folder: Path, *tools: str) -> Path:
    """A folder for PATH that has the tools that every host has, and some more."""
    folder.mkdir()
    for tool in (*TOOLS, *tools):
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    (folder / "python3").symlink_to(sys.executable)
    return folder


def write_script(path: Path, text: str) -> None:
    """Put a program of a test's own somewhere."""
    path.write_text(text)
    path.chmod(0o755)


def type_make(checkout: Path, *words: str, **environment: str) -> Run:
    """Type `make WORD …` in a checkout, with this in the environment and nobody to answer questions."""
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=checkout,
        env={**users_environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def files_of(folder: Path) -> set[str]:
    """Whatever is in a folder."""
    return {os.path.relpath(path, folder) for path in folder.rglob("*") if "__pycache__" not in path.parts}
