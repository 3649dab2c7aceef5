#!/usr/bin/env python3
"""Share the wheels of a lock out to layers: plan.py LOCK REQUIREMENTS DEBS PLANS COUNT COUNT.

Write PLANS/shared-NN/plan.txt and PLANS/pylab-NN/plan.txt: the exact wheels of each layer, and the indexes that have
them. What the index has not stands beside it: wheels of the checkout, which REQUIREMENTS has in its folder, and those
that are compiled here, where the Debian packages of the list DEBS are.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import compiled
import layers
import lists
import network
import requirements
from wheels import CACHE, KINDS, PYTHON, because, blocks, canonical, plain, uv, uv_install

ENVIRONMENT = CACHE / "pyrlab-environment"  # every wheel of the last plan, installed to be measured
COMPILED = CACHE / "pyrlab-compiled"
BESIDE = Path("/tmp/plan")  # the wheels that no index has


@dataclass
class Pin:
    """What a lock says of a package: its exact version, the index that has it if a list names one, who needs it."""

    text: str
    index: str
    needed_by: list[str]

    @classmethod
    def of(cls, block: str) -> Pin:
        """The pin of a lock's `block`."""
        lines = [line for line in block.splitlines() if not line.lstrip().startswith("#")]
        index = re.search(r"^\s+# from (\S+)$", block, re.MULTILINE)
        needed_by = re.findall(r"^\s+#(?: via)?\s+([\w.-]+)$", block, re.MULTILINE)
        return cls(re.sub(r"\s*\\?\n\s+", " ", "\n".join(lines)), index[1] if index else "", needed_by)


@dataclass
class Packages:
    """The packages of a lock, and the wheels that must stand beside the plans."""

    pins: dict[str, Pin]
    options: dict[str, list[str]]  # of the lock
    lists: Path  # requirements.txt
    cache: compiled.Cache

    def look_beside(self) -> None:
        """Take wheels of the checkout from there, and compile what no wheel may be taken of."""
        no_binary = {canonical(name) for names in self.options.get("--no-binary", ()) for name in names.split(",")}
        for name, pin in self.pins.items():
            if own := re.match(r"\S+ @ \./(\S+)", pin.text):
                pin.text = beside(self.lists.parent / own[1]) + pin.text[own.end() :]
            elif name in no_binary or re.match(r"\S+ @ (?!\S+\.whl\b)", pin.text):
                self.compile(name)

    def compile(self, name: str) -> None:
        """Make the wheel of a package, or stop with list, line and the compiler's last words."""
        pin = self.pins[name]
        wheel, words = self.cache.wheel(pin.text, self.index_options([name]))
        if not wheel:
            self.stop(name, compiled.sentence(name, words))
        pin.text = f"{beside(wheel)} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"

    def stop(self, name: str, problem: str) -> NoReturn:
        """Stop with what is wrong with a package, and the lines that ask for it or for what needs it."""
        demands = requirements.Demands(self.lists.parent)
        demands.read(self.lists)
        whose, pending = {name}, [name]
        while pending and not (asking := [each.line for each in demands.packages if each.name in whose]):
            pending = [other for each in pending for other in self.pins[each].needed_by if other not in whose]
            whose |= {*pending}
        where = lists.place(asking) if asking else "requirements.lock"
        sys.exit(f"pyrlab: {where}: {problem}")

    def index_options(self, names: list[str]) -> list[str]:
        """The options with which some packages are found where a list says that they are."""
        indexes = {self.pins[name].index for name in names}
        found = []
        for option in requirements.INDEXES:
            urls = [url for url in self.options.get(option, ()) if url.rstrip("/") in indexes]
            found += [f"{option}={url}" for url in urls]
        hosts = {urlsplit(url).hostname for url in indexes}
        trusted = [host for host in self.options.get("--trusted-host", ()) if host.partition(":")[0] in hosts]
        return found + [f"--trusted-host={host}" for host in trusted]

    def lines(self, names: list[str]) -> str:
        """The plan that installs some packages."""
        return "".join(f"{line}\n" for line in [*self.index_options(names), *(self.pins[n].text for n in names)])

    def sizes(self) -> dict[str, int]:
        """The bytes that each package takes when installed; compiles those that turn out to have no wheel.

        Not every index knows sizes, so all are installed in the cache, where uv links what the layers then copy, and
        where all but what changed is there from the build before.
        """
        with (CACHE / "pyrlab-environment.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (ENVIRONMENT / "bin/python").exists():  # or it is a link to the Python of another base
                uv("venv", "--clear", "--quiet", ENVIRONMENT)
            plan = BESIDE / "plan.txt"
            plan.write_text(self.lines([*self.pins]))
            while (run := uv_install(plan, "sync", environment=ENVIRONMENT)).returncode:
                lacking = {canonical(name) for name in re.findall(NO_WHEEL, run.stderr)} & self.pins.keys()
                if not lacking:
                    sys.exit(f"pyrlab: requirements.lock: {because(plain(run.stderr))}")
                for name in lacking:
                    self.compile(name)
                plan.write_text(self.lines([*self.pins]))
            sizes: dict[str, int] = {}
            for record in ENVIRONMENT.glob("lib/python*/site-packages/*.dist-info/RECORD"):
                with record.open(newline="") as rows:
                    name = canonical(record.parent.name.partition("-")[0])
                    sizes[name] = sum(int(row[2]) for row in csv.reader(rows) if row[2])
        return sizes


NO_WHEEL = r"Wheels are required for `([\w.-]+)`"


def beside(wheel: Path) -> str:
    """Put a wheel beside the plans; the requirement that it satisfies."""
    shutil.copyfile(wheel, BESIDE / wheel.name)
    name, version, *_ = wheel.name.split("-")
    return f"{name}=={version}"


def plan(source: Path, listed: Path, base_debs: Path, plans: Path, *counts: int) -> None:
    """Share the wheels of the lock `source` out to so many layers of each of KINDS."""
    if sys.version_info < PYTHON:
        version, oldest = (".".join(map(str, numbers[:2])) for numbers in (sys.version_info, PYTHON))
        sys.exit(f"pyrlab: PYTHONBASE has Python {version}, but {source.name} is for {oldest} and later")
    head, *sections = re.split(rf"^# ({'|'.join(KINDS.values())})\n", source.read_text(), flags=re.MULTILINE)
    found = {title: blocks(section) for title, section in zip(sections[::2], sections[1::2], strict=True)}
    pins = {name: Pin.of(block) for section in found.values() for name, block in section.items()}
    options: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(--[\w-]+) (.*)$", head, re.MULTILINE):
        options.setdefault(name, []).append(value)
    BESIDE.mkdir(exist_ok=True)
    packages = Packages(pins, options, listed, compiled.Cache(COMPILED, base_debs))
    packages.look_beside()
    sizes = packages.sizes()
    for (kind, title), count in zip(KINDS.items(), counts, strict=True):
        bins = layers.assign({name: sizes.get(name, 0) for name in found[title]}, count)
        for number in range(count):
            folder = plans / f"{kind}-{number:02d}"
            folder.mkdir(parents=True)
            names = [name for name in sorted(bins) if bins[name] == number]
            (folder / "plan.txt").write_text(packages.lines(names))
            for name in names:
                for wheel in BESIDE.glob(f"{re.split('[= ]', pins[name].text)[0]}-*.whl"):
                    shutil.copyfile(wheel, folder / wheel.name)


def main() -> None:
    """Write the plans; see the module's docstring."""
    source, listed, base_debs, plans, *counts = sys.argv[1:]
    network.connect()
    plan(Path(source), Path(listed), Path(base_debs), Path(plans), *map(int, counts))


if __name__ == "__main__":
    main()
