"""What every host runs keeps to GNU make 3.81 and bash 3.2, which macOS has.

Neither can be had where the tests run: their archives have later ones only. So this looks for what came later or works
otherwise, as the NEWS of make and the NEWS and COMPAT of bash have it: an example of each, and what tells it.
"""

from __future__ import annotations

import re
from pathlib import Path

from checkout import ROOT

MAKE = {
    ".ONESHELL:": r"\.(ONESHELL|SHELLFLAGS|SHELLSTATUS|RECIPEPREFIX|EXTRA_PREREQS|NOTINTERMEDIATE|WAIT|LOADED)\b",
    "$(MAKE_HOST)": r"\b(MAKE_HOST|MAKE_TERMOUT|MAKE_TERMERR|GNUMAKEFLAGS)\b",
    "undefine NAME": r"^ *-?(private|undefine|load)\b",
    "$(file >name,text)": r"\$[({](file|guile|let|intcmp) ",
    "NAME != command": r"^[\w $(){}]+(::=|:::=|!=)",
    "one two &: three": r"&:",
    "define NAME =": r"\bdefine +\S+ *[:+?!]*=",
    "override export NAME = value": r"\b(export|override|private) +(export|override|private|define)\b",
    "$(shell echo '#')": r"\$[({][^(){}]*#[^(){}]*[)}]",  # before 4.3 a comment begins there
    "$(MAKE) --output-sync": r"\$\(MAKE\).* (-[OE]|--(output-sync|eval|trace|no-silent|shuffle))\b",
}
BASH = {
    "mapfile -t lines": r"(^|[;&|({]|\b(then|do|else)\b) *(mapfile|readarray|coproc)\b",
    "wait -n": r"\bwait -[np]\b",
    "read -r -N 1 key": r"\bread\b.* -[a-zA-Z]*[iN]\b",
    "read -t 0.5 answer": r"\bread\b.* -t *\d*\.\d",
    "printf '%(%F)T'": r"%[-\d]*\([^)]*\)T",
    "printf -v 'names[0]' one": r"\bprintf -v '?\w+\[",
    "declare -A names": r"\b(declare|local|typeset|readonly) +-[a-zA-Z]*[AgnulcI]",
    "local -; set +e": r"\blocal -(?!\w)",
    "${name^^}": r"\$\{!?[\w@*\[\]]+(\^|,|@[A-Za-z]\})",
    "${name:1:-1}": r"\$\{\w+:[^}]*: *-\d",
    "${names[-1]}": r"\w\[-\d+\]",
    "{01..10}": r"\{0\d+\.\.|\{\w+\.\.\w+\.\.",
    "exec {number}>file": r"(?<!\$)\{\w+\}[<>]",
    "command &>>file": r"&>>|\|&",
    "one) command ;&": r";;?&(?!&)",
    "[ ! -v name ]": r"(\[|\btest) +(! +)?-[vR] ",
    r"$'\u00e9'": r"\$'[^']*\\[uU]",
    "shopt -s globstar": r"\b(globstar|lastpipe|inherit_errexit|autocd|globskipdots|patsub_replacement)\b",
    "$BASHPID": r"\b(BASHPID|BASHOPTS|BASH_COMPAT|BASH_XTRACEFD|EPOCHSECONDS|EPOCHREALTIME|FUNCNEST|SRANDOM)\b",
    "[[ $name = one ]]": r"^ *(\[\[ .* \]\]|\(\( .* \)\))$",  # set -e passes over it
    "name=$(case one in one) echo two ;; esac)": r"\$\([^()]*\bcase\b",  # its first ) ends the $(
}


def later(path: Path, features: dict[str, str]) -> list[str]:
    """The lines of a file that have one of the features."""
    assert [example for example, form in features.items() if not re.search(form, example)] == []
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    return [line for form in features.values() for line in lines if re.search(form, line)]


def test_make() -> None:
    """Make of macOS reads the Makefile as it is meant."""
    assert later(ROOT / "Makefile", MAKE) == []


def test_bash() -> None:
    """Bash of macOS reads each script as it is meant; with set -u it takes an empty array for one that is not set."""
    for script in [*ROOT.glob("pyrlab/**/*.sh"), *ROOT.glob("tests/*.sh")]:
        assert later(script, BASH) == [], script.name
        text = script.read_text()
        empty = re.findall(r"\b(\w+)=\(\)", text)
        assert [name for name in empty if f"${{#{name}[@]}}" not in text] == [], script.name
