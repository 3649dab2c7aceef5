#!/usr/bin/env python3
"""Install the wheels of one layer.

wheels.py install PLAN PARENT LAYER
    Install the wheels of one plan, those beside it included, compile them, and collect the files in LAYER.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import layers
import network

UV = ["/pyrlab/uv/uv"]
VENV = Path("/opt/venv")
CACHE = Path("/root/.cache/uv")  # a cache mount: what was downloaded, and the slots of the steps that install
OWNER, GROUP = 1000, 100  # jovyan and users: a notebook's own `pip install` may write where ours did


def uv(*arguments: str | Path, environment: Path = VENV, explains: bool = True) -> subprocess.CompletedProcess[str]:
    """Run uv for an environment; what it says on stderr is shown and kept, as network.run has it."""
    command = [*UV, *map(str, arguments), "--python", str(environment / "bin/python")]
    return network.run(command, quiet=True, explains=explains)


def plain(words: str) -> str:
    """What uv says, without its frames, in one line."""
    return " ".join(re.sub(r"[╰─▶│\u00d7╭├]", " ", words).split())


def because(words: str, names: Collection[str] = ()) -> str:
    """The reason that uv gives, without its proof: the first that has one of some names in it, if any does."""
    reasons = re.findall(r"[Bb]ecause (.*?),? we can conclude", words) or [words.rpartition("cause: ")[2]]
    named = (reason for reason in reasons if any(re.search(rf"\b{re.escape(name)}\b", reason) for name in names))
    reason: str = next(named, reasons[0])
    return reason.replace("you require", "the lists require")


def canonical(requirement: str) -> str:
    """The package's name in a requirement, as the index spells it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]*", requirement)[0]).lower()  # type: ignore[index]


PYTHON = (3, 13)  # Debian's, and the oldest that is supported
KINDS = {"shared": "in all images", "pylab": "in pylab"}  # of layers, and what a lock says of their packages


def blocks(requirements: str) -> dict[str, str]:
    """The packages of a file in the form of requirements.txt: by name, all the lines about it."""
    found: dict[str, str] = {}
    for block in re.findall(r"^[\w.].*\n(?:[ \t]+.*\n)*", requirements, re.MULTILINE):
        found[canonical(block)] = found.get(canonical(block), "") + block
    return found


def uv_install(pins: Path, *arguments: str, environment: Path = VENV) -> subprocess.CompletedProcess[str]:
    """Install exactly the packages of the file `pins`, the last argument; stops where a file is not the locked one."""
    beside = [f"--find-links={pins.parent}"] if any(pins.parent.glob("*.whl")) else []
    # As the list's own indexes were asked when it was locked: the best version of all.
    best = ["--index-strategy=unsafe-best-match", "--no-config", "--only-binary=:all:"]
    run = uv("pip", *arguments, pins, *best, *beside, environment=environment)
    if match := re.search(r"Hash mismatch for `([\w.-]+)", run.stderr):
        what = f"the file of {match[1]} that the index serves is not the one that was locked"
        sys.exit(f"pyrlab: requirements.lock: {what}; if it is to be trusted, type make upgrade P={match[1]}")
    return run


@contextmanager
def slot() -> Iterator[None]:
    """Wait until fewer steps install wheels than there are processors: dozens at once would starve apt's steps."""
    with ExitStack() as stack:
        files = [stack.enter_context((CACHE / f"slot-{n}").open("w")) for n in range(os.cpu_count() or 1)]
        while not any(locked(file) for file in files):
            time.sleep(0.1)
        yield


def locked(file: IO[str]) -> bool:
    """Whether `file` could be locked, which holds until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def install(plan: Path, parent: Path, layer: Path) -> None:
    """Install the wheels that `plan` names, with bytecode, and collect their files in `layer`."""
    if plan.read_text():
        run = uv_install(plan, "install", "--no-deps", "--link-mode=copy", "--requirements")
        if run.returncode:
            sys.exit(f"pyrlab: requirements.lock: {because(plain(run.stderr))}")
        # One process and a fixed order: parallel compilation leaks its order into the .pyc files. Without site (-S),
        # for what a .pth file imports when Python starts would be compiled by that import, with its time.
        compile_all = ["-S", "-m", "compileall", "-q", "-q", "--invalidation-mode=unchecked-hash", str(VENV / "lib")]
        subprocess.run([str(VENV / "bin/python"), *compile_all], env={**os.environ, "PYTHONHASHSEED": "0"})
    layers.split_tree(str(VENV), parent, layer, (OWNER, GROUP))


def main() -> None:
    """Dispatch; see the module's docstring."""
    verb, *rest = sys.argv[1:]
    network.connect()
    match verb, [Path(argument) for argument in rest]:
        case "install", [wheels, parent, layer]:
            with slot():
                install(wheels, parent, layer)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
