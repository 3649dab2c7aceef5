#!/usr/bin/env python3
"""Resolve a list of R packages, and make pieces of those that are not Debian's: r.py LOCKS TARGET LIST [BELOW …].

Decide for every package, and for all that they need, where it comes from: Debian where it satisfies the list, else
CRAN or a source of its own; and write it into the folder TARGET. What the folder LOCKS has already stays at its
version, but for the packages of UPGRADE; Debian's packages of the lists BELOW are there.

Which repository serves is R's own setting: docker/rlab-base/Rprofile.site takes it from CRAN and BIOC.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from urllib.error import HTTPError

from pyrlab.model import events, lists
from pyrlab.model.checkout import without_passwords
from pyrlab.model.locked import Lock, Locked
from pyrlab.model.problem import Problem
from pyrlab.model.proxies import REPOSITORIES
from pyrlab.steps import debs, network
from pyrlab.steps.network import Run
from pyrlab.steps.pieces import EPOCH, FORMAT, Piece, Tar, content_of, unpack, write

SITE = Path("/usr/local/lib/R/site-library")  # stands before Debian's own library
SETTINGS = Path("/etc/R/Rprofile.site")
PROFILE = Path("/pyrlab/Rprofile.site")  # what the images add to Debian's own
TOLD = Path("/opt/r")  # in a cache mount: what R has told of itself before
SOURCE = "/tmp/source"  # what is compiled, each package in its folder
NAME = r"[A-Za-z][A-Za-z0-9.]*[A-Za-z0-9]"
REFERENCE = re.compile(rf"(?:(cran|bioc)::)?({NAME})(?:(?:@?\s*(>=|==)\s*|@)([0-9][0-9.-]*))?")
GITHUB = re.compile(r"(?:github::)?([\w-]+)/(?!\S+\.tar\.gz)([\w.-]+)(?:@([\w./-]+))?")
GITHUB_ADDRESS = "https://github.com"
OPTION = r"\b(lib|repos|type|version|ref|dependencies|quietly|character\.only)\s*=\s*[^,)]+"  # of R's functions
NEEDS = re.compile(rf"({NAME}|R)\s*(?:\(\s*(>=|==|>|<=|<)\s*([0-9][0-9.-]*)\s*\))?")


@dataclass(frozen=True)
class Need:
    """A package by name that something needs, in a version that `op` compares with `version`, or in any."""

    name: str
    op: str = ""
    version: str = ""

    def met_by(self, version: str) -> bool:
        """Whether `version` will do."""
        if not self.op:
            return True
        have, want = key(version), key(self.version)
        return {">=": have >= want, "==": have == want, ">": have > want, "<=": have <= want, "<": have < want}[self.op]

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.version}".rstrip()


@dataclass(frozen=True)
class Package:
    """A package that can be fetched: what it needs, and the address of its archive."""

    name: str
    version: str
    needs: tuple[Need, ...]
    url: str
    source: str  # cran, bioc, or a reference of the list's own


@dataclass
class Plan:
    """Where each package comes from, and which line of the list it is there for."""

    debian: dict[str, str] = field(default_factory=dict)  # name → version
    fetched: dict[str, Package] = field(default_factory=dict)
    lines: dict[str, lists.Line] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def key(version: str) -> tuple[int, ...]:
    """A version as R compares it: numbers between dots and hyphens."""
    return tuple(int(part) for part in re.split(r"[.-]", version) if part.isdigit())


def upstream(version: str) -> str:
    """R's version of one of Debian: without epoch, revision and what Debian took out."""
    return re.sub(r"[+~].*", "", re.sub(r"^\d+:", "", version).rpartition("-")[0] or version)


def needs(description: dict[str, str]) -> tuple[Need, ...]:
    """What a package needs to be installed and loaded, R itself included."""
    listed = ", ".join(description.get(kind, "") for kind in ("Depends", "Imports", "LinkingTo"))
    found = (NEEDS.fullmatch(part.strip()) for part in listed.split(","))
    return tuple(Need(match[1], match[2] or "", match[3] or "") for match in found if match)


class Unreachable(Exception):
    """An address that gives nothing: which, and why; nothing of a password."""

    def __init__(self, what: str) -> None:
        super().__init__(without_passwords(what))


@dataclass
class Web:
    """Fetches over HTTP as R does, and asks nobody twice."""

    agent: str  # a repository with binaries tells from it for which R and system
    answers: dict[str, bytes | Unreachable] = field(default_factory=dict)

    def get(self, url: str, sha256: str = "") -> bytes:
        """The content at `url`, or what was fetched before with this checksum; raises Unreachable."""
        if url not in self.answers:
            stored = debs.ARCHIVES / sha256
            self.answers[url] = stored.read_bytes() if stored.is_file() else self.fetch(url)
        answer = self.answers[url]
        if isinstance(answer, Unreachable):
            raise answer
        return answer

    def keep(self, content: bytes) -> str:
        """Store what was fetched for builds to come; its checksum."""
        sha256 = hashlib.sha256(content).hexdigest()
        if not (debs.ARCHIVES / sha256).exists():
            write(debs.ARCHIVES / sha256, content)
        return sha256

    def fetch(self, url: str) -> bytes | Unreachable:
        """The content at `url`, or why there is none."""
        try:
            return network.fetch(url, agent=self.agent, timeout=60)
        except HTTPError as error:
            return Unreachable(f"{url} answers {error.code} {error.reason}")
        except OSError as error:
            return Unreachable(f"{url} cannot be reached: {getattr(error, 'reason', error)}")


@dataclass
class Repository:
    """A CRAN-shaped repository, asked only once something is needed from it."""

    contrib: str  # the address of its packages
    web: Web
    source: str

    @cached_property
    def packages(self) -> dict[str, Package]:
        """Its packages by name; raises Unreachable."""
        try:
            text = gzip.decompress(self.web.get(f"{self.contrib}/PACKAGES.gz")).decode(errors="replace")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise Unreachable(f"{self.contrib}/PACKAGES.gz is no index of R packages") from error
        found: dict[str, Package] = {}
        for entry in debs.paragraphs(text):
            name, version = entry["Package"], entry["Version"]
            url = "/".join(filter(None, [self.contrib, entry.get("Path"), f"{name}_{version}.tar.gz"]))
            if name not in found or key(version) > key(found[name].version):  # of several R takes the latest, too
                found[name] = Package(name, version, needs(entry), url, self.source)
        return found

    def find(self, need: Need, sha256: str = "") -> Package | None:
        """The package that meets `need`: the current one, or of an exact version the archived one."""
        current = self.packages.get(need.name)
        if current and need.met_by(current.version):
            return current
        if need.op == "==":
            url = f"{self.contrib}/Archive/{need.name}/{need.name}_{need.version}.tar.gz"
            with suppress(Unreachable):
                return described(self.web.get(url, sha256), url, self.source)
        return None


def opened(archive: bytes) -> tarfile.TarFile:
    """An archive as a tar file."""
    return tarfile.open(fileobj=io.BytesIO(archive))


def commit_of(archive: bytes) -> str:
    """The commit that an archive says it was made of, as those of git do; empty where it says none."""
    try:
        return opened(archive).pax_headers.get("comment", "")
    except (tarfile.TarError, EOFError):
        return ""


def description(archive: bytes) -> dict[str, str]:
    """The DESCRIPTION in an archive; raises TarError or StopIteration where there is none."""
    tree = opened(archive)
    member = next(item for item in tree if re.fullmatch(r"[^/]+/DESCRIPTION", item.name))
    return next(debs.paragraphs(content_of(tree, member).decode(errors="replace")))


def described(archive: bytes, url: str, source: str) -> Package:
    """The package in an archive, as its DESCRIPTION says; raises Unreachable where there is none."""
    try:
        about = description(archive)
        return Package(about["Package"], about["Version"], needs(about), url, source)
    except (tarfile.TarError, EOFError, StopIteration, KeyError) as error:
        raise Unreachable(f"{url} is no archive of an R package") from error


class Wrong(Exception):
    """What is wrong with a line of a list."""


class Outgrown(Exception):
    """A package, by name, that is needed otherwise than locked."""


@dataclass
class Resolver:
    """Decides where each package comes from."""

    cran: Repository
    bioconductor: Repository
    debian: dict[str, str]  # versions by name in lower case
    built_in: dict[str, str]  # versions by name
    locked: dict[str, Locked]  # what stays as it is where it meets all needs
    called: dict[str, str]  # Debian's packages by lower-case name, as R writes it
    plan: Plan = field(default_factory=Plan)

    def want_all(self, lines: list[lists.Line]) -> Plan:
        """Where everything comes from that a list asks for; stops with a sentence on every line that cannot be had."""
        while True:
            self.plan = Plan()
            wrong = lists.Problems()
            try:
                for line in sorted(lines, key=lambda line: "/" not in line.text):  # addresses first
                    try:
                        self.want(line)
                    except (Wrong, Unreachable) as problem:
                        wrong.note(str(problem), line)
            except Outgrown as outgrown:
                del self.locked[str(outgrown)]
            else:
                wrong.stop()
                return self.plan

    def want(self, line: lists.Line) -> None:
        """Take in a line of the list and all that it needs; raises Wrong or Unreachable."""
        if line.text.startswith("url::"):
            if not re.match(r"url::https?://", line.text):
                raise Wrong(f"'{line.text}' has no address that begins with http:// or https://")
            if without_passwords(line.text) != line.text:
                raise Wrong("the user and password of the address would be in the lock; take them out")
            self.want_archive(line.text.removeprefix("url::"), line, line.text)
        elif match := GITHUB.fullmatch(line.text):
            self.want_commit(f"{GITHUB_ADDRESS}/{match[1]}/{match[2]}/archive", match[3] or "HEAD", line)
        elif match := REFERENCE.fullmatch(line.text):
            source, name, op, version = match.groups()
            if (written := self.called.get(name.lower(), name)) != name:
                raise Wrong(f"R has no package named '{name}'; it is called {written}")
            need = Need(name, op or "==", version) if version else Need(name)
            self.need(need, line, repositories=[self.bioconductor, self.cran] if source == "bioc" else [self.cran])
        else:
            raise Wrong(self.malformed(line.text))

    def malformed(self, text: str) -> str:
        """What is wrong with a line that has not the form of a name, or of another reference."""
        other = re.fullmatch(r"(?:conda-forge::)?r-(?:cran-|bioc-)?(\S+)", text)
        if other and other[1] in self.debian:
            return f"'{text}' is Debian's or conda's name; write {self.called.get(other[1], other[1])}"
        if page := re.fullmatch(r"(?:https?://)?github\.com/([\w-]+/[\w.-]+?)(?:\.git)?/?", text):
            return f"'{text}' is the address of a page; write github::{page[1]}"
        if text.startswith(("http://", "https://")):
            return f"'{text}' is no name; of the address of a package's archive, write url::{text}"
        if version := re.fullmatch(rf"({NAME})\s*\(?\s*(>=|={{0,2}})\s*([0-9][0-9.-]*)\)?", text):
            return f"'{text}' is no name; write {version[1]}{'>=' if '>' in version[2] else '@'}{version[3]}"
        if names := named_by_code(text) or self.several(text):
            return f"'{text}' is no name; write one name a line: {', '.join(names)}"
        example = "ggplot2, ggplot2>=3.5, ggplot2@3.5.2, github::owner/repo@ref, bioc::name or url::https://…"
        return f"'{text}' names no R package; write {example}"

    def several(self, text: str) -> list[str]:
        """The packages that a line names, where it has nothing but names."""
        words = [word for word in re.split(r"[\s,;'\"]+", text) if word not in ("", "-")]
        names = words and all(re.fullmatch(NAME, word) for word in words)
        return words if names and {word.lower() for word in words} & self.debian.keys() else []

    def near(self, name: str, known: Iterable[str] = ()) -> str:
        """The question whether one of the names that Debian or a repository has was meant, if there is a near one."""
        debian = {self.called.get(other, other) for other in self.debian}
        return lists.suggestion(name, debian.union(known))

    def want_commit(self, archives: str, ref: str, line: lists.Line) -> None:
        """Take the package of a commit: the locked one, or the one that a branch, tag or HEAD names now."""
        sources = [locked.source.rpartition("#") for locked in self.locked.values()]
        commit = next((commit for reference, _, commit in sources if reference == line.text), "")
        commit = commit or commit_of(self.cran.web.get(f"{archives}/{ref}.tar.gz"))
        self.want_archive(f"{archives}/{commit or ref}.tar.gz", line, f"{line.text}#{commit}" if commit else line.text)

    def want_archive(self, url: str, line: lists.Line, source: str) -> None:
        """Take the package whose archive is at `url`; a lock calls it `source`."""
        sha256 = next((locked.sha256 for locked in self.locked.values() if locked.source == source), "")
        package = described(self.cran.web.get(url, sha256), url, source)
        other = self.plan.fetched.get(package.name, package)
        if other.source != source:
            raise Wrong(f"'{line.text}' contradicts {other.name} {other.version}, which another line needs")
        self.fetch(package, line, [self.cran])

    def need(self, need: Need, line: lists.Line, repositories: list[Repository], by: str = "") -> None:
        """Make sure of one package; `by` names the package that needs it, empty for the list itself. Raises Wrong."""
        name, whose = need.name, f", which {by} needs" if by else ""
        self.plan.lines.setdefault(name, line)
        if name in self.built_in and need.met_by(self.built_in[name]):
            return
        if name == "R":
            raise Wrong(f"{by} needs {need}, but this R is {self.built_in['R']}")
        if fetched := self.plan.fetched.get(name):
            if not need.met_by(fetched.version):
                if name in self.locked:
                    raise Outgrown(name)
                raise Wrong(f"'{need}'{whose} contradicts {name} {fetched.version}, which another line needs")
            return
        ours = self.debian.get(name.lower())
        if ours and need.met_by(ours):
            self.plan.debian[name] = ours
            return
        lacks = f"Debian's {name} is {ours}, not '{need}'" if ours else f"Debian has no R package named '{name}'"
        known: dict[str, Package] = {}
        for repository in repositories:
            try:
                package = self.find(repository, need)
                known |= repository.packages
            except Unreachable as error:
                raise Wrong(f"{lacks}{whose}, and {error}{'' if ours else self.near(name)}") from error
            if package:
                if ours:
                    why = f"{by} needs '{need}'" if by else f"{line.list} line {line.number} wants '{line.text}'"
                    self.plan.notes.append(f"{name} {package.version} stands before Debian's {ours}, as {why}")
                self.fetch(package, line, repositories)
                return
        there = f"; the R repository has {known[name].version}" if name in known else ""
        if ours or there:
            raise Wrong(f"no version of {name} satisfies '{need}'{whose}: Debian has {ours or 'none'}{there}")
        lacks = f"neither Debian nor the R repository has a package named '{name}'{whose}"
        with suppress(Unreachable):
            if name in self.bioconductor.packages:
                raise Wrong(f"{lacks}; Bioconductor has: write bioc::{name}{' in a line before' if by else ''}")
        raise Wrong(f"{lacks}{self.near(name, known)}")

    def find(self, repository: Repository, need: Need) -> Package | None:
        """The package of a repository that meets `need`: the locked one if that does."""
        locked = self.locked.get(need.name)
        if not locked or locked.source != repository.source or not need.met_by(locked.version):
            return repository.find(need)
        return repository.find(Need(need.name, "==", locked.version), locked.sha256) or repository.find(need)

    def fetch(self, package: Package, line: lists.Line, repositories: list[Repository]) -> None:
        """Take `package`, and what it needs."""
        self.plan.debian.pop(package.name, None)
        self.plan.fetched[package.name] = package
        self.plan.lines.setdefault(package.name, line)
        for need in package.needs:
            self.need(need, line, repositories, by=package.name)


def r(script: str, *arguments: str, **environment: str) -> str:
    """What an R script prints."""
    command = ["Rscript", "-e", script, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment).stdout


ABOUT = r"""
base <- installed.packages(.Library, priority = "base")[, "Version"]
cat(getOption("HTTPUserAgent"), getOption("repos")["CRAN"], utils:::.get_repositories()["BioCsoft", "URL"],
    paste("R", getRversion()), paste(names(base), base), sep = "\n")
"""


def named_by_code(text: str) -> list[str]:
    """The packages that a line of R installs or loads, as a list names them."""
    if loaded := re.findall(rf"\b(?:library|require|requireNamespace)\s*\(\W*({NAME})", text):
        return [*dict.fromkeys(loaded)]
    call = re.search(r"\b(install\w*|install\.packages|pkg_install|pak|c|p_load)\s*\((.*)\)", text)
    if not call:
        return []
    found = re.findall(NAME if call[1] == "p_load" else r"[\"']([^\"']+)[\"']", re.sub(OPTION, "", call[2]))
    names = [name for name in found if re.fullmatch(NAME, name) or GITHUB.fullmatch(name)]
    return [f"bioc::{name}" if "BiocManager" in text else f"github::{name}" if "/" in name else name for name in names]


def debian_versions(known: Iterable[str], preferences: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The version of every R package that apt would install, by its name in lower case; and the name as R writes it."""
    names = sorted(name for name in known if re.match(r"r-(cran|bioc)-", name))
    versions, called = {}, {}
    for entry in debs.paragraphs(debs.apt_cache(*preferences, "show", "--no-all-versions", *names)):
        name = entry["Package"].split("-", 2)[2]
        versions[name] = upstream(entry["Version"])
        home = re.search(r"(?:package=|packages/)([\w.]+)", entry.get("Homepage", ""))
        if home and home[1].lower() == name:
            called[name] = home[1]
    return versions, called


def in_debian(name: str) -> list[str]:
    """What Debian may call a package of R's."""
    return [f"r-{archive}-{name.lower()}" for archive in ("cran", "bioc")]


def debian_packages(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Debian's package for each R package that it has, of the `known` ones."""
    found = (next((package for package in in_debian(name) if package in known), "") for name in names)
    return [package for package in found if package]


@dataclass(frozen=True)
class Repositories:
    """What R says of itself and of where its packages come from."""

    agent: str
    cran: str
    bioc: str
    built_in: dict[str, str]  # versions by name, R's own included

    @classmethod
    def note(cls, there: debs.Versions) -> None:
        """Let a build note what R says, so that whoever resolves the list next need not install R to ask it.

        That is so where it is here with the settings that it has there, too.
        """
        if "r-base-core" in there and SETTINGS.read_text().endswith(PROFILE.read_text()):
            cls.recall(there)

    @classmethod
    def recall(cls, locked: debs.Versions) -> Repositories:
        """What R says in the `locked` version, which is installed only where it has not been asked before."""
        version, profile = locked.get("r-base-core"), PROFILE.read_text()
        given = {name: value for name in REPOSITORIES if (value := os.environ.get(name))}
        made_of = [ABOUT, version, profile, platform.machine(), *given]
        record = TOLD / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
        if record.exists():
            return cls.of(record.read_text(), given)
        if debs.installed().get("r-base-core") != version:  # as where lists are resolved
            debs.install(["r-base-core"], "r_debs.txt", *debs.preferred(locked))
            with SETTINGS.open("a") as file:
                file.write(profile)
        told = r(ABOUT, **{name: f"https://{name}" for name in given})  # not kept: there may be a password in it
        if debs.installed()["r-base-core"] == version:
            write(record, told.encode())
        return cls.of(told, given)

    @classmethod
    def of(cls, told: str, given: Mapping[str, str]) -> Repositories:
        """What R has told, with the addresses that are `given` in the place of their names."""
        for name, address in given.items():
            told = told.replace(f"https://{name}", address)
        agent, cran, bioc, *built_in = told.splitlines()
        return cls(agent, cran.rstrip("/"), bioc.rstrip("/"), dict(line.split() for line in built_in))

    @property
    def digest(self) -> str:
        """What they are known by."""
        return hashlib.sha256(f"{self.agent} {self.cran} {self.bioc}".encode()).hexdigest()[:16]

    def root(self, source: str) -> str:
        """The address of the repository of a package of this source."""
        return {"cran": self.cran, "bioc": self.bioc}.get(source, "")

    def addresses(self, name: str, package: Locked) -> list[str]:
        """Where a locked archive is, and where it is once there is a later version."""
        root, (folder, _, file) = self.root(package.source), package.file.rpartition("/")
        return [f"{root}/{package.file}", f"{root}/{folder}/Archive/{name}/{file}"] if root else [package.file]


def resolve(path: Path, below: list[Path], before: Lock) -> Lock:
    """The lock of the list at `path`; what was locked `before`, or is in the locks `below`, stays if it can."""
    wanted = lists.read(path)
    debs.update()
    there = debs.versions_in(below)
    keep = there | debs.kept(before.versions("Debian"))
    here = Repositories.recall(there)
    fetched = {name: before.of("R")[name] for name in debs.kept(before.versions("R"))}
    if before.repositories != here.digest:  # what has the same version need not be the same file
        fetched = {name: replace(package, sha256="") for name, package in fetched.items()}
    web = Web(here.agent)
    cran, bioc = (Repository(f"{here.root(source)}/src/contrib", web, source) for source in ("cran", "bioc"))
    in_archive = debs.known_packages()
    versions, called = debian_versions(in_archive, debs.preferred(keep))
    plan = Resolver(cran, bioc, versions, here.built_in, {**fetched}, called).want_all(wanted)
    for note in plan.notes:
        events.note(note)
    debian = debian_packages(plan.debian, in_archive)
    found: dict[str, Locked] = {}
    for name, package in plan.fetched.items():
        known = fetched.get(name)
        try:
            content = web.get(package.url, known.sha256 if known and known.version == package.version else "")
            renamed(content, name)
        except (Unreachable, tarfile.TarError, EOFError) as error:
            what = f"{name} {package.version} cannot be had: {error}"
            raise Problem(what, lists.place([plan.lines[name]])) from error
        needs = tuple(dict.fromkeys(need.name for need in package.needs if need.name not in here.built_in))
        file, sha256 = package.url.removeprefix(f"{here.root(package.source)}/"), web.keep(content)
        found[name] = Locked(package.version, file, len(content), sha256, package.source, needs)
    installed = debs.installed()
    lacking = [name for name in there if installed.get(name) != there[name]]
    own, removed = debs.plan([*lacking, *debian], keep, path.name) if debian else ({}, [])
    own = {name: version for name, version in own.items() if there.get(name) != version}
    return Lock({"R": found, "Debian": debs.described(own)}, tuple(removed), here.digest)


@dataclass(frozen=True)
class Fetched:
    """What is installed besides Debian's packages, and the lines that everything is there for."""

    packages: dict[str, Locked]
    lines: dict[str, lists.Line]
    debian: debs.Versions  # all of Debian's that will be there
    lock: str  # its name


def order(folder: Path, path: Path, there: debs.Versions) -> tuple[debs.Order, Fetched]:
    """What apt is to install for the list at `path` where some is `there`, and what is fetched, as `folder` has it."""
    file = debs.lock_of(folder, [path])
    lock = Lock.read(file)
    debian = there | lock.versions("Debian")
    lines = needed_for(lists.read(path), lock.of("R"))
    names = debian_packages((name for name in lines if name not in lock.of("R")), debian)
    order = debs.Order(names, lock.of("Debian"), file.name, [*lock.removed])
    return order, Fetched(lock.of("R"), lines, debian, file.name)


def needed_for(wanted: list[lists.Line], fetched: dict[str, Locked]) -> dict[str, lists.Line]:
    """The packages that a list names, and what those that are `fetched` need, each with the first line it is for."""
    by_source = {package.source.partition("#")[0]: name for name, package in fetched.items()}
    found: dict[str, lists.Line] = {}
    for line in wanted:
        match = REFERENCE.fullmatch(line.text)
        pending = [by_source.get(line.text.partition("#")[0]) or (match[2] if match else line.text)]
        while pending:
            name = pending.pop(0)
            if name not in found:
                found[name] = line
                pending += fetched[name].needs if name in fetched else ()
    return found


def renamed(archive: bytes, name: str) -> tarfile.TarFile:
    """The archive with its one folder called after the package, as R wants it; GitHub's are called REPO-REF."""
    tree = opened(archive)
    for member in tree:
        member.name = "/".join([name, *member.name.split("/")[1:]])
    return tree


# Stripping alone would leave a build id that was made from the debug information.
MAKEVARS = "".join(
    f"{name}FLAGS += -g0\n" for name in ("C", "CXX", "CXX11", "CXX14", "CXX17", "CXX20", "CXX23", "F", "FC")
)


def library(fetched: Fetched, prepare: Callable[[], None], folder: Path) -> dict[str, Piece]:
    """The pieces of what was fetched, by name, in `folder`; where one must be made, `prepare` is called first."""
    found = {name: Piece(folder / f"r-{key}") for name, key in cache_keys(fetched).items()}
    missing = [name for name in found if not found[name].exists]
    if not missing:
        return found
    prepare()
    archives = fetch(fetched, missing)
    if any(compiles(archive) for archive in archives.values()):
        debs.update()
        debs.install(["r-base-dev"], "r_packages.txt")
    unpack([found[name] for name in found if name not in missing], Path("/"))
    Path("/tmp/Makevars").write_text(MAKEVARS)
    for name, run in in_order(archives, fetched.packages):
        if run.returncode:
            print("\n".join(run.stdout.replace(f"{SOURCE}/", "").splitlines()[-25:]))
            what = f"{name} {fetched.packages[name].version} could not be installed{hint(run.stdout)}"
            raise Problem(what, place(fetched.lines[name], name), words="R")
        version = fetched.packages[name].version
        installed(name).save(found[name], {"ecosystem": "R", "name": name, "version": version})
    return found


def fetch(fetched: Fetched, names: Iterable[str]) -> dict[str, bytes]:
    """The archives of some packages, by name, each the very file that is locked; or stop."""
    found: dict[str, bytes] = {}
    here = Repositories.of(r(ABOUT), {})
    web = Web(here.agent)
    for name in names:
        package, where = fetched.packages[name], lists.place([fetched.lines[name]])
        try:
            content, address = first(web, here.addresses(name, package), package.sha256)
        except Unreachable as error:
            raise Problem(f"{name} {package.version} cannot be had: {error}", where) from error
        if web.keep(content) != package.sha256:
            what = f"{name} {package.version} from {without_passwords(address)} is not what {fetched.lock} has"
            raise Problem(f"{what}; if it is to be trusted, type make upgrade P={name}", where)
        found[name] = content
    return found


def first(web: Web, addresses: list[str], sha256: str) -> tuple[bytes, str]:
    """What the first of some addresses gives that gives anything, and that address; raises Unreachable."""
    *others, last = addresses
    for address in others:
        with suppress(Unreachable):
            return web.get(address, sha256), address
    return web.get(last, sha256), last


def installed(name: str) -> Tar:
    """The files of a package in the library, in the order of their names, all of one time."""
    tar = Tar()
    tar.folder(str(SITE)[1:])
    for path in sorted([SITE / name, *(SITE / name).rglob("*")]):
        tar.from_disk(Path("/"), str(path)[1:], EPOCH)
    return tar


def in_order(archives: dict[str, bytes], fetched: dict[str, Locked]) -> Iterator[tuple[str, Run]]:
    """Install archives, by name, as soon as what they need is installed; each with how it went."""
    order = TopologicalSorter({name: [need for need in fetched[name].needs if need in archives] for name in archives})
    order.prepare()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running: dict[Future[Run], str] = {}
        while order.is_active():
            running |= {pool.submit(install_archive, name, archives[name]): name for name in order.get_ready()}
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(done)
                yield name, done.result()
                order.done(name)


def install_archive(name: str, archive: bytes) -> Run:
    """Install one archive to SITE, from a folder whose path, which the help pages keep, is always the same."""
    renamed(archive, name).extractall(SOURCE, filter="data")
    options = ["--strip", "--pkglock", "--built-timestamp=2026-01-01", f"--library={SITE}"]
    environment = {**os.environ, "R_MAKEVARS_USER": "/tmp/Makevars", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    environment["SOURCE_DATE_EPOCH"] = str(EPOCH)
    command = ["R", "CMD", "INSTALL", *options, f"{SOURCE}/{name}"]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def place(line: lists.Line, name: str) -> str:
    """Where the list asks for a package, and with what, if it is not named there itself."""
    return f"{line.list} line {line.number}" + ("" if name in line.text else f" ('{line.text}')")


MISSING = {  # what the words of a compiler tell
    r"^\W*deb: +(\S+)": "Debian's {0}: add it",
    r"fatal error: (\S+): No such file or directory": "the header {0}: add the Debian package that has it",
    r"((lib\S+?)\.so\.?([.0-9]*)): cannot open shared object file": (
        "the library {0}: add its Debian package, {1}{2} by Debian's naming,"
    ),
    r"cannot find -l(\S+?):": "the library {0}: add its Debian package, lib{0}-dev,",
    r"\b([\w.+-]+): (?:command )?not found$": "the program {0}: add the Debian package that has it",
}


def hint(words: str) -> str:
    """What is missing, where the words of a compiler tell."""
    for pattern, what in MISSING.items():
        if match := re.search(pattern, words, re.MULTILINE):
            return f", for want of {what.format(*match.groups())} to r_debs.txt"
    return ""


def compiles(archive: bytes) -> bool:
    """Whether installing the archive takes a compiler: it has sources, and is not built yet."""
    sources = any(re.match(r"[^/]+/src/.", name) for name in opened(archive).getnames())
    return sources and "Built" not in description(archive)


def cache_keys(fetched: Fetched) -> dict[str, str]:
    """A digest of all that each package is made of, by name: its archive, R, Debian's headers, and what it needs."""
    headers = sorted(pin for pin in fetched.debian.items() if pin[0].endswith("-dev"))
    needs = {name: fetched.packages.keys() & {*package.needs} for name, package in fetched.packages.items()}
    found: dict[str, str] = {}
    for name in TopologicalSorter(needs).static_order():
        package = fetched.packages[name]
        total = hashlib.sha256(
            f"{FORMAT} {platform.machine()} {fetched.debian.get('r-base-core')} {headers} {package.sha256}".encode()
        )
        for need in sorted(package.needs):
            versions = " ".join(fetched.debian.get(each, "") for each in in_debian(need))
            total.update(found.get(need, versions).encode())
        found[name] = total.hexdigest()
    return found


CHECK = r"""
for (name in commandArgs(TRUE)) tryCatch(
    suppressWarnings(suppressPackageStartupMessages(library(name, character.only = TRUE))),
    error = function(error) cat("\npyrlab\t", name, "\t", gsub("\\s+", " ", conditionMessage(error)), "\n", sep = "")
)
"""


def check(lines: dict[str, lists.Line]) -> None:
    """Load every package: R's installers report success for what cannot be loaded."""
    loaded = [name for name in lines if name != "R"]
    try:
        said = r(CHECK, *loaded)
    except subprocess.CalledProcessError as error:  # a package has ended R itself
        print(error.stderr)
        what = f"the packages of {next(iter(lines.values())).list} cannot be loaded"
        raise Problem(what, words="R") from error
    rows = (row.split("\t", 2) for row in said.splitlines() if row.startswith("pyrlab\t"))
    for _, name, reason in rows:
        own = re.search(rf"there is no package called \W{re.escape(name)}\W", reason)
        problem = "R's names are case-sensitive" if own else reason
        why = hint(problem) or f" ({problem})"
        raise Problem(f"R cannot load the package '{name}'{why}", place(lines[name], name))


def main() -> None:
    """Lock; see the module's docstring."""
    network.connect()
    locks, target, *images = sys.argv[1:]
    [path], *below = debs.paths_of(images)
    before = Lock.read(debs.lock_of(Path(locks), [path]))
    others = [debs.lock_of(Path(locks), paths) for paths in below]
    resolve(path, others, before).write(debs.lock_of(Path(target), [path]))


if __name__ == "__main__":
    events.run(main)
