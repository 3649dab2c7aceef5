"""Lock the lists, say what is behind, and upgrade (make lock, make outdated, make upgrade).

python3 -m pyrlab.host.upgrade lock | outdated | upgrade [PACKAGE …]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pyrlab.host import locks
from pyrlab.host.base import archive, choose_python
from pyrlab.host.build import build
from pyrlab.host.contents import LISTS, layer_sizes, spellings, write_list
from pyrlab.host.lab import tell_of_old
from pyrlab.host.locking import make_locks, stale_locks
from pyrlab.host.project import Project, run_main
from pyrlab.host.session import alone, session
from pyrlab.host.text import megabytes
from pyrlab.model.problem import Problem


def lock(project: Project) -> None:
    """Resolve the lists whose locks are stale, and build nothing."""
    project.checkout.check()
    source, python = choose_python(project)
    locks.stage(project)
    if stale_locks(project, [*project.table], python):
        with session(project, source, python) as now:
            make_locks([*project.table], now)
    changes = locks.staged_changes(project)
    locks.publish(project, asked=True)
    for path in (project.apart / LISTS).glob("*.txt"):  # what the images have already
        write_list(project.root / LISTS / path.name, path.read_text())
        path.unlink()
    print(locks.table(changes) or "the locks are up to date")


def outdated(project: Project) -> None:
    """Print what an upgrade would change."""
    project.checkout.check()
    source, python = choose_python(project, refresh=True)
    locks.stage(project)
    with session(project, source, python) as now:
        make_locks([*project.table], now, "*")
    print(locks.table(locks.staged_changes(project)) or "everything is up to date")


def upgrade(project: Project, packages: list[str]) -> None:
    """Upgrade `packages`, or all, rebuild, and print what became of it; nothing changes where that fails."""
    chosen = {name for package in packages for name in named(project, package)}
    before, there = locks.read(project.table, project.root), project.images()
    with fresh_debian(archive(project)) if not packages else nullcontext():
        build(project, [], " ".join(sorted(chosen)) or "*")
    changes = locks.changes(before, locks.read(project.table, project.root))
    print(locks.table(changes) or f"{', '.join(packages) or 'everything'}: up to date")
    pulled = bytes_to_pull(project, there)
    if changes or pulled:
        print(f"to be pulled by those who have the images of before: {megabytes(pulled)}")
    tell_of_old(project)


def named(project: Project, package: str) -> set[str]:
    """The locked packages that a user may mean by a name: R's may be Debian's; raises Problem where there is none."""
    known = {name for lock in locks.read(project.table, project.root) for _, name in lock.versions()}
    found = known & spellings(package)
    if name := re.match(r"([\w.-]+)\s*[=<>~!@[]", package):
        raise Problem(f"P takes names of packages, as {name[1]}; which version of it is wanted stands in the list")
    if not found:
        raise Problem(f"no lock has a package named {package}; grep {package} *.lock finds its like")
    return found


@contextmanager
def fresh_debian(archive: Path) -> Iterator[None]:
    """Let Debian's Python be bootstrapped anew; what was bootstrapped before comes back where the build fails."""
    before = archive.with_suffix(".before")
    if archive.exists():
        archive.replace(before)
    try:
        yield
    except BaseException:
        if before.exists():
            before.replace(archive)
        raise
    before.unlink(missing_ok=True)


def bytes_to_pull(project: Project, before: dict[str, dict[str, Any]]) -> int:
    """The compressed bytes of those layers of new images that none of the images `before` has."""
    known = {layer for image in before.values() for layer in image["RootFS"]["Layers"]}
    new = [name for name, image in project.images().items() if image["Id"] != before.get(name, {}).get("Id")]
    sizes = layer_sizes(project.engine, *new)
    return sum(size for layer, size in sizes.items() if layer not in known)


def main(project: Project) -> None:
    """Dispatch; see the module's docstring."""
    verb, *packages = sys.argv[1:]
    with alone(project):
        match verb:
            case "lock":
                lock(project)
            case "outdated":
                outdated(project)
            case "upgrade":
                upgrade(project, packages)


if __name__ == "__main__":
    run_main(main)
