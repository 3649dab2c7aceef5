"""Locks of Debian and R packages: TOML with a package a line, so that `git diff` reads as a change log.

[Debian]
curl = { version = "8.14.1-2", file = "pool/main/c/curl/curl_8.14.1-2_amd64.deb", size = 269876, sha256 = "…" }

A `file` is below the root of whatever archive serves it, be it a mirror or a proxy, or an address of its own. What was
locked before there were such lines, `curl 8.14.1-2`, has versions only.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Sections = dict[str, "dict[str, Locked]"]  # by ecosystem and name
# What stands above all that, whatever the lock is of: of what it was made, what follows, what its lists asked for.
HEADER = re.compile(r"# .*\n# for ([0-9a-f]{16}), content ([0-9a-f]{16})(?:, lists ([0-9a-f]{16}))?(?:, on (.*))?\n")


def digest(text: str) -> str:
    """A short digest of a text, even of one that is not UTF-8."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def sealed(text: str) -> re.Match[str] | None:
    """The header of a lock's text; None where there is none, or what follows is not what it was written for."""
    header = HEADER.match(text)
    return header if header and digest(text[header.end() :]) == header[2] else None


@dataclass(frozen=True)
class Locked:
    """A package as a lock has it."""

    version: str
    file: str = ""  # empty where only the version is known
    size: int = 0  # bytes
    sha256: str = ""
    source: str = ""  # of R: cran, bioc, or a reference of the list's own
    needs: tuple[str, ...] = ()  # of R: the packages without which it cannot be installed


@dataclass(frozen=True)
class Lock:
    """What a list resolves to."""

    packages: Sections
    removed: tuple[str, ...] = ()  # Debian's packages that give way
    repositories: str = ""  # what R's are known by; others may have other archives of the same version

    @classmethod
    def read(cls, path: Path) -> Lock:
        """The lock at `path`."""
        text = path.read_text()
        if not re.search(r"^\[", text, re.MULTILINE):
            return cls(before(text))
        tables = tomllib.loads(text)
        kinds = {kind: table for kind, table in tables.items() if isinstance(table, dict)}
        packages = {kind: {name: of(entry) for name, entry in table.items()} for kind, table in kinds.items()}
        return cls(packages, tuple(tables.get("removed", ())), tables.get("repositories", ""))

    def of(self, ecosystem: str) -> dict[str, Locked]:
        """The packages of an ecosystem, by name."""
        return self.packages.get(ecosystem, {})

    def versions(self, ecosystem: str) -> dict[str, str]:
        """Their versions."""
        return {name: package.version for name, package in self.of(ecosystem).items()}

    def write(self, path: Path) -> None:
        """Write the lock to `path`."""
        head = {"repositories": self.repositories, "removed": list(self.removed)}
        parts = [f"{name} = {json.dumps(value)}\n" for name, value in head.items() if value]
        for kind, packages in self.packages.items():
            lines = [f"{key(name)} = {entry(locked)}\n" for name, locked in sorted(packages.items())]
            parts.append(f"[{kind}]\n{''.join(lines)}")
        path.write_text("\n".join(parts))


def of(entry: dict[str, Any]) -> Locked:
    """The package that an entry describes."""
    return Locked(**{**entry, "needs": tuple(entry.get("needs", ()))})


def before(text: str) -> Sections:
    """The packages of a lock of the form that there was before."""
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    fetched = {name: Locked(version, source=origin[0]) for name, version, *origin in rows if origin}
    debian = {name: Locked(version) for name, version, *origin in rows if not origin}
    return {"R": fetched, "Debian": debian}


def key(name: str) -> str:
    """A name as TOML has it on the left."""
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else json.dumps(name)


def entry(locked: Locked) -> str:
    """What a package's line has on the right."""
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(locked).items() if value}
    return f"{{ {', '.join(f'{name} = {json.dumps(value)}' for name, value in fields.items())} }}"
