"""The locks: what each of the four lists resolves to, in a file beside it."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyrlab.host import requirements
from pyrlab.host.contents import Versions
from pyrlab.host.docker import CACHE, ROOT, parameter
from pyrlab.host.text import aligned, megabytes
from pyrlab.model import images
from pyrlab.model.images import List, lineage
from pyrlab.model.problem import Problem

STAGED = CACHE / "locks"  # what a build uses; the checkout's own change only when it has succeeded
APART = CACHE / "resolved"  # what the images have where the checkout's locks could not be had, or not from here
FORM = "archives"  # of the locks of Debian and R packages: a change makes all of them anew
SETTINGS = {"R": ("CRAN", "BIOC")}  # what the packages of an ecosystem depend on besides
HEADER = re.compile(r"# .*\n# for ([0-9a-f]{16}), content ([0-9a-f]{16})(?:, lists ([0-9a-f]{16}))?(?:, on (.*))?\n")
SHARED = re.compile(r"^# in all images\n(.*?)(?=^# in pylab$)", re.MULTILINE | re.DOTALL)


def digest(text: str) -> str:
    """A short digest of a text, even of one that is not UTF-8."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def names() -> list[str]:
    """The names of all locks, each after those that it rests on."""
    return [*dict.fromkeys(each.lock for image in images.table().values() for each in image.lists)]


def lists_of(name: str) -> list[List]:
    """The lists whose packages are in a lock."""
    found = {each.name: each for image in images.table().values() for each in image.lists if each.lock == name}
    return [*found.values()]


def files_of(name: str) -> list[str]:
    """The files of these lists."""
    return [path for each in lists_of(name) for path in each.files]


def ecosystem_of(name: str) -> str:
    """Of what kind the packages of a lock are."""
    return lists_of(name)[-1].ecosystem


def rests_on(name: str) -> list[str]:
    """The locks of what is there already, of the same ecosystem and for R of Debian's: those of the image's parents."""
    owner = images.owner(lists_of(name)[-1])
    kinds = {"R": ("Debian",)}.get(ecosystem_of(name), (ecosystem_of(name),))
    above = [each for image in lineage(owner.name)[:-1] for each in image.lists]
    same = [each for each in owner.lists if each.ecosystem == "Debian" and ecosystem_of(name) == "R"]
    return [*dict.fromkeys(each.lock for each in [*above, *same] if each.ecosystem in kinds and each.lock != name)]


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
            f"# What {files_of(self.name)[-1]} resolves to, written by make lock; change the list, not this file.\n"
            f"# for {self.inputs or '0' * 16}, content {digest(self.content)}{lists}{on}\n{self.content}"
        )

    def versions(self) -> Versions:
        """The version of every package, and the Python image's digest."""
        found: Versions = {}
        ecosystem = ecosystem_of(self.name)
        if self.python:
            image, version = re.split(r"@sha256:| (?=\w+$)", self.python, maxsplit=1)
            found["image", image] = version[:12]
        if ecosystem != "Python" and not self.is_old:
            for kind, packages in tomllib.loads(self.content).items():
                for name, package in packages.items() if isinstance(packages, dict) else ():
                    commit = package.get("source", "").partition("#")[2][:7]
                    found[kind, name] = package["version"] + (f" ({commit})" if commit else "")
            return found
        for line in self.content.splitlines():
            if line.startswith("#"):
                ecosystem = "Debian" if line == "# Debian packages" else ecosystem
            elif match := re.match(r"(\w[\w.+:-]*)(?:==| @ | )([^\s;]+)", line):
                found[ecosystem, match[1]] = match[2]
        return found

    @property
    def is_old(self) -> bool:
        """Whether it is one of Debian or R packages that does not name their archives, as before there was FORM."""
        return ecosystem_of(self.name) != "Python" and not re.search(r"^\[", self.content, re.MULTILINE)


def wanted(name: str) -> list[str]:
    """What the lists of a lock, and the files that they point at, ask for now."""
    found: list[str] = []
    for path in files_of(name):
        if path in requirements.own():
            for other, text in requirements.lists(path).items():
                found += [] if other == path else [f"in {other}"]
                found += stripped(requirements.without_passwords(text))
            found += [
                f"{wheel} {hashlib.sha256((ROOT / wheel).read_bytes()).hexdigest()}"
                for wheel in requirements.wheels(path)
            ]
        else:
            found += packages(ROOT / path)
    return found


def is_lowest(name: str) -> bool:
    """Whether a lock is of what stands on the Python image itself, and so depends on that."""
    return ecosystem_of(name) == "Debian" and not rests_on(name)


def inputs(name: str, folder: Path, python: str, lines: list[str]) -> str:
    """A digest of what a lock is resolved from: the `lines` of its lists, settings, other locks, the processor."""
    parts = list(lines)
    if ecosystem_of(name) != "Python":
        parts += [FORM, platform.machine().replace("arm64", "aarch64")]  # as macOS says it
    parts += [f"{setting}={parameter(setting)}" for setting in SETTINGS.get(ecosystem_of(name), ())]
    parts += [Lock.read(folder, other).content for other in rests_on(name)]
    parts += [python] if is_lowest(name) else []
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
    for name in names():
        current(name).write(STAGED)


def seal(name: str, python: str, lines: list[str]) -> None:
    """Give a lock that was made of `lines` its header."""
    made = STAGED / f"{name}.lock"
    content = made.read_text()
    made.unlink()  # with the rights that BuildKit gave it, which a step would take for a change
    on = python if is_lowest(name) else ""
    Lock(name, inputs(name, STAGED, python, lines), on, content, digest("\n".join(lines))).write(STAGED)


def publish(asked: bool) -> None:
    """Put the locks that were made into the checkout: all if the user `asked` for it, else those whose lists changed.

    What differs only because the archives have moved on, or another Python image is here, is kept apart.
    """
    written: set[str] = set()
    for name in names():
        lock, before = Lock.read(STAGED, name), Lock.read(ROOT, name)
        follows = lock.content != before.content and written.intersection(rests_on(name))
        if lock == before:
            (APART / f"{name}.of").unlink(missing_ok=True)  # what was apart is of lists that are no more
        if not lock.inputs.strip("0") or lock == before:
            continue
        if asked or follows or before.is_old or lock.lists != before.lists:
            lock.write(ROOT)
            written.add(name)
        else:
            APART.mkdir(exist_ok=True)
            lock.write(APART)
            (APART / f"{name}.of").write_text(origin_of(name))


def published(names: Iterable[str]) -> bool:
    """Whether the checkout has the locks `names` as they are staged."""
    return all(Lock.read(STAGED, name) == Lock.read(ROOT, name) for name in names)


def notes(before: list[Lock], after: list[Lock]) -> list[str]:
    """Sentences on what was locked anew, if anything was."""
    found = []
    if old := [f"{lock.name}.lock" for lock in before if lock.is_old and lock.content]:
        found.append(f"{', '.join(old)} now say where each archive is, its size and its checksum; commit them")
    if there := changes(before, after):
        shown, more = listed(there, 5)
        found.append(f"locked {shown}{more}; git diff shows it all" if more else f"locked {shown}")
    return found


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
    return [Lock.read(folder, name) for name in names()]


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
