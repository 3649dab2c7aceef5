"""The user's package lists: one name a line, `#` starts a comment, blank lines and order do not matter."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


@dataclass(frozen=True)
class Line:
    """One package that a list asks for, and where."""

    text: str
    list: str
    number: int


def read(path: Path) -> list[Line]:
    """The packages that the list at `path` asks for."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        sys.exit(f"pyrlab: {path.name} line {number}: not UTF-8; save the list as text in UTF-8")
    lines = []
    for number, raw in enumerate(content.split("\n"), start=1):
        text = re.sub(r"(^|\s)#.*", "", raw).strip()
        if text:
            lines.append(Line(text, path.name, number))
    return lines


def fail(line: Line, problem: str, known: Collection[str] = ()) -> NoReturn:
    """Stop the build with one sentence: list, line, what is wrong, and the nearest of the `known` names."""
    near = difflib.get_close_matches(line.text, known, n=1, cutoff=0.75)
    hint = f"; did you mean {near[0]}?" if near else ""
    sys.exit(f"pyrlab: {line.list} line {line.number}: {problem}{hint}")
