"""Build the images that a changed list makes necessary, and say which and why (make build).

python3 -m pyrlab.host.build [IMAGE …]      the images, and those they start from; all where none is named

The straight way: the table and the lists, their locks, for each stale image a plan, an archive, checks; then a trial of
the new labs, and all takes its place at once.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from pyrlab.host import locks
from pyrlab.host.archive import make
from pyrlab.host.bake import tidy
from pyrlab.host.base import choose_python
from pyrlab.host.lab import tell_of_old
from pyrlab.host.locking import make_locks, stale_locks
from pyrlab.host.project import Project, run_main
from pyrlab.host.publish import package_lists, publish, report, sweep
from pyrlab.host.session import Session, alone, session
from pyrlab.host.state import Image, outdated, survey, wanted
from pyrlab.host.trial import try_labs
from pyrlab.model.problem import Problem


def build(project: Project, names: list[str], upgrade: str = "") -> list[Image]:
    """Build what must be built of `names` and their parents; images and locks stay what they were unless all were."""
    project.checkout.check()
    source, python = choose_python(project, refresh=upgrade == "*")
    names = wanted(project, names)
    sweep(project)
    locks.stage(project)
    found = survey(project, names, python)
    stale = any(outdated(project, image) for image in found) or stale_locks(project, names, python)
    if not stale and not upgrade:
        return found
    with session(project, source, python) as now:
        locked = [*project.table] if upgrade else names  # as make outdated has said
        make_locks(locked, now, upgrade)
        try:
            return build_images(names, now, asked=bool(upgrade))
        except Problem as problem:
            if not problem.moved:
                raise
            now.progress.start_again(f"{str(problem).rpartition(';')[0]}; locking again")
        make_locks(locked, now, upgrade, forced=True)
        return build_images(names, now, asked=bool(upgrade))


def build_images(names: list[str], now: Session, asked: bool) -> list[Image]:
    """Build what must be built of `names` with the staged locks, and publish it all.

    Files of the checkout change where a list has, or if the user `asked` for it.
    """
    project = now.project
    built = survey(project, names, now.python)
    try:
        for image in built:
            if outdated(project, image):
                make(image, now)
        with ThreadPoolExecutor(2) as beside:
            lists = beside.submit(package_lists, project.engine, built)
            beside.submit(tidy, project.engine)
            try_labs(project, built, now.progress)
        publish(now, built, lists.result(), asked)
    finally:
        sweep(project)
    return built


def main(project: Project) -> None:
    """Build and report."""
    started = time.monotonic()
    with alone(project):
        images = build(project, sys.argv[1:])
    print(report(project.engine, images))
    if any(image.why for image in images):
        print(f"built in {time.monotonic() - started:.0f} s; the log is {project.cache.name}/build.log")
        tell_of_old(project, *sys.argv[1:])


if __name__ == "__main__":
    run_main(main)
