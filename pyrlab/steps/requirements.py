"""What the lists of Python packages ask for: lines, options and files that they point at, read as pip reads them."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from pyrlab.model import lists
from pyrlab.model.checkout import OPTIONS
from pyrlab.model.lists import Line, Problems

BUILD_A_WHEEL = "build a wheel of it (pip wheel --no-deps --wheel-dir wheels FOLDER) and name that: ./wheels/NAME.whl"
INDEXES = ("--index-url", "--extra-index-url", "--find-links")
ARCHIVE = r"\.(whl|zip|tar|tar\.\w+|t[bglx]z)$"  # at the end of an address: what uv installs from
FOREIGN = {  # how other files begin that are taken for a list
    r"Package\s+Version\b|-+ -+": "a table for people",
    r"(name|channels|dependencies):( |$)": "an environment of conda",
    r"\[+[\w.-]+\]+$": "a file in TOML",
}


@dataclass(frozen=True)
class Package:
    """A package that a line asks for, in a form that uv understands whatever folder it is in."""

    line: Line
    name: str  # canonical; empty of an address that does not tell
    text: str
    marker: Marker | None = None
    hashes: frozenset[str] = frozenset()
    limits: bool = False  # which versions will do


@dataclass
class Demands:
    """What the Python lists ask for, together."""

    root: Path  # the folder that stands for the checkout
    packages: list[Package] = field(default_factory=list)
    constraints: list[Package] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)
    indexes: dict[str, Line] = field(default_factory=dict)  # of the options, where each is named
    problems: Problems = field(default_factory=Problems)
    seen: set[Path] = field(default_factory=set)

    def read(self, path: Path, constrains: bool = False) -> None:
        """Take in a list, and the lists that it points at."""
        if path in self.seen:
            return
        self.seen.add(path)
        lines = [*logical_lines(path, str(path.relative_to(self.root)))]
        for pattern, what in FOREIGN.items():
            if found := next((line for line in lines if re.match(pattern, line.text)), None):
                rest = lines[lines.index(found) :]
                self.problems.note(f"this is {what}; pip list --format=freeze prints what can stand in a list", *rest)
                lines = lines[: -len(rest)]
        for line in lines:
            with self.noting(line):
                if variable := re.search(r"\$\{[A-Z0-9_]+\}", line.text):
                    may = "is filled in only as user or password of an address; write out what it stands for"
                    raise ValueError(f"{variable[0]} {may}")
                if re.match(r"-\S", line.text):
                    self.option(line, constrains)
                else:
                    packages = self.constraints if constrains else self.packages
                    packages.append(self.package(line))

    @contextmanager
    def noting(self, line: Line) -> Iterator[None]:
        """Note the ValueError that says what is wrong with a line."""
        try:
            yield
        except ValueError as problem:
            self.problems.note(str(problem), line)

    def option(self, line: Line, constrains: bool) -> None:
        """Take in a line of options; raises ValueError with what is wrong with it as a whole."""
        try:
            options, unknown = OPTIONS.parse_known_args(shlex.split(line.text))
        except (argparse.ArgumentError, ValueError) as error:
            reason = str(error).rpartition(": ")[2].lower()
            raise ValueError(f"'{line.text}' cannot be read: {reason}") from None
        if unknown:
            raise ValueError(f"pyrlab does not know the option '{line.text}'; take it out")
        for name, value in [(name, value) for name, values in vars(options).items() for value in values]:
            with self.noting(line):
                if name in ("--requirement", "--constraint"):
                    self.include(line, value, constrains or name == "--constraint")
                elif name == "--editable":
                    mend = "write it without the -e" if re.match(r"\w+\+\w+://", value) else BUILD_A_WHEEL
                    raise ValueError(f"'{line.text}' would be a link to a folder that no image has; {mend}")
                elif name == "--no-binary" and value.startswith(":"):
                    raise ValueError(f"'{line.text}': this would compile all of JupyterLab, too; name the packages")
                elif name in INDEXES and not re.match(r"https?://", value):
                    may = "an address that begins with http:// or https://; a wheel can be named as ./NAME.whl"
                    raise ValueError(f"'{line.text}': an index must have {may}")
                elif name == "--index-url":  # of several, pip takes the last
                    self.options[name], self.indexes = [value], self.indexes | {value: line}
                else:
                    self.options.setdefault(name, []).append(value)
                    self.indexes |= {value: line} if name in INDEXES else {}

    def include(self, line: Line, name: str, constrains: bool) -> None:
        """Take in another list; raises ValueError where there is none."""
        if re.match(r"\w+://", name):
            raise ValueError(f"pyrlab reads lists of this folder only; save {name} here and name the file")
        self.read(self.located(Path(line.list).parent / name, name), constrains)

    def located(self, path: Path | str, said: str) -> Path:
        """A file of the checkout, of which a list has `said` where it is; raises ValueError where it is not."""
        path = Path(os.path.normpath(self.root / path))
        if not path.is_relative_to(self.root):
            elsewhere = "of which images are made; copy it here if it is elsewhere"
            raise ValueError(f"{said} is no place in this folder, {elsewhere}")
        if not path.is_file():
            raise ValueError(f"there is no file {path.relative_to(self.root)}")
        return path

    def package(self, line: Line) -> Package:
        """The package that a line asks for; raises ValueError with what is wrong with it."""
        command = re.search(r"\sinstall\s", line.text)
        text, *options = [line.text] if command else re.split(r"\s(?=--)", line.text)
        found = [re.fullmatch(r"\s*--hash[= ](sha256:[0-9a-f]{64})\s*", option) for option in options]
        if None in found:
            may = "of options a package may have --hash=sha256: and 64 hexadecimal digits"
            raise ValueError(f"'{options[found.index(None)].strip()}' is not supported here; {may}")
        text, hashes = text.strip(), frozenset(match[1] for match in found if match)
        page = re.match(r"(?:[^@;/]+@\s*)?(https?://[^\s;#?]+)", text)
        if page and not re.search(ARCHIVE, page[1]):
            right = "a name alone is found in the index, and a git repository is written as NAME @ git+https://…"
            raise ValueError(f"{page[1]} is the address of a page, and of no file of a package; {right}")
        if re.match(r"(\w+\+)?\w+://", text) and not text.startswith("file:"):  # an address alone
            named = re.search(r"[#&]egg=([\w.-]+)|/([\w.]+)-[^/]*\.whl", text)
            if hashes and not named:
                raise ValueError(f"{text} does not say of which package the --hash is; write NAME @ {text}")
            return Package(line, canonicalize_name(named[1] or named[2]) if named else "", text, None, hashes)
        address, _, condition = text.partition(";")
        here = re.search(r"@\s*(file:|\.)", address)
        name, at, place = address.strip().rpartition("@") if here else ("", "", address)
        try:
            if at or (re.search(r"^[./~]|[\\/]|\.whl\b|\.tar\.gz$|^file:", place.strip()) and " @ " not in address):
                return self.file(line, name, place.strip().removeprefix("file:"), condition, hashes)
            need = Requirement(text)
        except (InvalidMarker, InvalidRequirement):
            raise ValueError(f"'{text}' is not a requirement pip would understand{meant(text)}") from None
        if need.url and "://" not in need.url:
            raise ValueError(f"'{text}' has no address after the @; did you mean {need.name}=={need.url}?")
        limits = bool(need.specifier or need.url)
        return Package(line, canonicalize_name(need.name), str(need), need.marker, hashes, limits)

    def file(self, line: Line, name: str, place: str, condition: str, hashes: frozenset[str]) -> Package:
        """The wheel in the checkout that a line names; raises ValueError for whatever else it names."""
        found = re.fullmatch(r"(.*?\.whl)(\[[\w., -]*\])?", place)
        if re.match(r"[/~]|\w:[\\/]", place):
            instead = "there, pip list --format=freeze prints the names and versions instead"
            raise ValueError(f"a file of the machine where the list was written is on no other; {instead}")
        if not found:
            raise ValueError(f"'{line.text}' is not a package yet, but the source of one; {BUILD_A_WHEEL}")
        path = self.located(found[1], place)
        try:
            own, *_ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            raise ValueError(f"{path.name} is no name of a wheel; leave it as it was built") from None
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{place} is no wheel, or an incomplete one; copy it here again")
        name = f"{own}{found[2] or ''}" if not name else name.strip()
        text = f"{name} @ file://{path}" + (f" ;{condition}" if condition else "")
        return Package(line, own, text, Marker(condition) if condition else None, hashes)


def logical_lines(path: Path, name: str) -> Iterator[Line]:
    """The lines of a list without comments and blank ones; what ends in a backslash goes on in the next, as in pip."""
    parts: list[str] = []
    first = 1
    for number, raw in enumerate([*lists.content(path).split("\n"), ""], start=1):
        comment = re.match(r"\s*#", raw)
        if not parts:
            first = number
        if raw.endswith("\\") and not comment:
            parts.append(raw.rstrip("\\"))
            continue
        text = lists.without_comment("".join([*parts, f" {raw}" if comment else raw])).strip()
        parts = []
        if text:
            yield Line(text, name, first)


def meant(text: str) -> str:
    """What a line is likely to mean that is no requirement, if anything is."""
    if re.search(r"\bapt(-get)?\s", text):
        return "; Debian packages go into base_debs.txt"
    unquoted = re.split(r"^.*?\b(?:install|add)\s+|^[-*]\s+", text)[-1]
    unquoted = re.sub(r"(?<!\S)-\S+\s+|[\"'“”,;]+\s*$|^[\"'“”]", "", unquoted).strip()
    for pattern, right in (
        ("", ""),
        (r"\s*=([<>])\s*", r"\1="),
        (r"^([\w.-]+)==?([\w.!+]+)(=[\w.]+)?$", r"\1==\2"),  # as conda writes it
        (r"(?<![=<>!~])([=~])(?!=)", r"\1="),
        (r"^([\w.-]+)\s+v?(\d[\w.+!]*)$", r"\1==\2"),
    ):
        guess = re.sub(pattern, right, unquoted)
        if guess == text:
            continue
        try:
            Requirement(guess)
        except InvalidRequirement:
            continue
        return f"; did you mean {guess}?"
    return "; one package a line" if re.fullmatch(r"[\w.-]+(\s+[\w.-]+)+", unquoted) else ""
