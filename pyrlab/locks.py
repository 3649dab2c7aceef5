"""The locks: what each of the four lists resolves to, in a file beside it."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pyrlab.contents import Versions
from pyrlab.docker import CACHE, ROOT, Problem, parameter
from pyrlab.table import aligned, megabytes

STAGED = CACHE / "locks"  # what a build uses; the checkout's own change only when it has succeeded
ECOSYSTEMS = {"requirements": "Python", "base_debs": "Debian", "r_debs": "Debian", "r_packages": "R"}
NAMES = tuple(ECOSYSTEMS)  # of the locks; each rests on those of its ecosystem, and R's on Debian's, before it
LISTS = {
    "requirements": ("docker/pyrlab-base/jupyter.txt", "requirements.txt"),
    "base_debs": ("docker/pyrlab-base/debs.txt", "base_debs.txt"),
    "r_debs": ("docker/rlab-base/debs.txt", "r_debs.txt"),
    "r_packages": ("r_packages.txt",),
}
RESTS_ON = {"r_debs": ("base_debs",), "r_packages": ("base_debs", "r_debs")}
SETTINGS = {"r_packages": ("CRAN", "BIOC")}
HEADER = re.compile(r"# .*\n# for ([0-9a-f]{16}), content ([0-9a-f]{16})(?:, on (.*))?\n")
SHARED = re.compile(r"^# in all images\n(.*?)(?=^# in pylab$)", re.MULTILINE | re.DOTALL)


def digest(text: str) -> str:
    """A short digest."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Lock:
    """What a list resolves to."""

    name: str
    inputs: str  # a digest of what it was resolved from
    python: str  # the Python image that it was resolved on, of base_debs
    content: str

    @classmethod
    def read(cls, folder: Path, name: str) -> Lock:
        """The lock in `folder`, an empty one where there is none; raises Problem for one that is not as written."""
        path = folder / f"{name}.lock"
        if not path.exists():
            return cls(name, "", "", "")
        text = path.read_text(errors="replace")
        header = HEADER.match(text)
        content = text[header.end() :] if header else ""
        if not header or digest(content) != header[2]:
            raise Problem(
                f"{path.name} is not as make lock wrote it; take the committed one back with "
                f"git checkout HEAD -- {path.name}, and make lock adds what the lists have besides"
            )
        return cls(name, header[1], header[3] or "", content)

    def write(self, folder: Path) -> None:
        """Write the lock into `folder`."""
        on = f", on {self.python}" if self.python else ""
        (folder / f"{self.name}.lock").write_text(
            f"# What {LISTS[self.name][-1]} resolves to, written by make lock; change the list, not this file.\n"
            f"# for {self.inputs or '0' * 16}, content {digest(self.content)}{on}\n{self.content}"
        )

    def versions(self) -> Versions:
        """The version of every package, and the Python image's digest."""
        found: Versions = {}
        ecosystem = ECOSYSTEMS[self.name]
        if self.python:
            image, version = re.split(r"@sha256:| (?=\w+$)", self.python, maxsplit=1)
            found["image", image] = version[:12]
        for line in self.content.splitlines():
            if line.startswith("#"):
                ecosystem = "Debian" if line == "# Debian packages" else ecosystem
            elif match := re.match(r"([\w.+:-]+)(?:==| @ | )([^\s;]+)", line):
                commit = re.search(r"#(\w{7})\w* \w+$", line)
                found[ecosystem, match[1]] = match[2] + (f" ({commit[1]})" if commit and ecosystem == "R" else "")
        return found


def wanted(name: str) -> list[str]:
    """What the lists of a lock ask for now."""
    return [line for path in LISTS[name] for line in packages(ROOT / path)]


def inputs(name: str, folder: Path, python: str, lines: list[str]) -> str:
    """A digest of what a lock is resolved from: the `lines` of its lists, settings, other locks, the processor."""
    parts = list(lines)
    parts += [] if name == "requirements" else [platform.machine().replace("arm64", "aarch64")]  # as macOS says it
    parts += [f"{setting}={parameter(setting)}" for setting in SETTINGS.get(name, ())]
    parts += [Lock.read(folder, other).content for other in RESTS_ON.get(name, ())]
    parts += [python] if name == "base_debs" else []
    return digest("\n".join(parts))


def packages(path: Path) -> list[str]:
    """The packages that a list asks for, sorted: comments, blanks and order make no difference."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text(errors="replace").splitlines())
    return sorted(line for line in lines if line)


def stage() -> None:
    """Put the checkout's locks where the build finds them; an empty one where there is none yet."""
    shutil.rmtree(STAGED, ignore_errors=True)
    STAGED.mkdir(parents=True)
    for name in NAMES:
        lock = Lock.read(ROOT, name)
        lock.write(STAGED)


def seal(name: str, python: str, lines: list[str]) -> None:
    """Give a lock that was made of `lines` its header."""
    content = (STAGED / f"{name}.lock").read_text()
    Lock(name, inputs(name, STAGED, python, lines), python if name == "base_debs" else "", content).write(STAGED)


def publish() -> None:
    """Put the locks that were made into the checkout."""
    for name in NAMES:
        lock = Lock.read(STAGED, name)
        if lock.inputs.strip("0") and lock != Lock.read(ROOT, name):
            lock.write(ROOT)


def notes(changes: list[Change]) -> list[str]:
    """A sentence on what was locked anew, if anything was."""
    if not changes:
        return []
    shown = [
        f"{c.package} {c.after or 'is gone'}" + (f" (was {c.before})" if c.before and c.after else "") for c in changes
    ]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return [f"locked {', '.join(shown[:5])}{more}; git diff shows it all" if more else f"locked {', '.join(shown)}"]


@dataclass(frozen=True)
class Change:
    """A package that is there in another version than before; an empty version is none."""

    ecosystem: str
    package: str
    before: str
    after: str
    grown: int | None = None  # bytes


def changes(before: Path, after: Path) -> list[Change]:
    """What differs between the locks of two folders."""
    old, new = (
        {key: version for name in NAMES for key, version in Lock.read(folder, name).versions().items()}
        for folder in (before, after)
    )
    return compare(old, new)


def compare(old: Versions, new: Versions) -> list[Change]:
    """What differs between two sets of packages."""
    keys = sorted({*old, *new})
    return [Change(*key, old.get(key, ""), new.get(key, "")) for key in keys if old.get(key) != new.get(key)]


def table(changes: list[Change]) -> str:
    """One line a change: package, ecosystem, old → new, and how many bytes more it takes where that is known."""
    width = max((len(change.before or "(new)") for change in changes), default=0)
    rows = [
        (
            change.package,
            change.ecosystem,
            f"{change.before or '(new)':>{width}} → {change.after or '(gone)'}",
            "" if change.grown is None else megabytes(change.grown, "+"),
        )
        for change in changes
    ]
    return aligned(rows, right=(3,))
