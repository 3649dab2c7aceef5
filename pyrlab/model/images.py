"""The table of lists and images, images.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from pyrlab.model.problem import Problem

FILE = "images.toml"
BUDGET = 100  # layers of an image: engines take 127, and who builds upon it needs some
OWN = 2  # layers that an image has besides those of its lists
LEAST = {"Debian": 2, "Python": 1, "R": 4}  # layers, by ecosystem: one is dpkg's state, and most of R's are Debian's
NAME = r"[a-z0-9]+([_-][a-z0-9]+)*"  # of an image, as engines have it, and without a point, as TOML has its keys
# What make does besides: no image can be called so.
TARGETS = (
    *("help", "doctor", "engine", "engine-ready", "build", "build_base", "build_rbase", "stop", "list", "lock"),
    *("outdated", "upgrade", "manifest", "diff", "sbom", "tunnel", "proxies", "stop_proxies", "test", "check", "prove"),
    *("lint", "bench", "clean"),
)
TABLES: dict[str, dict[str, type]] = {
    "lists": {"file": str, "ecosystem": str, "layers": int, "lock": str, "besides": str},
    "images": {"lists": list, "parent": str, "port": str, "default": bool},
}
NEEDED = ("file", "ecosystem", "layers", "lists")
WORDS = {str: "text in quotation marks", int: "a number", bool: "true or false", list: "names in brackets"}


@dataclass(frozen=True)
class List:
    """A list of packages of one ecosystem, which an image may have."""

    name: str
    file: str
    ecosystem: str
    layers: int
    lock: str = ""  # the name of the lock that has its packages; its own where none is given
    besides: str = ""  # a list of pyrlab's own, of what is needed whatever the user's says

    @property
    def section(self) -> str:
        """Where its packages stand in a lock of Python's, which may have those of several lists."""
        return f"{self.ecosystem}.{self.name}"

    @property
    def files(self) -> list[str]:
        """All files that it consists of."""
        return [path for path in (self.besides, self.file) if path]


@dataclass(frozen=True)
class Image:
    """An image: what it starts from, the lists of what it has besides, and where it listens if it is a lab."""

    name: str
    lists: tuple[List, ...]
    parent: str = ""
    port: str = ""  # the parameter
    default: bool = True  # whether it is built where no image is named


class Table(dict[str, Image]):
    """The images by name, parents first."""

    def lineage(self, name: str) -> list[Image]:
        """The images that an image starts from, and itself, parents first."""
        image = self[name]
        return [*(self.lineage(image.parent) if image.parent else []), image]

    @property
    def labs(self) -> dict[str, str]:
        """The labs, with the parameter of each that says where it listens."""
        return {image.name: image.port for image in self.values() if image.port}

    @property
    def lists(self) -> list[List]:
        """The lists that images have, each after those of the images below."""
        return [*dict.fromkeys(each for image in self.values() for each in image.lists)]

    @property
    def files(self) -> list[str]:
        """The files of all lists."""
        return [*dict.fromkeys(path for each in self.lists for path in each.files)]

    @property
    def locks(self) -> dict[str, tuple[List, ...]]:
        """The lists whose packages are in each lock, each lock after those that it rests on."""
        names = dict.fromkeys(each.lock for each in self.lists)
        return {name: tuple(each for each in self.lists if each.lock == name) for name in names}

    def files_of(self, lock: str) -> list[str]:
        """The files of these lists."""
        return [path for each in self.locks[lock] for path in each.files]

    def owner(self, each: List) -> Image:
        """The image with which a list is resolved: the first that has it."""
        return next(image for image in self.values() if each in image.lists)

    def rests_on(self, lock: str) -> list[str]:
        """The locks of what the image's parents have already, of the same ecosystem, and for R of Debian's."""
        last = self.locks[lock][-1]
        kind = "Debian" if last.ecosystem == "R" else last.ecosystem
        there = [each for image in self.lineage(self.owner(last).name) for each in image.lists]
        return [*dict.fromkeys(each.lock for each in there if each.ecosystem == kind and each.lock != lock)]


def read(content: bytes) -> Table:
    """The images that a file describes; raises Problem with the line of what cannot be right."""
    text, tables = parsed(content)
    for kind, keys in TABLES.items():
        for name, entry in tables[kind].items():
            check_keys(text, f"{kind}.{name}", entry, keys)
    lists = {name: List(**{"name": name, "lock": name, **entry}) for name, entry in tables["lists"].items()}
    for each in lists.values():
        if problem := wrong_list(each, lists):
            raise refusal(text, f"lists.{each.name}", *problem)
    images = Table()
    for name, entry in tables["images"].items():
        if problem := wrong_entry(name, tables["images"], lists, images):
            raise refusal(text, f"images.{name}", *problem)
        image = Image(**{**entry, "name": name, "lists": tuple(lists[each] for each in entry["lists"])})
        images[name] = image
        if problem := wrong_image(image, images):
            raise refusal(text, f"images.{name}", *problem)
    for lock, locked in images.locks.items():
        if (name := locked[-1].name) != lock:
            where = f"of the same image, or of one that starts from {images.owner(locked[-1]).name}"
            raise refusal(
                text, f"lists.{name}", f"{name} is locked with {lock}, which must be a later list: {where}", "lock"
            )
    return images


def parsed(content: bytes) -> tuple[str, dict[str, dict[str, Any]]]:
    """The file as text and as tables."""
    try:
        text = content.decode()
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Problem(f"{FILE} line {line}: not UTF-8; save it as text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        words, _, place = str(error).rstrip(")").partition(" (at ")
        number = re.match(r"line (\d+)", place)
        line = int(number[1]) if number else text.rstrip().count("\n") + 1  # at its end
        raise Problem(f"{FILE} line {line}: this is not TOML: {words}") from None
    for kind, entries in tables.items():
        if kind not in TABLES:
            raise refusal(text, kind, f"there are no {kind} here, but [lists.NAME] and [images.NAME]")
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise refusal(text, kind, f"{kind} are tables, as in [{kind}.NAME]")
    return text, {kind: tables.get(kind, {}) for kind in TABLES}


def check_keys(text: str, table: str, entry: Mapping[str, Any], keys: Mapping[str, type]) -> None:
    """Raise Problem where an entry has what it may not have, or lacks what it needs."""
    for key, value in entry.items():
        if key not in keys:
            raise refusal(text, table, f"[{table}] has {key}, which means nothing; it may have {', '.join(keys)}", key)
        if type(value) is not keys[key] or (isinstance(value, list) and not all(type(each) is str for each in value)):
            raise refusal(text, table, f"{key} must be {WORDS[keys[key]]}", key)
    for key in NEEDED:
        if key in keys and key not in entry:
            raise refusal(text, table, f"[{table}] lacks {key}, {WORDS[keys[key]]}")


def wrong_list(each: List, lists: Collection[str]) -> tuple[str, str] | None:
    """What is wrong with a list, and the key that it is about."""
    name, kind, least = each.name, each.ecosystem, LEAST.get(each.ecosystem, 0)
    own = each.lock == name
    problems = (
        (not least, f"there is no ecosystem {kind}; there are {', '.join(LEAST)}", "ecosystem"),
        (each.layers < least, f"{name} takes {least} layers at least", "layers"),
        (
            own and Path(each.file).name != f"{name}.txt",
            f"the file of {name} must be called {name}.txt, since its lock is {name}.lock",
            "file",
        ),
        (not own and kind != "Python", f"a list of {kind} packages has a lock of its own", "lock"),
        (each.lock not in lists, f"there is no list {each.lock} with whose packages {name} could be locked", "lock"),
        (each.besides and kind == "R", "the R packages of an image are one list", "besides"),
    )
    return next(((said, key) for wrong, said, key in problems if wrong), None)


def wrong_entry(
    name: str, entries: Mapping[str, Any], lists: Mapping[str, List], above: Collection[str]
) -> tuple[str, str] | None:
    """What is wrong with the names of an image, its parent and its lists, and the key that it is about."""
    if not re.fullmatch(NAME, name):
        said = "it has small letters and digits, and single '_' and '-' between them"
        return f"{name} cannot be the name of an image; {said}", ""
    if problem := wrong_lists(name, entries[name]["lists"], lists):
        return problem, "lists"
    line = [name]
    while (parent := entries.get(line[-1], {}).get("parent", "")) and parent not in line:
        line.append(parent)
    if parent == name:
        return f"an image cannot start from itself: {' starts from '.join([*line, name])}", "parent"
    parent = entries[name].get("parent", "")
    if parent and parent not in entries:
        return f"{name} starts from {parent}, which is no image; the images are {', '.join(entries)}", "parent"
    if parent and parent not in above:
        return f"{name} starts from {parent}, which stands below it; parents come first", "parent"
    return None


def wrong_lists(name: str, own: Collection[str], lists: Mapping[str, List]) -> str:
    """What is wrong with an image's own lists, if anything is."""
    if missing := [each for each in own if each not in lists]:
        return f"{name} has the list {missing[0]}, which is not there; the lists are {', '.join(lists)}"
    for ecosystem in LEAST:  # of several locks, the steps would take the last
        locks = dict.fromkeys(lists[each].lock for each in own if lists[each].ecosystem == ecosystem)
        if len(locks) > 1:
            mend = "write them as one, or give one to its parent"
            return f"{name} has several lists of {ecosystem} packages, {' and '.join(locks)}; {mend}"
    return ""


def wrong_image(image: Image, images: Table) -> tuple[str, str] | None:
    """What is wrong with an image beside the others, and the key that it is about."""
    if image.name in TARGETS:
        return f"make {image.name} does something else; give the image another name", ""
    family = images.lineage(image.name)
    for parent in family[:-1]:
        if twice := [each.name for each in image.lists if each in parent.lists]:
            return f"{image.name} has the list {twice[0]}, which it has from {parent.name} already", "lists"
    if image.port and not re.fullmatch(r"[A-Z][A-Z0-9_]*", image.port):
        return f"{image.port} cannot be a parameter; write it in capital letters, as in PORT", "port"
    taken = [other.name for other in images.values() if other.port == image.port and other is not image]
    if image.port and taken:
        return f"{image.name} listens at {image.port}, as {taken[0]} does; a lab has a parameter of its own", "port"
    counts = {each.name: each.layers for member in family for each in member.lists}
    total = sum(counts.values()) + OWN * len(family)
    if total > BUDGET:
        summed = ", ".join(f"{name} {count}" for name, count in counts.items())
        own = f"{OWN} of each image's own"
        return f"{image.name} may come to {total} layers, more than {BUDGET}: {summed}, and {own}", "lists"
    return None


def refusal(text: str, table: str, problem: str, key: str = "") -> Problem:
    """What is wrong with an entry, with the line of its `key` or, where there is none, of its header."""
    name, *lines = (re.sub(r"\s|\"|'", "", line.partition("#")[0]) for line in [table, *text.splitlines()])
    begins = re.compile(rf"\[+{re.escape(name)}[.\]]|{re.escape(name)}=")
    header = next((number for number, line in enumerate(lines) if begins.match(line)), -1)
    if header < 0:
        return Problem(f"{FILE}: {problem}")
    own = takewhile(lambda number: not lines[number].startswith("["), range(header + 1, len(lines)))
    number = next((number for number in own if lines[number].startswith(f"{key}=")), header)
    return Problem(f"{FILE} line {number + 1}: {problem}")
