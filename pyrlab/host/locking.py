"""Resolve the lists whose locks are stale."""

from __future__ import annotations

import sys
import time

from pyrlab.host import locks
from pyrlab.host.bake import bake
from pyrlab.host.project import Project
from pyrlab.host.session import Session
from pyrlab.model.images import Table
from pyrlab.model.problem import Problem


def stale_locks(project: Project, names: list[str], python: str) -> list[str]:
    """The locks of the images `names` whose lists, or whatever else they rest on, have changed."""
    return [lock for lock in needed_locks(project.table, names) if is_stale(project, lock, python)]


def needed_locks(table: Table, names: list[str]) -> list[str]:
    """The locks of the images `names`, each after those that it rests on."""
    needed = {each.lock for name in names for each in table[name].lists}
    return [lock for lock in table.locks if lock in needed]


def is_stale(project: Project, lock: str, python: str) -> bool:
    """Whether a staged lock was made of something else than there is now."""
    staged = locks.Lock.read(project.table, project.staged, lock)
    return staged.made.inputs != locks.inputs(project, lock, python, project.checkout.wanted(lock))


def make_locks(names: list[str], now: Session, upgrade: str = "", forced: bool = False) -> None:
    """Resolve the stale ones of the staged locks that the images `names` need, R's upon the others.

    `upgrade` has the packages, or * for all, that need not stay as locked; for it, or if `forced`, none is skipped.
    """
    project, table = now.project, now.project.table
    needed = needed_locks(table, names)
    lines = {name: project.checkout.wanted(name) for name in needed}  # a list may be edited while it is resolved
    stamp = str(time.time_ns())
    wrong: dict[str, Problem] = {}  # what the user reads of all lists at once
    for lock in needed:
        stale = upgrade or forced or is_stale(project, lock, now.python)
        if not stale or wrong.keys() & {*table.rests_on(lock)}:
            continue
        environment = {**locking(table, lock), "UPGRADE": upgrade, "STAMP": stamp}
        target = f"lock-{table.locks[lock][-1].ecosystem.lower()}"
        try:
            bake(project, target, now.progress, {**now.environment, **environment})
        except Problem as problem:
            if not problem.where:  # it is not about a list
                raise
            wrong[lock] = problem
            now.progress.forget("")
            continue
        locks.seal(project, lock, now.python, lines[lock])
        now.progress.erase()
        for note in now.progress.notes():
            print(f"pyrlab: {note}", file=sys.stderr)
    if wrong:
        raise Problem.of(wrong.values())


def locking(table: Table, lock: str) -> dict[str, str]:
    """Which files a lock is made of: its own `LISTS`, and those `BELOW`, of which there is what their locks have."""
    own = table.locks[lock]
    same = [other for other, each in table.locks.items() if each[-1].ecosystem == own[-1].ecosystem and other != lock]
    return {
        "LISTS": ",".join(table.files_of(lock)),
        "BELOW": " ".join(",".join(table.files_of(other)) for other in table.rests_on(lock)),
        "SECTIONS": ",".join(each.section for each in own),
        "ALSO": " ".join(path for other in same for path in table.files_of(other)),
    }
