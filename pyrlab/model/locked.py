"""Locks: what lists resolve to, in TOML with a package a line, so that `git diff` reads as a change log.

made = { inputs = "…", content = "…", lists = "…" }

[Debian]
curl = { version = "8.14.1-2", file = "pool/main/c/curl/curl_8.14.1-2_amd64.deb", size = 269876, sha256 = "…" }

A `file` is below the root of whatever archive serves it, be it a mirror or a proxy, or an address of its own. Python's
packages stand under their list, as [Python.requirements]; of each there are the hashes of all its files, since a lock
is for every Python and processor, and an index that has such a file will do. What was locked before is read, too:
`curl 8.14.1-2` of Debian and R, and of Python what uv writes in the form of requirements.txt.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MADE = re.compile(r"# .*\n(made = \{.*\})\n")
MADE_BEFORE = re.compile(  # likewise, in a comment
    r"# .*\n# for ([0-9a-f]{16}), content ([0-9a-f]{16})(?:, lists ([0-9a-f]{16}))?(?:, on (.*))?\n"
)
PIN = re.compile(r"([\w.-]+)(?:\[.*?\])?(?:==([^\s;]+)| @ (\S+))(?: ; (.*?))?(?= \\$|$)")  # of what uv writes


def digest(text: str) -> str:
    """A short digest of a text, even of one that is not UTF-8."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class Made:
    """What a lock was made of, by digests; an empty one is not known."""

    inputs: str = ""  # all that it was resolved from
    lists: str = ""  # what its lists asked for
    on: str = ""  # the Python image that it rests on, if it does


def seal(comment: str, made: Made, content: str) -> str:
    """The text of a lock: what it is, what it was made of, and its `content`."""
    fields = {"inputs": made.inputs or "0" * 16, "content": digest(content), "lists": made.lists, "on": made.on}
    return f"# {comment}\nmade = {inline(fields)}\n{content}"


def unseal(text: str) -> tuple[Made, str] | None:
    """What a lock was made of, and its content; None where the text is not as it was written."""
    fields: dict[str, str] = {}
    if header := MADE.match(text):
        with suppress(tomllib.TOMLDecodeError):
            fields = tomllib.loads(header[1])["made"]
    elif header := MADE_BEFORE.match(text):
        fields = dict(zip(("inputs", "content", "lists", "on"), header.groups(default=""), strict=True))
    if not header or digest(text[header.end() :]) != fields.get("content"):
        return None
    return Made(*(fields.get(name, "") for name in ("inputs", "lists", "on"))), text[header.end() :]


@dataclass(frozen=True)
class Locked:
    """A package as a lock has it."""

    version: str = ""  # empty of a Python package from an address
    file: str = ""  # of Debian and R; empty where only the version is known
    size: int = 0  # bytes
    sha256: str = ""
    source: str = ""  # of R: cran, bioc, or a reference of the list's own
    needs: tuple[str, ...] = ()  # of Python and R: the packages that it needs
    url: str = ""  # of a Python package that no index has: an address, or ./ and the path of a wheel of the checkout
    index: str = ""  # which has a Python package, where a list names one
    hashes: tuple[str, ...] = ()  # of Python: sha256:… of each file


Packages = dict[str, Locked]  # by name; of Python by name, or NAME ; MARKER where it is not for every Python


@dataclass(frozen=True)
class Lock:
    """What some lists resolve to."""

    packages: dict[str, Packages]  # by ecosystem, Python's by list: Python.LIST
    removed: tuple[str, ...] = ()  # Debian's packages that give way
    repositories: str = ""  # what R's are known by; others may have other archives of the same version
    options: tuple[str, ...] = ()  # of Python's lists, without which its packages cannot be found

    @classmethod
    def read(cls, path: Path) -> Lock:
        """The lock at `path`."""
        text = path.read_text()
        made = unseal(text)
        return cls.parse(made[1] if made else text)

    @classmethod
    def parse(cls, content: str) -> Lock:
        """The lock whose content this is."""
        if is_before(content):
            return before(content)
        tables = tomllib.loads(content)
        sections = {kind: table for kind, table in tables.items() if isinstance(table, dict)}
        sections |= {f"Python.{name}": table for name, table in sections.pop("Python", {}).items()}
        packages = {kind: {key: of(entry) for key, entry in table.items()} for kind, table in sections.items()}
        removed, options = (tuple(tables.get(name, ())) for name in ("removed", "options"))
        return cls(packages, removed, tables.get("repositories", ""), options)

    def of(self, ecosystem: str) -> Packages:
        """The packages of an ecosystem, or of a list of Python's."""
        kinds = (table for kind, table in self.packages.items() if ecosystem in (kind, kind.partition(".")[0]))
        return {key: locked for table in kinds for key, locked in table.items()}

    def versions(self, ecosystem: str) -> dict[str, str]:
        """Their versions."""
        return {name: package.version for name, package in self.of(ecosystem).items()}

    def write(self, path: Path) -> None:
        """Write the lock to `path`."""
        head = {"repositories": self.repositories, "removed": list(self.removed), "options": list(self.options)}
        parts = [f"{name} = {json.dumps(value)}\n" for name, value in head.items() if value]
        for kind, packages in self.packages.items():
            lines = [f"{quoted(key)} = {inline(vars(locked))}\n" for key, locked in sorted(packages.items())]
            parts.append(f"[{kind}]\n{''.join(lines)}")
        path.write_text("\n".join(parts))


def of(entry: dict[str, Any]) -> Locked:
    """The package that an entry describes."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    return Locked(**fields)


def quoted(key: str) -> str:
    """A key as TOML has it on the left."""
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key)


def inline(fields: dict[str, Any]) -> str:
    """What stands on the right: the fields that are not empty; hashes, of which there may be many, a line each."""
    given = {name: value for name, value in fields.items() if value}
    said = [f"{name} = {json.dumps(value, indent=2 if name == 'hashes' else None)}" for name, value in given.items()]
    return f"{{ {', '.join(said)} }}"


def sections(content: str) -> dict[str, str]:
    """The text of a lock's content by section; under "" what stands above all."""
    head, *rest = re.split(r"^\[(.+)\]\n", content, flags=re.MULTILINE)
    return {"": head, **dict(zip(rest[::2], rest[1::2], strict=True))}


def is_before(content: str) -> bool:
    """Whether a lock is in a form that there was before."""
    return not re.search(r"^\[", content, re.MULTILINE)


def before(content: str) -> Lock:
    """The lock that a content of before tells of."""
    if re.search(r"^[\w.-]+(==| @ )", content, re.MULTILINE):
        return Lock({"Python": pinned(content)}, options=tuple(re.findall(r"^--.*$", content, re.MULTILINE)))
    rows = [line.split() for line in content.splitlines() if not line.startswith("#")]
    fetched = {name: Locked(version, source=origin[0]) for name, version, *origin in rows if origin}
    debian = {name: Locked(version) for name, version, *origin in rows if not origin}
    return Lock({"R": fetched, "Debian": debian})


def pinned(text: str) -> Packages:
    """The packages of what uv writes in the form of requirements.txt, annotated with who needs which."""
    found: Packages = {}
    needs: dict[str, set[str]] = {}
    for block in re.findall(r"^[\w.].*\n(?:[ \t]+.*\n)*", text, re.MULTILINE):
        pin = PIN.match(block.partition("\n")[0])
        assert pin, block
        name = canonical(pin[1])
        index = re.search(r"^\s+# from (\S+)$", block, re.MULTILINE)
        for other in re.findall(r"^\s+#(?: via)?\s+([\w.-]+)$", block, re.MULTILINE):
            needs.setdefault(canonical(other), set()).add(name)
        hashes = tuple(re.findall(r"--hash=(\S+)", block))
        key = f"{name} ; {pin[4]}" if pin[4] else name
        found[key] = Locked(pin[2] or "", url=pin[3] or "", index=index[1] if index else "", hashes=hashes)
    return {key: replace(locked, needs=tuple(sorted(needs.get(name_of(key), ())))) for key, locked in found.items()}


def canonical(requirement: str) -> str:
    """The name in a Python package's requirement, as the index spells it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]*", requirement)[0]).lower()  # type: ignore[index]


def name_of(key: str) -> str:
    """The name in the key of a package."""
    return key.partition(" ;")[0]


def reached(names: Iterable[str], needs: Callable[[str], Iterable[str]]) -> set[str]:
    """Some packages with all that they need, of which each `needs` some others."""
    found: set[str] = set()
    pending = [*names]
    while pending:
        if (name := pending.pop()) not in found:
            found.add(name)
            pending += needs(name)
    return found


def requirement(key: str, locked: Locked) -> str:
    """A Python package as a line of requirements.txt, that takes no other file."""
    name, _, marker = key.partition(" ; ")
    exact = f"{name} @ {locked.url}" if locked.url else f"{name}=={locked.version}"
    return " ".join([f"{exact} ; {marker}" if marker else exact, *(f"--hash={each}" for each in locked.hashes)])
