"""What people type: each folder of a lane's cases/ has what a user has beside the Makefile, and what make prints.

A folder holds whole lists, or NAME.append.txt and NAME.prepend.txt for the tiny lists; whatever else it has is copied
into the checkout. `expected` is a transcript: after `$ COMMAND`, or `$ ! COMMAND` for one that fails, stands all that
it prints, but for the progress of a build and make's own words; `...` stands for anything. The script `verify`, if
there, must then succeed in the checkout. A folder whose name is that of a wheel becomes one. What is in `served` is
served at the address that all files call ADDRESS; what is below `served/private`, for the user `reader` with the
password `canary-password` only.
"""

from __future__ import annotations

import doctest
import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from checkout import ROOT, TINY, run_shell, state, tagged
from pyrlab.host import bake, progress
from servers import serve_files, zip_wheel

TOOLS = "".join(path.read_text() for path in (ROOT / "pyrlab").rglob("*.py"))
PHASES = re.findall(r'events\.step\("([^"]+)"\)', TOOLS)
STEPS = "|".join([f"{bake.WAITING} .*", *(words for _, words in progress.STEPS), *PHASES])
PROGRESS = rf"^(make: \*\*\*.*|\S+ +({STEPS}))\n"
OWN = {"expected", "verify", "served"}  # not copied
PRIVATE = "reader:canary-password"


def each(module: str) -> pytest.MarkDecorator:
    """Let a test be called with each folder of the cases/ beside its module, by its name."""
    found = sorted((Path(module).parent / "cases").iterdir())
    return pytest.mark.parametrize("case", found, ids=[case.name for case in found])


def lay_out(case: Path, checkout: Path, address: str) -> None:
    """Put what a case has into a checkout."""
    for path in case.iterdir():
        name, _, where = path.name.removesuffix(".txt").rpartition(".")
        if where in ("append", "prepend"):
            given = checkout / f"{name}.txt"
            parts = [given.read_text(), path.read_text().replace("ADDRESS", address)]
            given.write_text("".join(parts if where == "append" else reversed(parts)))
        elif path.name not in OWN:
            copy(path, checkout / path.name, address)


def copy(source: Path, target: Path, address: str = "") -> None:
    """Copy a file, or a folder and in it make wheels of what is called so."""
    if source.suffix == ".whl":
        zip_wheel(source, target)
    elif source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            copy(path, target / path.name, address)
    elif source.suffix == ".txt":
        target.write_text(source.read_text().replace("ADDRESS", address))
    else:
        shutil.copy2(source, target)


def steps(transcript: str) -> Iterator[tuple[str, str]]:
    """The commands of a transcript, each with what it prints."""
    for step in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
        command, _, output = step.partition("\n")
        yield command, output


def play(case: Path, checkout: Path, tmp_path: Path, gateway: str) -> None:
    """Make prints what is expected, and nothing else; where it only refuses, the images stay what they were."""
    transcript = [*steps((case / "expected").read_text())]
    builds = any(re.search(r"make (build|upgrade|start)", command) for command, _ in transcript)
    tag = f"{TINY}-{case.name}" if builds else TINY
    served = tmp_path / "served"
    served.mkdir()
    for path in (case / "served").glob("*"):
        copy(path, served / path.name)
    with tagged(tag) if builds else nullcontext(), serve_files(served, gateway, private=PRIVATE) as server:
        address = server.url.removeprefix("http://")
        lay_out(case, checkout, address)
        before = state(tag)
        for command, output in transcript:
            run = run_shell(checkout, command.replace("ADDRESS", address), TAG=tag, BASE="debian")
            printed = re.sub(PROGRESS, "", run.stdout, flags=re.MULTILINE).replace(address, "ADDRESS")
            assert doctest.OutputChecker().check_output(output, printed, doctest.ELLIPSIS), f"$ {command}\n{printed}"
            assert run.returncode == 0, f"{command} ended with {run.returncode}"
        if all(command.startswith("! ") for command, _ in transcript if "make" in command):
            assert state(tag) == before
        if (case / "verify").exists():
            verified = run_shell(checkout, str(case / "verify"), TAG=tag, ADDRESS=address)
            assert verified.returncode == 0, verified.stdout
