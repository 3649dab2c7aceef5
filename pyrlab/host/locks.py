"""The locks: what each of the four lists resolves to, in a file beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyrlab.host.contents import Versions
from pyrlab.host.project import Project
from pyrlab.host.text import aligned, megabytes, write_whole
from pyrlab.model import locked
from pyrlab.model.images import List, Table
from pyrlab.model.locked import Made, digest
from pyrlab.model.problem import Problem
from pyrlab.model.proxies import REPOSITORIES

FORM = {"Python": "TOML", "Debian": "archives", "R": "archives"}  # of locks: a change makes all of them anew
SETTINGS = {"R": REPOSITORIES}  # what the packages of an ecosystem depend on besides


@dataclass(frozen=True)
class Lock:
    """What some lists resolve to."""

    of: tuple[List, ...]
    made: Made
    content: str

    @classmethod
    def read(cls, table: Table, folder: Path, name: str) -> Lock:
        """The lock in `folder`, an empty one where there is none; raises Problem for one that is not as written."""
        of, path = table.locks[name], folder / f"{name}.lock"
        if not path.exists():
            return cls(of, Made(), "")
        text = path.read_text(errors="replace")
        if written := locked.unseal(text):
            return cls(of, *written)
        raise Problem(
            f"{path.name} is not as make lock wrote it; take the committed one back with "
            f"git checkout HEAD -- {path.name}, and make lock adds what the lists have besides"
        )

    def write(self, folder: Path) -> None:
        """Write the lock into `folder`."""
        comment = f"What {self.of[-1].file} resolves to, written by make lock; change the list, not this file."
        write_whole(folder / f"{self.of[-1].lock}.lock", locked.seal(comment, self.made, self.content))

    def versions(self) -> Versions:
        """The version of every package, and the Python image's digest, empty where no registry has told one."""
        found: Versions = {}
        if self.made.on:
            image, _, version = self.made.on.replace("@sha256:", " ").partition(" ")
            found["image", image] = version[:12]
        for section, packages in locked.Lock.parse(self.content).packages.items():
            for key, package in packages.items():
                commit = package.source.partition("#")[2][:7]
                version = (package.version or package.url) + (f" ({commit})" if commit else "")
                found[section.partition(".")[0], locked.name_of(key)] = version
        return found


def is_lowest(table: Table, name: str) -> bool:
    """Whether a lock is of what stands on the Python image itself, and so depends on that."""
    return table.locks[name][-1].ecosystem == "Debian" and not table.rests_on(name)


def inputs(project: Project, name: str, python: str, lines: list[str]) -> str:
    """A digest of what a lock is resolved from: the `lines` of its lists, settings, other locks, the processor."""
    parts, table = [*lines], project.table
    ecosystem = table.locks[name][-1].ecosystem
    parts.append(FORM[ecosystem])
    if ecosystem != "Python":
        parts.append(project.engine.about["Architecture"])  # which need not be this machine's
    parts += [f"{setting}={project.parameter(setting)}" for setting in SETTINGS.get(ecosystem, ())]
    parts += [Lock.read(table, project.staged, other).content for other in table.rests_on(name)]
    parts += [python] if is_lowest(table, name) else []
    return digest("\n".join(parts))


def current(project: Project, name: str) -> Lock:
    """The lock that the checkout has, or what the images have in its place since."""
    origin = project.apart / f"{name}.of"
    if origin.exists() and origin.read_text() == origin_of(project, name):
        with suppress(Problem):  # what is no lock, as of a build that was killed, is made anew
            return Lock.read(project.table, project.apart, name)
    return Lock.read(project.table, project.root, name)


def origin_of(project: Project, name: str) -> str:
    """By what the checkout's lock is known again."""
    path = project.root / f"{name}.lock"
    return digest(path.read_text(errors="replace") if path.exists() else "")


def stage(project: Project) -> None:
    """Put the locks where the build finds them; an empty one where there is none yet."""
    shutil.rmtree(project.staged, ignore_errors=True)
    project.staged.mkdir(parents=True)
    for name in project.table.locks:
        current(project, name).write(project.staged)


def seal(project: Project, name: str, python: str, lines: list[str]) -> None:
    """Give a lock that was made of `lines` its header."""
    made, table = project.staged / f"{name}.lock", project.table
    content = made.read_text()
    made.unlink()  # with the rights that BuildKit gave it, which a step would take for a change
    on = python if is_lowest(table, name) else ""
    given = inputs(project, name, python, lines)
    Lock(table.locks[name], Made(given, digest("\n".join(lines)), on), content).write(project.staged)


def publish(project: Project, asked: bool) -> None:
    """Put the locks that were made into the checkout: all if the user `asked` for it, else those whose lists changed.

    What differs only because the archives have moved on, or another Python image is here, is kept apart.
    """
    written: set[str] = set()
    for name in project.table.locks:
        lock, before = (Lock.read(project.table, folder, name) for folder in (project.staged, project.root))
        follows = lock.content != before.content and written.intersection(project.table.rests_on(name))
        origin = project.apart / f"{name}.of"
        if lock == before:
            origin.unlink(missing_ok=True)  # what was apart is of lists that are no more
        elif not lock.made.inputs.strip("0"):
            continue  # it was not resolved
        elif asked or follows or locked.is_before(before.content) or lock.made.lists != before.made.lists:
            lock.write(project.root)
            written.add(name)
        else:
            project.apart.mkdir(exist_ok=True)
            lock.write(project.apart)
            origin.write_text(origin_of(project, name))


def published(project: Project, names: Iterable[str]) -> bool:
    """Whether the checkout has the locks `names` as they are staged."""
    table = project.table
    return all(Lock.read(table, project.staged, name) == Lock.read(table, project.root, name) for name in names)


def notes(before: list[Lock], after: list[Lock]) -> list[str]:
    """Sentences on what was locked anew, if anything was."""
    found = []
    if old := [f"{lock.of[-1].lock}.lock" for lock in before if lock.content and locked.is_before(lock.content)]:
        found.append(f"another form, of data alone, has now {', '.join(old)}; commit {'them' if old[1:] else 'it'}")
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


def read(table: Table, folder: Path) -> list[Lock]:
    """The locks in `folder`."""
    return [Lock.read(table, folder, name) for name in table.locks]


def changes(before: list[Lock], after: list[Lock]) -> list[Change]:
    """What differs between two sets of locks."""
    old, new = ({key: version for lock in side for key, version in lock.versions().items()} for side in (before, after))
    return compare(old, new)


def staged_changes(project: Project) -> list[Change]:
    """What the staged locks have otherwise than the checkout's."""
    return changes(*(read(project.table, folder) for folder in (project.root, project.staged)))


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
