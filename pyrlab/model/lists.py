"""The user's package lists: one name a line, `#` starts a comment, blank lines and order do not matter."""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pyrlab.model.problem import Problem

LETTERS = string.ascii_lowercase + string.digits + "+-._"  # of names
LONG = 6  # letters of a name that has no other names near by


@dataclass(frozen=True)
class Line:
    """One package that a list asks for, and where."""

    text: str
    list: str
    number: int


def content(path: Path) -> str:
    """The text of the list at `path`, or stop where it is in another encoding."""
    try:
        # What only looks like a blank, as on a web page, is one.
        return re.sub("[\u00a0\u202f\u200b\ufeff]", " ", path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise Problem("not UTF-8; save the list as text in UTF-8", f"{path.name} line {number}") from None


def read(path: Path) -> list[Line]:
    """The packages that the list at `path` asks for."""
    texts = [without_comment(raw).strip() for raw in content(path).split("\n")]
    return [Line(text, path.name, number) for number, text in enumerate(texts, start=1) if text]


def without_comment(line: str) -> str:
    """A line without what follows a #."""
    return re.sub(r"(^|\s)#.*", "", line)


def place(lines: Collection[Line]) -> str:
    """Where some lines are, as in `requirements.txt lines 4 and 7`, at most five of each list."""
    found: dict[str, list[int]] = {}
    for line in lines:
        if line.number not in found.setdefault(line.list, []):
            found[line.list].append(line.number)
    return " and ".join(f"{name} line{'s' if numbers[1:] else ''} {listed(numbers)}" for name, numbers in found.items())


def listed(numbers: list[int]) -> str:
    """Some numbers as one says them, the first five of many."""
    if numbers[2:] and numbers == [*range(numbers[0], numbers[-1] + 1)]:
        return f"{numbers[0]} to {numbers[-1]}"
    *shown, last = map(str, numbers)
    if len(shown) > 5:
        shown, last = shown[:5], f"{len(numbers) - 5} more"
    return f"{', '.join(shown)} and {last}" if shown else last


@dataclass
class Problems:
    """All that is wrong with some lists, to be said at once: each problem with the lines that have it."""

    found: dict[str, list[Line]] = field(default_factory=dict)

    def note(self, problem: str, *lines: Line) -> None:
        """Note a problem of some lines."""
        self.found.setdefault(problem, []).extend(lines)

    def stop(self) -> None:
        """Stop with a sentence for each problem, if there is any."""
        if self.found:
            found = sorted(self.found.items(), key=lambda item: (item[1][0].list, item[1][0].number))
            raise Problem.of(Problem(problem, place(lines)) for problem, lines in found)


def suggestion(name: str, known: Iterable[str]) -> str:
    """The question whether that one of the `known` names was meant of which `name` is a slip, if there is just one.

    Two letters that changed places are one in a name of any length; a letter too many, too few or another one only in
    a long name, and not as its first: other short names are too near.
    """
    by_lower = {other.lower(): other for other in known}
    lower = name.lower()
    splits = [(lower[:i], lower[i:]) for i in range(len(lower) + 1)]
    swapped = {a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1}
    slips = {a + b[1:] for a, b in splits if a and b} | {a + letter + b for a, b in splits if a for letter in LETTERS}
    slips |= {a + letter + b[1:] for a, b in splits if a and b for letter in LETTERS if not (letter + b[0]).isdigit()}
    for near in ({lower}, swapped, slips if len(lower) >= LONG else set()):
        if found := near & by_lower.keys():
            return f"; did you mean {by_lower[found.pop()]}?" if len(found) == 1 else ""
    return ""
