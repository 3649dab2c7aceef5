#!/usr/bin/env python3
"""Lock the Python lists with uv, and install the wheels of one layer.

wheels.py lock JUPYTER REQUIREMENTS PREVIOUS LOCK
    Resolve both lists together, so that the environment that all share and pylab's own packages agree, for every
    Python and processor that pyrlab supports. What PREVIOUS names stays as it is, but for the packages of UPGRADE.

wheels.py plan LOCK PLANS COUNT COUNT
    Write PLANS/shared-NN.txt and PLANS/pylab-NN.txt: the exact wheels of each layer.

wheels.py install PLAN PARENT LAYER
    Install the wheels of one plan, compile them, and collect the files in LAYER.
"""

from __future__ import annotations

import csv
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import debs
import layers
import lists
import network

VENV = Path("/opt/venv")
CACHE = Path("/root/.cache/uv")  # a cache mount: what was downloaded, and the slots of the steps that install
OWNER, GROUP = 1000, 100  # jovyan and users: a notebook's own `pip install` may write where ours did
ENVIRONMENT = CACHE / "pyrlab-environment"  # every wheel of the last plan, installed to be measured


def uv(*arguments: str | Path, environment: Path = VENV) -> subprocess.CompletedProcess[str]:
    """Run uv for an environment; what it says on stderr is shown and kept."""
    command = ["/pyrlab/uv/uv", *map(str, arguments), "--python", str(environment / "bin/python")]
    return network.run(command, quiet=True)


def canonical(requirement: str) -> str:
    """The package's name in a requirement, as the index spells it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]*", requirement)[0]).lower()  # type: ignore[index]


UNKNOWN = r"Because (\S+) was not found in the package registry|Because there are no versions of (\S+) and you require"
NO_VERSION = r"there is no version of (\S+?)[=<>!~]|Because only (\S+?)[=<>!~]\S* is available and you require"
UNPARSED = r"Couldn't parse requirement in `[^`]*?([^/`]+)`.*?: (.*)"
NONE_SATISFIES = "no version of {0} satisfies '{1}'"
NO_EXTRA = r"The package `([\w.-]+)[^`]*` does not have an extra named `([^`]+)`"


def explain(words: str, wanted: list[lists.Line]) -> str:
    """One sentence for uv's message `words`; stops with list and line where a single line is wrong."""
    words = " ".join(re.sub(r"[╰─▶│\u00d7╭├]", " ", words).split())
    named = {canonical(line.text): line for line in wanted}  # pylab's own line where both lists name a package
    for pattern, problem in ((UNKNOWN, "the Python index has no package named '{0}'"), (NO_VERSION, NONE_SATISFIES)):
        if match := re.search(pattern, words):
            name = match[1] or match[2]
            if line := named.get(canonical(name)):
                lists.fail(line, problem.format(name, line.text))
    if match := re.search(UNPARSED, words):
        said = [line for line in wanted if line.list == match[1] and line.text in match[2]]
        if said:
            line = max(said, key=lambda line: len(line.text))
            lists.fail(line, f"'{line.text}' is not a requirement pip would understand")
    found = [line for line in wanted if re.search(rf"(?<![\w.-]){re.escape(canonical(line.text))}(?![\w-])", words)]
    lines = " and ".join(f"{line.list} line {line.number} ('{line.text}')" for line in found)
    problem = "cannot be had together" if "No solution found" in words else "cannot be resolved"
    return f"pyrlab: the Python packages of {lines or 'the lists'} {problem}: {words}"


def check_extras(words: str, wanted: list[lists.Line]) -> None:
    """Stop where uv only warns, and goes on without: an extra, as in dask[complete], that does not exist."""
    if match := re.search(NO_EXTRA, words):
        for line in wanted:
            if canonical(line.text) == canonical(match[1]) and match[2] in line.text:
                lists.fail(line, f"{match[1]} has no extra named '{match[2]}'")


# A lock is for all of these, whatever Python and processor it is made on.
SUPPORTED = """\
[tool.uv]
environments = ["sys_platform == 'linux'"]
"""
PYTHON = (3, 13)  # Debian's, and the oldest that is supported
EVERYWHERE = re.compile(r" (and|;) sys_platform == 'linux'(?= |$)", re.MULTILINE)
KINDS = {"shared": "in all images", "pylab": "in pylab"}  # of layers, and what a lock says of their packages


def blocks(requirements: str) -> dict[str, str]:
    """The packages of a file in the form of requirements.txt: by name, all the lines about it."""
    found: dict[str, str] = {}
    for block in re.findall(r"^[\w.].*\n(?:[ \t]+.*\n)*", requirements, re.MULTILINE):
        found[canonical(block)] = found.get(canonical(block), "") + block
    return found


def lock(jupyter: Path, requirements: Path, previous: Path, target: Path) -> None:
    """Write `target`: the exact version of all that both lists need, with the hashes of its files."""
    wanted = {path.name: lists.read(path) for path in (jupyter, requirements)}
    folder = Path("/tmp/resolve")
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(SUPPORTED)
    for name, lines in wanted.items():
        (folder / name).write_text("".join(f"{line.text}\n" for line in lines))
    draft = folder / "draft.txt"
    shutil.copy(previous, draft)  # uv keeps to what it finds there
    upgrades = {*os.environ.get("UPGRADE", "").split()}
    chosen = sorted(upgrades & blocks(previous.read_text()).keys())
    upgrade = ["--upgrade"] if "*" in upgrades else [f"--upgrade-package={name}" for name in chosen]
    every = [line for lines in wanted.values() for line in lines]
    if any("git+" in line.text for line in every):
        debs.update()
        debs.install(["git"], requirements.name)
    resolve(every, [*wanted], draft, "--generate-hashes", *upgrade)
    # Of this, uv has heard all there is to know.
    resolve(every, [jupyter.name], folder / "shared.txt", "--constraints", draft, "--offline")
    packages = blocks(EVERYWHERE.sub("", draft.read_text()))
    shared = blocks((folder / "shared.txt").read_text())
    sections = {
        kind: [text for name, text in packages.items() if (name in shared) == (kind == "shared")] for kind in KINDS
    }
    target.write_text("".join(f"# {KINDS[kind]}\n{''.join(texts)}" for kind, texts in sections.items()))


def resolve(wanted: list[lists.Line], names: list[str], output: Path, *options: str | Path) -> None:
    """Let uv resolve the lists `names` of its folder to `output`, or stop with a sentence about a line of `wanted`."""
    version = "{}.{}".format(*PYTHON)
    universal: list[str | Path] = ["--universal", f"--python-version={version}", "--no-header", "--output-file", output]
    run = uv("pip", "compile", "--directory", output.parent, *names, *universal, *options)
    if run.returncode:
        sys.exit(explain(run.stderr, wanted))
    check_extras(run.stderr, wanted)


def pin(block: str) -> str:
    """The line of a plan that installs exactly the package of a lock's `block`."""
    lines = [line for line in block.splitlines() if not line.lstrip().startswith("#")]
    return re.sub(r"\s*\\?\n\s+", " ", "\n".join(lines))


def installed_sizes(packages: list[str]) -> dict[str, int]:
    """The bytes that each of `packages`, lines of a plan, takes when installed, by name.

    Not every index knows sizes, so all are installed in the cache, where uv links what the layers then copy, and
    where all but what changed is there from the build before.
    """
    pins = Path("/tmp/pins.txt")
    pins.write_text("".join(f"{package}\n" for package in packages))
    with (CACHE / "pyrlab-environment.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (ENVIRONMENT / "pyvenv.cfg").exists():
            uv("venv", "--clear", "--quiet", ENVIRONMENT)
        uv_install(pins, "sync", environment=ENVIRONMENT)
        sizes: dict[str, int] = {}
        for record in ENVIRONMENT.glob("lib/python*/site-packages/*.dist-info/RECORD"):
            with record.open(newline="") as rows:
                name = canonical(record.parent.name.partition("-")[0])
                sizes[name] = sum(int(row[2]) for row in csv.reader(rows) if row[2])
    return sizes


def uv_install(pins: Path, *arguments: str, environment: Path = VENV) -> None:
    """Install exactly the packages of the file `pins`, the last argument; stops the build where one cannot be."""
    command: list[str | Path] = ["pip", *arguments, pins, "--no-config"]
    # Nearly everything is a wheel. What is not is compiled here, and the compilers stay here.
    run = uv(*command, "--only-binary=:all:", environment=environment)
    if match := re.search(r"Hash mismatch for `([\w.-]+)", run.stderr):
        what = f"the file of {match[1]} that the index serves is not the one that was locked"
        sys.exit(f"pyrlab: requirements.lock: {what}; if it is to be trusted, type make upgrade P={match[1]}")
    if run.returncode:
        debs.update()
        debs.install(["build-essential", "python3-dev", "git"], "requirements.txt")
        if uv(*command, environment=environment).returncode:
            sys.exit(f"pyrlab: uv could not install {', '.join(names(pins))}; uv's own words stand above")


def plan(source: Path, plans: Path, *counts: int) -> None:
    """Share the wheels of the lock `source` out to so many layers of each of KINDS."""
    if sys.version_info < PYTHON:
        version, oldest = (".".join(map(str, numbers[:2])) for numbers in (sys.version_info, PYTHON))
        sys.exit(f"pyrlab: PYTHONBASE has Python {version}, but {source.name} is for {oldest} and later")
    text = source.read_text()
    sections = re.split(rf"^# ({'|'.join(KINDS.values())})\n", text, flags=re.MULTILINE)[1:]
    packages = {title: blocks(section) for title, section in zip(sections[::2], sections[1::2], strict=True)}
    pins = {name: pin(block) for section in packages.values() for name, block in section.items()}
    sizes = installed_sizes([*pins.values()])
    plans.mkdir(parents=True, exist_ok=True)
    for (kind, title), count in zip(KINDS.items(), counts, strict=True):
        bins = layers.assign({name: sizes.get(name, 0) for name in packages[title]}, count)
        for number in range(count):
            lines = [pins[name] for name in sorted(bins) if bins[name] == number]
            (plans / f"{kind}-{number:02d}.txt").write_text("".join(f"{line}\n" for line in lines))


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
        uv_install(plan, "install", "--no-deps", "--link-mode=copy", "--requirements")
        # One process and a fixed order: parallel compilation leaks its order into the .pyc files. Without site (-S),
        # for what a .pth file imports when Python starts would be compiled by that import, with its time.
        compile_all = ["-S", "-m", "compileall", "-q", "-q", "--invalidation-mode=unchecked-hash", str(VENV / "lib")]
        subprocess.run([str(VENV / "bin/python"), *compile_all], env={**os.environ, "PYTHONHASHSEED": "0"})
    layers.split_tree(str(VENV), parent, layer, (OWNER, GROUP))


def names(plan: Path) -> list[str]:
    """The packages of a plan."""
    return [re.split(r"==| @ ", line)[0] for line in plan.read_text().splitlines()]


def main() -> None:
    """Dispatch; see the module's docstring."""
    verb, *rest = sys.argv[1:]
    network.connect()
    match verb, [Path(argument) for argument in rest]:
        case "lock", [jupyter, requirements, previous, target]:
            lock(jupyter, requirements, previous, target)
        case "plan", [source, plans, *counts]:
            plan(source, plans, *map(int, map(str, counts)))
        case "install", [wheels, parent, layer]:
            with slot():
                install(wheels, parent, layer)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
