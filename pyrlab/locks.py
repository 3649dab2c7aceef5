"""The locks: what each of the four lists resolves to, in a file beside it."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyrlab import requirements
from pyrlab.contents import Versions
from pyrlab.docker import CACHE, ROOT, Problem, parameter
from pyrlab.table import aligned, megabytes

STAGED = CACHE / "locks"  # what a build uses; the checkout's own change only when it has succeeded
APART = CACHE / "resolved"  # what the images have where the checkout's locks could not be had, or not from here
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
HEADER = re.compile(r"# .*\n# for ([0-9a-f]{16}), content ([0-9a-f]{16})(?:, lists ([0-9a-f]{16}))?(?:, on (.*))?\n")
SHARED = re.compile(r"^# in all images\n(.*?)(?=^# in pylab$)", re.MULTILINE | re.DOTALL)


def digest(text: str) -> str:
    """A short digest of a text, even of one that is not UTF-8."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class Lock:
    """What a list resolves to."""

    name: str
    inputs: str  # a digest of what it was resolved from
    python: str  # the Python image that it was resolved on, of base_debs
    content: str
    lists: str = ""  # a digest of what its lists asked for, empty of a lock that was made before this was noted

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
        return cls(name, header[1], header[4] or "", content, header[3] or "")

    def write(self, folder: Path) -> None:
        """Write the lock into `folder`."""
        lists = f", lists {self.lists}" if self.lists else ""
        on = f", on {self.python}" if self.python else ""
        (folder / f"{self.name}.lock").write_text(
            f"# What {LISTS[self.name][-1]} resolves to, written by make lock; change the list, not this file.\n"
            f"# for {self.inputs or '0' * 16}, content {digest(self.content)}{lists}{on}\n{self.content}"
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
            elif match := re.match(r"(\w[\w.+:-]*)(?:==| @ | )([^\s;]+)", line):
                commit = re.search(r"#(\w{7})\w* \w+$", line)
                found[ecosystem, match[1]] = match[2] + (f" ({commit[1]})" if commit and ecosystem == "R" else "")
        return found


def wanted(name: str) -> list[str]:
    """What the lists of a lock, and the files that they point at, ask for now."""
    found: list[str] = []
    for path in LISTS[name]:
        if path == requirements.LIST:
            for other, text in requirements.lists().items():
                found += [] if other == path else [f"in {other}"]
                found += stripped(requirements.without_passwords(text))
            found += [
                f"{wheel} {hashlib.sha256((ROOT / wheel).read_bytes()).hexdigest()}" for wheel in requirements.wheels()
            ]
        else:
            found += packages(ROOT / path)
    return found


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
    return stripped(path.read_text(errors="replace"))


def stripped(text: str) -> list[str]:
    """The lines of a list's text, sorted, without comments and blanks."""
    lines = (requirements.without_comment(line).strip() for line in text.splitlines())
    return sorted(line for line in lines if line)


def current(name: str) -> Lock:
    """The lock that the checkout has, or what the images have in its place since."""
    origin = APART / f"{name}.of"
    if origin.exists() and origin.read_text() == origin_of(name):
        return Lock.read(APART, name)
    return Lock.read(ROOT, name)


def origin_of(name: str) -> str:
    """By what the checkout's lock is known again."""
    path = ROOT / f"{name}.lock"
    return digest(path.read_text(errors="replace") if path.exists() else "")


def stage() -> None:
    """Put the locks where the build finds them; an empty one where there is none yet."""
    shutil.rmtree(STAGED, ignore_errors=True)
    STAGED.mkdir(parents=True)
    for name in NAMES:
        current(name).write(STAGED)


def seal(name: str, python: str, lines: list[str]) -> None:
    """Give a lock that was made of `lines` its header."""
    made = STAGED / f"{name}.lock"
    content = made.read_text()
    made.unlink()  # with the rights that BuildKit gave it, which a step would take for a change
    on = python if name == "base_debs" else ""
    Lock(name, inputs(name, STAGED, python, lines), on, content, digest("\n".join(lines))).write(STAGED)


def publish(asked: bool) -> None:
    """Put the locks that were made into the checkout: all if the user `asked` for it, else those whose lists changed.

    What differs only because the archives have moved on, or another Python image is here, is kept apart.
    """
    written: set[str] = set()
    for name in NAMES:
        lock, before = Lock.read(STAGED, name), Lock.read(ROOT, name)
        follows = lock.content != before.content and written.intersection(RESTS_ON.get(name, ()))
        if not lock.inputs.strip("0") or lock == before:
            continue
        if asked or follows or lock.lists != before.lists:
            lock.write(ROOT)
            written.add(name)
        else:
            APART.mkdir(exist_ok=True)
            lock.write(APART)
            (APART / f"{name}.of").write_text(origin_of(name))


def published(names: Iterable[str]) -> bool:
    """Whether the checkout has the locks `names` as they are staged."""
    return all(Lock.read(STAGED, name) == Lock.read(ROOT, name) for name in names)


def notes(changes: list[Change]) -> list[str]:
    """A sentence on what was locked anew, if anything was."""
    if not changes:
        return []
    shown, more = listed(changes, 5)
    return [f"locked {shown}{more}; git diff shows it all" if more else f"locked {shown}"]


def moved_on(changes: list[Change]) -> list[str]:
    """A sentence on what the images have otherwise than the checkout says, if anything."""
    if not changes:
        return []
    shown, more = listed(changes, 20)
    why = "Debian's archive has moved on since the locks were made, or the Python image is another"
    return [f"{why}: {shown}{more}; make lock writes that down"]


def listed(changes: list[Change], count: int) -> tuple[str, str]:
    """The first `count` of some changes, and how many there are besides."""
    shown = [
        f"{c.package} {c.after or 'is gone'}" + (f" (was {c.before})" if c.before and c.after else "") for c in changes
    ]
    return ", ".join(shown[:count]), f" and {len(shown) - count} more" if len(shown) > count else ""


@dataclass(frozen=True)
class Change:
    """A package that is there in another version than before; an empty version is none."""

    ecosystem: str
    package: str
    before: str
    after: str
    grown: int | None = None  # bytes


def read(folder: Path) -> list[Lock]:
    """The locks in `folder`."""
    return [Lock.read(folder, name) for name in NAMES]


def changes(before: list[Lock], after: list[Lock]) -> list[Change]:
    """What differs between two sets of locks."""
    old, new = ({key: version for lock in side for key, version in lock.versions().items()} for side in (before, after))
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
