"""What every host runs keeps to GNU make 3.81 and bash 3.2, which macOS has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from checkout import ROOT

# What came later, by the words it is written with.
MAKE = {
    "special targets": r"\.(ONESHELL|SHELLFLAGS|SHELLSTATUS|RECIPEPREFIX|EXTRA_PREREQS|NOTINTERMEDIATE|WAIT)\b",
    "directives": r"(?m)^ *(private|undefine|load)\b",
    "functions": r"\$[({](file|guile|let|intcmp) ",
    "assignments": r"(?m)^[\w ]+(::=|:::=|!=)|&:",
    "two modifiers of a variable": r"\b(export|override|private) +(export|override|private|define)\b",
}
BASH = {
    "builtins": r"(?m)(^|[;&|(] *)(mapfile|readarray|coproc)\b|\bwait -n\b|\bread -[iN]\b|%\([^)]*\)T",
    "kinds of variables": r"\b(declare|local|typeset|readonly) +-[a-zA-Z]*[Agnul]",
    "expansions": r"\$\{[\w@*\[\]]+(\^|,|@[A-Za-z]\})|\$\{\w+\[-\d",
    "redirections": r"&>>|\|&|(?<!\$)\{\w+\}[<>]",
    "cases": r";;?&(?!&)",
    "tests": r"\[\[? -[vR] ",
    "options and variables": r"\b(globstar|lastpipe|inherit_errexit|BASHPID|EPOCHSECONDS|EPOCHREALTIME|SRANDOM)\b",
}
SCRIPTS = [*sorted((ROOT / "pyrlab").glob("*.sh")), *sorted((ROOT / "tests").glob("*.sh"))]


def later(path: Path, features: dict[str, str]) -> list[str]:
    """The lines of a file that have something that came later."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    return [f"{name}: {line}" for name, words in features.items() for line in lines if re.search(words, line)]


def test_make() -> None:
    """Make of macOS reads the Makefile as it is meant."""
    assert later(ROOT / "Makefile", MAKE) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash(script: Path) -> None:
    """Bash of macOS reads a script as it is meant."""
    assert later(script, BASH) == []
