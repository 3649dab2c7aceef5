"""What people type: each folder of cases/ has what a user has beside the Makefile, and what make prints.

A folder holds whole lists, or NAME.append.txt and NAME.prepend.txt for the tiny lists; whatever else it has is copied
into the checkout. `expected` is a transcript: after `$ COMMAND`, or `$ ! COMMAND` for one that fails, stands all that
it prints, but for the progress of a build and make's own words; `...` stands for anything. The script `verify`, if
there, must then succeed in the checkout.
"""

from __future__ import annotations

import doctest
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import ROOT, TINY, run_shell, state, tagged
from pyrlab import bake, progress

CASES = sorted((ROOT / "tests/tiny/cases").iterdir())
STEPS = "|".join([bake.WAITING, *(words for _, words in progress.STEPS)])
PROGRESS = rf"^(make: \*\*\*.*|\S+ +({STEPS}))\n"
OWN = {"expected", "verify"}  # not copied


def lay_out(case: Path, checkout: Path) -> None:
    """Put what a case has into a checkout."""
    for path in case.iterdir():
        name, _, where = path.name.removesuffix(".txt").rpartition(".")
        if where in ("append", "prepend"):
            given = checkout / f"{name}.txt"
            parts = [given.read_text(), path.read_text()]
            given.write_text("".join(parts if where == "append" else reversed(parts)))
        elif path.is_dir():
            shutil.copytree(path, checkout / path.name, dirs_exist_ok=True)
        elif path.name not in OWN:
            shutil.copy2(path, checkout)


def steps(transcript: str) -> Iterator[tuple[str, str]]:
    """The commands of a transcript, each with what it prints."""
    for step in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
        command, _, output = step.partition("\n")
        yield command, output


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Path, checkout: Path) -> None:
    """Make prints what is expected, and nothing else; where it only refuses, the images stay what they were."""
    tag = f"{TINY}-{case.name}"
    lay_out(case, checkout)
    transcript = [*steps((case / "expected").read_text())]
    with tagged(tag):
        before = state(tag)
        for command, output in transcript:
            run = run_shell(checkout, command, TAG=tag, BASE="debian")
            printed = re.sub(PROGRESS, "", run.stdout, flags=re.MULTILINE)
            assert doctest.OutputChecker().check_output(output, printed, doctest.ELLIPSIS), f"$ {command}\n{printed}"
            assert run.returncode == 0, f"{command} ended with {run.returncode}"
        if all(command.startswith("! ") for command, _ in transcript):
            assert state(tag) == before
        if (case / "verify").exists():
            verified = run_shell(checkout, str(case / "verify"), TAG=tag)
            assert verified.returncode == 0, verified.stdout
