"""Lock the lists, say what is behind, and upgrade (make lock, make outdated, make upgrade).

python3 -m pyrlab.host.upgrade lock | outdated | upgrade [PACKAGE …]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from pyrlab.host import locks
from pyrlab.host.base import ARCHIVE, choose_python
from pyrlab.host.build import Image, alone, build, check_lists, make_locks, session, stale_locks
from pyrlab.host.contents import LISTS, layer_sizes, spellings, write_list
from pyrlab.host.docker import ROOT, run_main
from pyrlab.host.text import megabytes
from pyrlab.model.images import table
from pyrlab.model.problem import Problem


def lock() -> None:
    """Resolve the lists whose locks are stale, and build nothing."""
    check_lists()
    source, python = choose_python()
    locks.stage()
    if stale_locks([*table()], python):
        with session(source, python) as now:
            make_locks([*table()], now)
    changes = locks.changes(locks.read(ROOT), locks.read(locks.STAGED))
    locks.publish(asked=True)
    for path in (locks.APART / LISTS).glob("*.txt"):  # what the images have already
        write_list(ROOT / LISTS / path.name, path.read_text())
        path.unlink()
    print(locks.table(changes) or "the locks are up to date")


def outdated() -> None:
    """Print what an upgrade would change."""
    check_lists()
    source, python = choose_python(refresh=True)
    locks.stage()
    with session(source, python) as now:
        make_locks([*table()], now, "*")
    print(locks.table(locks.changes(locks.read(ROOT), locks.read(locks.STAGED))) or "everything is up to date")


def upgrade(packages: list[str]) -> None:
    """Upgrade `packages`, or all, rebuild, and print what became of it; nothing changes where that fails."""
    chosen = {name for package in packages for name in named(package)}
    fetched: list[int] = []

    def approve(images: list[Image]) -> None:
        fetched.append(bytes_to_pull(images))

    before = locks.read(ROOT)
    with fresh_debian() if not packages else nullcontext():
        build([], " ".join(sorted(chosen)) or "*", approve)
    changes = locks.changes(before, locks.read(ROOT))
    print(locks.table(changes) or "everything is up to date")
    if changes or sum(fetched):
        print(f"to be pulled by those who have the images of before: {megabytes(sum(fetched))}")


def named(package: str) -> set[str]:
    """The locked packages that a user may mean by a name: R's may be Debian's; raises Problem where there is none."""
    known = {name for lock in locks.names() for _, name in locks.Lock.read(ROOT, lock).versions()}
    found = known & spellings(package)
    if not found:
        raise Problem(f"no lock has a package named {package}; grep {package} *.lock finds its like")
    return found


@contextmanager
def fresh_debian() -> Iterator[None]:
    """Let Debian's Python be bootstrapped anew; what was bootstrapped before comes back where the build fails."""
    before = ARCHIVE.with_suffix(".before")
    if ARCHIVE.exists():
        ARCHIVE.replace(before)
    try:
        yield
    except BaseException:
        if before.exists():
            before.replace(ARCHIVE)
        raise
    before.unlink(missing_ok=True)


def bytes_to_pull(images: list[Image]) -> int:
    """The compressed bytes of those layers of new images that none of the images before has."""
    known = {layer for image in images if image.before for layer in image.before["RootFS"]["Layers"]}
    sizes = layer_sizes(*(image.tag for image in images if image.new))
    return sum(size for layer, size in sizes.items() if layer not in known)


def main() -> None:
    """Dispatch; see the module's docstring."""
    verb, *packages = sys.argv[1:]
    with alone():
        match verb:
            case "lock":
                lock()
            case "outdated":
                outdated()
            case "upgrade":
                upgrade(packages)
            case _:
                raise Problem(f"there is no verb {verb}")


if __name__ == "__main__":
    run_main(main)
