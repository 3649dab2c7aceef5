"""Wheels as pieces: uv installs them into an environment that is kept, and each RECORD says which files are whose."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib._bootstrap_external import _code_to_timestamp_pyc  # type: ignore[attr-defined]  # as py_compile does it
from multiprocessing import connection, get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from tarfile import SYMTYPE
from typing import NoReturn
from urllib.parse import urlsplit

from pyrlab.model import lists
from pyrlab.model.locked import Lock, Locked, canonical, name_of, reached, requirement
from pyrlab.model.problem import Problem
from pyrlab.steps import compiled, network, requirements
from pyrlab.steps.pieces import EPOCH, FOLDER, FORMAT, Mode, Piece, Tar
from pyrlab.steps.trees import EXCLUDED

UV = ["/pyrlab/tools/uv"]
VENV = Path("/opt/venv")
RECORDS = "lib/python3*/site-packages/*.dist-info/RECORD"
PYTHON = (3, 13)  # Debian's, and the oldest that is supported
OWNER, GROUP = 1000, 100  # jovyan and users: a notebook's own `pip install` may write where ours did
BESIDE = Path("/tmp/wheels")  # the wheels that no index has
NO_WHEEL = r"Wheels are required for `([\w.-]+)`"


def uv(*arguments: str | Path, python: str | Path = sys.executable, explains: bool = True) -> network.Run:
    """Run uv for a Python; what it says on stderr is shown and kept, as network.run has it."""
    command = [*UV, *map(str, arguments), "--python", str(python)]
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


@dataclass
class Pin:
    """What a lock says of a package: its exact version, the index that has it if a list names one, what it needs."""

    text: str
    index: str
    needs: set[str]


def pins_of(packages: Mapping[str, Locked]) -> dict[str, Pin]:
    """The pins of some packages, by name: of one that depends on the Python, a line for each version."""
    found: dict[str, Pin] = {}
    for key, locked in packages.items():
        text, before = requirement(key, locked), found.get(name_of(key))
        if before:
            text, needs = f"{before.text}\n{text}", before.needs | {*locked.needs}
        found[name_of(key)] = Pin(text, locked.index, needs if before else {*locked.needs})
    return found


def options_of(locks: Iterable[Lock]) -> dict[str, list[str]]:
    """The options of some locks, by name."""
    found: dict[str, list[str]] = {}
    for name, _, value in dict.fromkeys(option.partition(" ") for lock in locks for option in lock.options):
        found.setdefault(name, []).append(value)
    return found


def check_python(lock: str) -> None:
    """Stop where this Python is older than those that a lock is for."""
    if sys.version_info < PYTHON:
        version, oldest = (".".join(map(str, numbers[:2])) for numbers in (sys.version_info, PYTHON))
        raise Problem(f"PYTHONBASE has Python {version}, but {lock} is for {oldest} and later")


@dataclass(frozen=True)
class Packages:
    """The packages of an image and of those that it starts from, to be installed into an environment that is kept."""

    pins: dict[str, Pin]
    options: dict[str, list[str]]
    root: Path  # the folder that stands for the checkout
    listed: Path  # the image's own list there, as requirements.txt
    cache: compiled.Cache

    def __post_init__(self) -> None:
        """Take wheels of the checkout from there, and compile what no wheel may be taken of."""
        BESIDE.mkdir(exist_ok=True)
        no_binary = {canonical(name) for names in self.options.get("--no-binary", ()) for name in names.split(",")}
        for name, pin in self.pins.items():
            if re.search(own := r"(?m)^\S+ @ \./(\S+)", pin.text):
                pin.text = re.sub(own, lambda wheel: beside(self.root / wheel[1]), pin.text)
            elif name in no_binary or re.match(r"\S+ @ (?!\S+\.whl\b)", pin.text):
                self.compile(name)

    @property
    def lock(self) -> str:
        """The name of the lock of the list."""
        return self.listed.with_suffix(".lock").name

    def compile(self, name: str) -> None:
        """Make the wheel of a package, or stop with list, line and the compiler's last words."""
        pin = self.pins[name]
        wheel, words = self.cache.wheel(pin.text, self.index_options([name]))
        if not wheel:
            self.stop(name, compiled.sentence(name, words))
        pin.text = f"{beside(wheel)} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"

    def stop(self, name: str, problem: str) -> NoReturn:
        """Stop with what is wrong with a package, and the lines that ask for it or for what needs it."""
        whose, pending = {name}, [name]
        while pending and not (asking := [each.line for each in self.wanted if each.name in whose]):
            pending = [other for other, pin in self.pins.items() if pin.needs & {*pending} and other not in whose]
            whose |= {*pending}
        where = lists.place(asking) if asking else self.lock
        raise Problem(problem, where)

    @cached_property
    def wanted(self) -> list[requirements.Package]:
        """What the list asks for."""
        found = requirements.Demands(self.root)
        if self.listed.exists():
            found.read(self.listed)
        return found.packages

    def index_options(self, names: Iterable[str]) -> list[str]:
        """The options with which some packages are found where a list says that they are."""
        indexes = {self.pins[name].index.rstrip("/") for name in names}
        found = []
        for option in requirements.INDEXES:
            urls = [url for url in self.options.get(option, ()) if url.rstrip("/") in indexes]
            among = option == "--index-url" and ("" in indexes or urls[1:])  # others come from elsewhere
            found += [f"{'--extra-index-url' if among else option}={url}" for url in urls]
        hosts = {urlsplit(url).hostname for url in indexes}
        trusted = [host for host in self.options.get("--trusted-host", ()) if host.partition(":")[0] in hosts]
        return found + [f"--trusted-host={host}" for host in trusted]

    def install(self, *options: str, names: Collection[str]) -> network.Run:
        """Let uv install some packages at VENV, exactly as locked; stops where a file is not the locked one."""
        pins = BESIDE / "pins.txt"
        lines = [*self.index_options(names), *(self.pins[name].text for name in names)]
        pins.write_text("".join(f"{line}\n" for line in lines))
        # As the list's own indexes were asked when it was locked: the best version of all.
        given = ["--index-strategy=unsafe-best-match", "--no-config", "--only-binary=:all:", f"--find-links={BESIDE}"]
        # Of a file, PIPPROXY would stand before it.
        given += [f"--default-index={line.partition('=')[2]}" for line in lines if line.startswith("--index-url=")]
        given += ["--no-deps", *options]
        run = uv("pip", "install", "--requirements", pins, *given, python=VENV / "bin/python")
        if match := re.search(r"Hash mismatch for `([\w.-]+)", run.stderr):
            what = f"the file of {match[1]} that the index serves is not the one that was locked"
            raise Problem(f"{what}; if it is to be trusted, type make upgrade P={match[1]}", self.lock)
        return run

    def sync(self) -> None:
        """Install what is not there as locked, take away what else there is, and compile what has no wheel."""
        notes = VENV / "installed.json"  # by package: what the lock said, and what was installed for it
        before: dict[str, list[str]] = json.loads(notes.read_text()) if notes.exists() else {}
        locked = {name: pin.text for name, pin in self.pins.items()}
        for info in VENV.glob(RECORDS.removesuffix("/RECORD")):  # uv would take what a cut-off build left for installed
            if not (info / "RECORD").is_file() or not (info / "RECORD").stat().st_size:
                shutil.rmtree(info)
        for name in before.keys() & locked.keys():
            if before[name][0] == locked[name] != before[name][1]:
                self.compile(name)  # as it was then
        there = {package_of(record) for record in VENV.glob(RECORDS)}
        same = {name for name in there & locked.keys() if before.get(name, [""])[-1] == self.pins[name].text}
        notes.write_text(json.dumps({name: before[name] for name in same}))
        others = sorted(there - same)
        if others and uv("pip", "uninstall", "--quiet", *others, python=VENV / "bin/python").returncode:
            raise Problem("uv could not change what it had installed", words="uv")
        new = sorted(locked.keys() - same)
        while new and (run := self.install(names=new)).returncode:
            lacking = {canonical(name) for name in re.findall(NO_WHEEL, run.stderr)} & self.pins.keys()
            if not lacking:
                raise Problem(because(plain(run.stderr)), self.lock)
            for name in lacking:
                self.compile(name)
        notes.write_text(json.dumps({name: [locked[name], pin.text] for name, pin in self.pins.items()}))


def beside(wheel: Path) -> str:
    """Put a wheel beside the others that no index has; the requirement that it satisfies."""
    shutil.copyfile(wheel, BESIDE / wheel.name)
    name, version, *_ = wheel.name.split("-")
    return f"{name}=={version}"


def digest(text: str) -> str:
    """What something is known by that is made of what `text` says."""
    return hashlib.sha256(text.encode()).hexdigest()


def open_environment(image: str, cache: Path) -> Piece:
    """Put the environment that is kept for an image at VENV; the piece of what every environment has."""
    version = subprocess.run([*UV, "--version"], check=True, capture_output=True, text=True).stdout
    key = digest(f"{version} {sys.version} {sys.base_prefix} {FORMAT}")
    folder, empty = cache / "environments" / key / image, Piece(cache / "pieces" / f"venv-{key}")
    if VENV.is_symlink():
        VENV.unlink()
    if not (folder / "pyvenv.cfg").exists() or not empty.exists:
        for old in (VENV, folder):
            shutil.rmtree(old, ignore_errors=True)
        uv("venv", "--quiet", VENV)  # where it will stand: its scripts name their place
        skeleton().save(empty)
        folder.parent.mkdir(parents=True, exist_ok=True)
        VENV.rename(folder)
    VENV.symlink_to(folder)
    return empty


def skeleton() -> Tar:
    """The files of an empty environment."""
    found: dict[str, bytes | Path] = {}
    tar = of_environment()
    for path in sorted(VENV.rglob("*")):
        name = str(path)[1:]
        if path.is_symlink():
            tar.file(name, b"", Mode(0o777, OWNER, GROUP), kind=SYMTYPE, target=os.readlink(path))
        elif path.is_file():
            found |= with_bytecode(name, path)
        else:
            tar.folder(name)
    add(tar, found, {name for name in found if os.access(f"/{name}", os.X_OK)})
    return tar


def of_environment() -> Tar:
    """A tar file for what is in the environment; all may be changed by its owner and his group."""
    tar = Tar(usual=Mode(0o2775, OWNER, GROUP))
    tar.folder("opt", FOLDER)
    return tar


def add(tar: Tar, files: Mapping[str, bytes | Path], executable: Collection[str]) -> None:
    """Add files of the environment, sorted."""
    for name in sorted(files):
        tar.file(name, files[name], Mode(0o775 if name in executable else 0o664, OWNER, GROUP))


def with_bytecode(name: str, file: Path, mtime: int = EPOCH) -> dict[str, bytes | Path]:
    """A file, and where it is a module of Python in a library, its bytecode, which is the same wherever it is made.

    Python takes it for as long as the file is of the time `mtime`, which the image has it as: who edits one is heard.
    """
    if not name.endswith(".py") or "/lib/" not in name:
        return {name: file}
    content = file.read_bytes()
    try:
        code = compile(content, f"/{name}", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):  # as templates of modules are
        return {name: content}
    bytecode = _code_to_timestamp_pyc(code, mtime, len(content))
    return {name: content, importlib.util.cache_from_source(name): bytes(bytecode)}


def record_of(record: Path) -> bytes:
    """A RECORD without the row about uv's note on a wheel of a folder, which has its time."""
    lines = record.read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if b"/uv_cache.json," not in line)


def rows(record: Path) -> dict[str, str]:
    """The files that a RECORD names, by their path without a leading slash, each with its checksum."""
    site = record.parent.parent
    text = record_of(record).decode().splitlines()
    return {os.path.normpath(f"{site}/{row[0]}")[1:]: row[1] for row in csv.reader(text) if row}


def package_of(record: Path) -> str:
    """The name of the package whose RECORD it is."""
    return canonical(record.parent.name.removesuffix(".dist-info").rpartition("-")[0])


def make(job: tuple[Path, Path]) -> None:
    """Make the piece of one package, in a process of its own: what is compiled leaves traces in later bytecode."""
    record, target = job
    warnings.simplefilter("ignore")  # of modules that are compiled
    found: dict[str, bytes | Path] = {}
    executable: set[str] = set()
    for name in rows(record):
        if EXCLUDED.match(f"/{name}") or "/__pycache__/" in name:
            continue
        own = f"/{name}" == str(record)
        new = {name: record_of(record)} if own else with_bytecode(name, Path(f"/{name}"))
        found |= new
        if os.access(f"/{name}", os.X_OK):
            executable |= new.keys()
    tar = of_environment()
    add(tar, found, executable)
    tar.save(Piece(target))


def make_pieces(packages: Packages, folder: Path) -> dict[str, Piece]:
    """The piece of every package at VENV, by name; the missing ones are made, on all processors, the largest first."""
    records = {package_of(record): record for record in VENV.glob(RECORDS)}
    ways = f"{sys.version} {FORMAT} "
    told = {name: (ways + packages.pins[name].text).encode() for name in records}  # a wheel may be another than it says
    keys = {name: hashlib.sha256(record_of(record) + told[name]).hexdigest() for name, record in records.items()}
    found = {name: Piece(folder / key) for name, key in keys.items()}
    missing = [name for name in records if not found[name].exists]
    if not missing:
        return found
    # Of a file that several packages have, uv keeps the one that came last, by chance, or none if one of them went.
    lost = {name for name in missing if not all(os.path.lexists(f"/{path}") for path in rows(records[name]))}
    for name in sorted((contested(records) | lost) & {*missing}):
        if packages.install("--quiet", "--reinstall", names=[name]).returncode:
            raise Problem("uv could not change what it had installed", words="uv")
        make((records[name], found[name].path))
        missing.remove(name)
    missing.sort(key=lambda name: -records[name].stat().st_size)
    in_processes({name: (records[name], found[name].path) for name in missing})
    return found


def in_processes(jobs: Mapping[str, tuple[Path, Path]]) -> None:
    """Make the pieces of packages, by name, on all processors; stops where one could not be made.

    No pool of processes does it: those of Python wait for ever for one that the system has ended.
    """
    waiting = [*jobs]
    running: dict[str, ForkProcess] = {}
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            name = waiting.pop(0)
            running[name] = get_context("fork").Process(target=make, args=[jobs[name]])
            running[name].start()
        connection.wait([process.sentinel for process in running.values()])
        for name in [name for name, process in running.items() if process.exitcode is not None]:
            ended = running.pop(name)
            if ended.exitcode == -signal.SIGKILL:
                raise Problem(f"{name} is too large for the memory that the engine has; give it more")
            if ended.exitcode:
                raise Problem(f"{name} cannot be packed", words="Python")


def contested(records: Mapping[str, Path]) -> set[str]:
    """The packages that share a file of different content."""
    seen: dict[str, tuple[str, str]] = {}
    found: set[str] = set()
    for package, record in records.items():
        for name, checksum in rows(record).items():
            other, before = seen.setdefault(name, (package, checksum))
            if before != checksum:
                found |= {package, other}
    return found


def pieces(image: str, packages: Packages, cache: Path) -> tuple[Piece, dict[str, Piece]]:
    """The piece of an empty environment, and those of all packages, by name."""
    empty = open_environment(image, cache)
    packages.sync()
    return empty, make_pieces(packages, cache / "pieces")


def closure(name: str, pins: Mapping[str, Pin]) -> list[str]:
    """A package and all that it needs, sorted."""
    return sorted(reached([name], lambda each: pins[each].needs & pins.keys()))
