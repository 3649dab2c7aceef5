#!/usr/bin/env python3
"""Resolve the Python lists with uv, and install the wheels of one layer.

wheels.py plan JUPYTER REQUIREMENTS PLANS COUNT COUNT
    Resolve both lists together, so that the environment that all share and pylab's own packages agree,
    and write PLANS/shared-NN.txt and PLANS/pylab-NN.txt: the exact wheels of each layer.

wheels.py install PLAN PARENT LAYER
    Install the wheels of one plan, compile them, and collect the files in LAYER.
"""

from __future__ import annotations

import csv
import fcntl
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

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
    command = ["/pyrlab/tools/uv", *map(str, arguments), "--python", str(environment / "bin/python")]
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
    return f"pyrlab: the Python packages of the lists cannot be resolved: {words}"


def check_extras(words: str, wanted: list[lists.Line]) -> None:
    """Stop where uv only warns, and goes on without: an extra, as in dask[complete], that does not exist."""
    if match := re.search(NO_EXTRA, words):
        for line in wanted:
            if canonical(line.text) == canonical(match[1]) and match[2] in line.text:
                lists.fail(line, f"{match[1]} has no extra named '{match[2]}'")


def resolve(wanted: list[lists.Line], *options: str | Path) -> dict[str, dict[str, Any]]:
    """The packages by name that `wanted` and all they need resolve to, as in a pylock.toml (PEP 751)."""
    folder = Path("/tmp/resolve")
    folder.mkdir(exist_ok=True)
    sources: dict[str, list[str]] = {}
    for line in wanted:
        sources.setdefault(line.list, []).append(line.text)
    for name, texts in sources.items():
        (folder / name).write_text("\n".join(texts) + "\n")
    lock = folder / "pylock.toml"
    run = uv("pip", "compile", *(folder / name for name in sources), "--output-file", lock, *options)
    if run.returncode:
        sys.exit(explain(run.stderr, wanted))
    check_extras(run.stderr, wanted)
    return {package["name"]: package for package in tomllib.loads(lock.read_text())["packages"]}


def pin(package: dict[str, Any]) -> str:
    """The line of a plan that installs exactly this package."""
    if url := package.get("archive", {}).get("url"):
        return f"{package['name']} @ {url}"
    if vcs := package.get("vcs"):
        return f"{package['name']} @ {vcs['type']}+{vcs['url']}@{vcs['commit-id']}"
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    hashes = sorted({f"--hash={kind}:{value}" for file in files for kind, value in file["hashes"].items()})
    return " ".join([f"{package['name']}=={package['version']}", *hashes])


def installed_sizes(packages: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The bytes that each of `packages` takes when installed, by name.

    Not every index knows sizes, so all are installed in the cache, where uv links what the layers then copy, and
    where all but what changed is there from the build before.
    """
    pins = Path("/tmp/pins.txt")
    pins.write_text("".join(pin(package) + "\n" for package in packages.values()))
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
    if uv(*command, "--only-binary=:all:", environment=environment).returncode:
        debs.update()
        debs.install(["build-essential", "python3-dev", "git"], "requirements.txt")
        if uv(*command, environment=environment).returncode:
            sys.exit(f"pyrlab: uv could not install {', '.join(names(pins))}; uv's own words stand above")


def write_plans(packages: dict[str, dict[str, Any]], sizes: dict[str, int], plans: Path, kind: str, count: int) -> None:
    """Write `plans`/KIND-NN.txt, `count` of them, with every package in one."""
    bins = layers.assign({name: sizes.get(name, 0) for name in packages}, count)
    plans.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        lines = [pin(packages[name]) for name in sorted(packages) if bins[name] == number]
        (plans / f"{kind}-{number:02d}.txt").write_text("".join(line + "\n" for line in lines))


def plan(jupyter: Path, requirements: Path, plans: Path, shared_count: int, own_count: int) -> None:
    """Resolve both lists and share the wheels out to the layers of both images."""
    shared_wanted, own_wanted = lists.read(jupyter), lists.read(requirements)
    packages = resolve([*shared_wanted, *own_wanted])
    pins = Path("/tmp/constraints.txt")
    pins.write_text("".join(f"{name}=={p['version']}\n" for name, p in packages.items() if "version" in p))
    shared = resolve(shared_wanted, "--constraints", pins)
    sizes = installed_sizes(packages)
    write_plans({name: packages[name] for name in shared}, sizes, plans, "shared", shared_count)
    write_plans({name: p for name, p in packages.items() if name not in shared}, sizes, plans, "pylab", own_count)


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
    if verb == "plan":
        plan(Path(rest[0]), Path(rest[1]), Path(rest[2]), int(rest[3]), int(rest[4]))
    else:
        with slot():
            install(Path(rest[0]), Path(rest[1]), Path(rest[2]))


if __name__ == "__main__":
    main()
