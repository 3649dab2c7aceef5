"""The lists of a checkout, and the files of it that Python lists as requirements.txt point at."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyrlab.model.images import List, Table
from pyrlab.model.lists import without_comment
from pyrlab.model.problem import Problem

# The options that a list of Python packages may have, as pip names them.
OPTIONS = argparse.ArgumentParser(
    add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS, exit_on_error=False
)
for names in (
    ("-r", "--requirement"),
    ("-c", "--constraint"),
    ("-e", "--editable"),
    ("-i", "--pypi-url", "--index-url"),
    ("--extra-index-url",),
    ("-f", "--find-links"),
    ("--trusted-host",),
    ("--no-binary",),
    ("--only-binary",),
):
    OPTIONS.add_argument(*names, dest=names[-1], action="append")
for name in ("--pre", "--require-hashes"):
    OPTIONS.add_argument(name, dest=name, action="append_const", const=True)

WHEEL = re.compile(r"\s*(?:[^\s@]+\s*@\s*(?:file:|(?=\.)))?(?!\w+:)([^\s;@]+?\.whl)\b")


@dataclass(frozen=True)
class Checkout:
    """The lists in the folder `root`, which `table` names."""

    root: Path
    table: Table

    def check(self) -> None:
        """Raise Problem where a list is missing."""
        for path in self.table.files:
            if not (self.root / path).is_file():
                raise Problem(f"the list {path} is missing; an empty file is a valid list")

    @property
    def own(self) -> list[str]:
        """The user's lists of Python packages."""
        return [each.file for each in of_python(self.table.lists) if not each.file.startswith("docker/pyrlab-base/")]

    def has(self, path: str) -> bool:
        """Whether there is such a file in the checkout, named by its place there."""
        place = (self.root / path).resolve()
        return not Path(path).is_absolute() and place.is_file() and place.is_relative_to(self.root.resolve())

    def texts(self, path: str, constraints: bool = True) -> dict[str, str]:
        """The text of the list `path` and of those it points at, by their place; `constraints` ask for no package."""
        kinds = ("--requirement", "--constraint") if constraints else ("--requirement",)
        found: dict[str, str] = {}
        pending = [path]
        while pending:
            name = pending.pop(0)
            there = (self.root / name).is_file() if name == path else self.has(name)  # a list may be a link
            if name in found or not there:  # what is wrong with such a line, the build says
                continue
            text = (self.root / name).read_text(encoding="utf-8", errors="surrogateescape")
            found[name] = text.removeprefix("\ufeff")
            for line in found[name].splitlines():
                try:
                    words = shlex.split(without_comment(line))
                    options = vars(OPTIONS.parse_known_args(words if words[:1] and words[0].startswith("-") else [])[0])
                except (ValueError, argparse.ArgumentError):
                    continue
                others = [other for kind in kinds for other in options.get(kind, ())]
                pending += [os.path.normpath(Path(name).parent / other) for other in others]
        return found

    def wheels(self, path: str) -> list[str]:
        """The wheels in the checkout that a list names, by their path."""
        lines = (line for text in self.texts(path, constraints=False).values() for line in text.splitlines())
        named = (WHEEL.match(without_comment(line)) for line in lines)
        return sorted({os.path.normpath(found[1]) for found in named if found and self.has(found[1])})

    def stage(self, folder: Path) -> None:
        """Put all lists where a step finds them: in the folder python Python's, with what they point at."""
        own = self.own
        for path in own:
            write(self.texts(path), folder / "python")
            for wheel in self.wheels(path):
                self.copy(wheel, folder / "python" / wheel)
        python = [each.file for each in of_python(self.table.lists)]
        for path in (path for path in self.table.files if path not in own):
            self.copy(path, folder / ("python" if path in python else "") / path)

    def stage_asked(self, image: str, folder: Path) -> None:
        """Put the lists of an image and of those that it starts from into a folder for each ecosystem."""
        for each in (each for member in self.table.lineage(image) for each in member.lists):
            for path in each.files:
                if path in self.own:
                    write(self.texts(path, constraints=False), folder / each.ecosystem)
                else:
                    self.copy(path, folder / each.ecosystem / path.removeprefix("docker/"))

    def copy(self, path: str, target: Path) -> None:
        """Copy a file, and make the folders that it goes to."""
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.root / path, target)

    def wanted(self, lock: str) -> list[str]:
        """What the lists of a lock, and the files that they point at, ask for now."""
        found: list[str] = []
        for path in self.table.files_of(lock):
            if path in self.own:
                for other, text in self.texts(path).items():
                    found += [] if other == path else [f"in {other}"]
                    found += stripped(without_passwords(text))
                for wheel in self.wheels(path):
                    found.append(f"{wheel} {hashlib.sha256((self.root / wheel).read_bytes()).hexdigest()}")
            else:
                found += stripped((self.root / path).read_text(errors="replace"))
        return found


def of_python(some: Iterable[List]) -> list[List]:
    """Those of some lists that are of Python packages."""
    return [each for each in some if each.ecosystem == "Python"]


def stripped(text: str) -> list[str]:
    """The lines of a list's text, sorted: comments, blanks and order make no difference."""
    lines = (without_comment(line).strip() for line in text.splitlines())
    return sorted(line for line in lines if line)


def write(texts: dict[str, str], folder: Path) -> None:
    """Write lists into a folder, each at its place, without passwords."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(without_passwords(text), encoding="utf-8", errors="surrogateescape")


def without_passwords(text: str) -> str:
    """A list's text in which no address has a user and a password."""
    return re.sub(r"(?<=[a-z]://)(?<!ssh://)[^/\s]+@", "", text, flags=re.IGNORECASE)
