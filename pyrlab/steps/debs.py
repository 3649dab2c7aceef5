#!/usr/bin/env python3
"""Lock the Debian packages of lists, fetch their archives, and let apt install them.

debs.py LOCKS TARGET LIST[,LIST] [BELOW[,BELOW] …]
    Write a lock into the folder TARGET for some lists of one image, called after the last one: every package that apt
    would install where the lists BELOW are there already, with its version. What the folder LOCKS has stays at its
    version as long as Debian's archive has that, but for the packages of UPGRADE. What is wrong with the lists ALSO is
    said, too, so that a user hears all at once.
"""

from __future__ import annotations

import bisect
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote

from pyrlab.model import events, lists
from pyrlab.model.locked import Lock, Locked
from pyrlab.model.problem import Problem
from pyrlab.steps import network

APT = ["apt-get", "--quiet=2"]  # whatever else it is told, network.py tells it
INSTALL = [*APT, "install", "--yes"]
NAME = r"[a-z0-9][a-z0-9+.-]+"  # of a package, as Debian's policy has it
LINE = rf"({NAME})(?:=([^=\s]+))?"  # of a list
NUMBER = re.compile(r"\d+(\.\d+)*")  # in a name, that another release may have otherwise
HELPER = ["/usr/lib/apt/apt-helper", "--option=APT::Sandbox::User=root", "download-file"]
ARCHIVES = Path("/opt/archives")  # in a cache mount, by SHA-256: what was fetched before
# What apt knows of but what is installed and the archives that it is given: nothing.
ALONE = [
    f"--option=Dir::Cache::Archives={ARCHIVES}",
    "--option=Dir::State::Lists=/tmp/none",
    "--option=Dir::Etc::SourceList=/dev/null",
    "--option=Dir::Etc::SourceParts=/dev/null",
    "--allow-downgrades",
]
UPDATED = Path("/var/lib/apt/lists/pyrlab")  # in a cache mount: for whom the lists were fetched
ELSEWHERE = Path("/var/cache/apt/elsewhere")  # in a cache mount: the indices of what pyrlab does not use
MANY = 4  # names that a sentence can hold
POLICY = Path("/usr/sbin/policy-rc.d")  # a registry's image brings one that refuses to start services


def update() -> None:
    """Fetch Debian's package lists, or stop; once for all that is locked at a time."""
    stamp = os.environ.get("STAMP", "")
    if stamp and UPDATED.exists() and UPDATED.read_text() == stamp:
        return
    # Not patient at first: who has no network is told at once, since run() tells of what does not answer.
    command = [*APT, "update", "--error-on=any"]
    if all(network.run([*command, *patience]).returncode for patience in (["--option=Acquire::Retries=0"], [])):
        raise Problem("apt cannot reach Debian's archive", words="apt")
    UPDATED.write_text(stamp)


def apt_cache(*arguments: str) -> str:
    """What apt-cache prints; of what it does not know it says so elsewhere."""
    return subprocess.run(["apt-cache", *arguments], capture_output=True, text=True).stdout


def known_packages() -> set[str]:
    """The names of every package that apt can install, but for virtual ones."""
    return set(apt_cache("pkgnames").split())


@functools.cache
def providers(name: str) -> list[str]:
    """The packages that provide a virtual one."""
    about = apt_cache("showpkg", name)
    if not about.startswith(f"Package: {name}\n"):  # apt-cache takes what it does not know for a pattern
        return []
    shown = about.partition("Reverse Provides: \n")[2]
    return sorted({line.split()[0] for line in shown.splitlines()})


def versions_of(name: str) -> list[str]:
    """The versions of a package that apt can install, the latest first."""
    rows = [row.split("|") for row in apt_cache("madison", name).splitlines()]
    return [*dict.fromkeys(version.strip() for _, version, _ in rows)]


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a file in Debian's control format, which R's DESCRIPTION and PACKAGES share."""
    for block in re.split(r"\n\s*\n", text.strip()) if text.strip() else ():
        joined = re.sub(r"\n\s+", " ", block)
        fields = (line.split(":", 1) for line in joined.splitlines() if ":" in line and not line.startswith(" "))
        yield {name: value.strip() for name, value in fields}


def related(entry: Mapping[str, str], *kinds: str) -> list[str]:
    """The names in the fields of these `kinds`, as Depends, without versions; alternatives are among them."""
    return re.findall(rf"(?:^|[,|])\s*({NAME})", ",".join(entry.get(kind, "") for kind in kinds))


def elsewhere(names: Collection[str]) -> dict[str, dict[str, str]]:
    """What Debian says of those of `names` that another component has, or that the release before had.

    Where the archive in use has no such thing, it is nothing.
    """
    targets = subprocess.run([*APT, "indextargets", "Created-By: Packages"], stdout=subprocess.PIPE, text=True).stdout
    sources = set()
    for target in (target for target in paragraphs(targets) if target.get("Origin") == "Debian"):
        trust = f"[signed-by={target['Signed-By']}] " if target.get("Signed-By", "").startswith("/") else ""
        sources.add(f"deb {trust}{target['Repo-URI']} {target['Release']} contrib non-free non-free-firmware\n")
        if target.get("Suite") == "stable":
            sources.add(f"deb {trust}{target['Repo-URI']} oldstable main\n")
    (ELSEWHERE / "lists").mkdir(parents=True, exist_ok=True)
    (ELSEWHERE / "sources.list").write_text("".join(sorted(sources)))
    places = {
        "Dir::Etc::SourceList": ELSEWHERE / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": ELSEWHERE / "lists",
        "Dir::Cache": ELSEWHERE,
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Retries": "0",
        "Acquire::GzipIndexes": "true",
    }
    options = [f"--option={name}={value}" for name, value in places.items()]
    subprocess.run([*APT, *options, "update"], capture_output=True)
    found: dict[str, dict[str, str]] = {}
    for entry in paragraphs(apt_cache(*options, "show", *names)):
        if "Package" in entry:
            found.setdefault(entry["Package"], entry)
    return found


@functools.cache
def available() -> list[str]:
    """The paragraphs of all packages that apt can install."""
    return apt_cache("dumpavail").split("\n\n")


def replacing(name: str) -> list[str]:
    """The packages that say that they stand in the place of one that there is no more."""
    return [
        entry["Package"]
        for entry in paragraphs("\n\n".join(block for block in available() if name in block))
        if name in related(entry, "Replaces") and name in related(entry, "Breaks", "Conflicts")
    ]


def malformed(text: str, known: set[str]) -> str:
    """What is wrong with a line that has not the form of a name, or of one with a version."""
    if re.search(r"://|\bppa:|\.deb$", text):
        return f"'{text}' is no name; all that a list installs comes from Debian's archive"
    words = re.split(r"[\s,;'\"\\]+", re.sub(r"^.*\binstall\b", "", text))
    names = [word for word in words if re.fullmatch(LINE, word) and (word in known or not word[0].isdigit())]
    if known & {name.partition("=")[0] for name in names}:
        return f"'{text}' is no name; write one name a line: {', '.join(names)}"
    begin = re.match(NAME, text)
    if begin and begin[0] in known:
        return f"'{text}' is no name; write {begin[0]}, or {begin[0]}={versions_of(begin[0])[0]}"
    return f"'{text}' is no name of a Debian package{lists.suggestion(text, known) or '; write one name a line'}"


def unusable(name: str, version: str, known: set[str]) -> str:
    """Why a package that there is cannot be had, in the version if one is asked for; empty if it can."""
    if name in known:
        there = versions_of(name) if version else []
        found = not version or any(fnmatchcase(other, version) for other in there)
        return "" if found else f"Debian has no {name} {version}, but {' and '.join(there)}"
    those = ", ".join(providers(name))
    if version and those:
        return f"{name} is virtual, and has no version; it is provided by {those}"
    return f"{name} is virtual; write one of those that provide it: {those}" if len(providers(name)) > 1 else ""


def missing(name: str, known: set[str], other: dict[str, str]) -> str:
    """Why a package cannot be had that no package of this release is or provides; `other` is what `elsewhere` says."""
    component, slash, _ = other.get("Section", "").partition("/")
    if slash:
        return f"{name} is in Debian's {component}, which pyrlab does not use"
    lacks = f"Debian has no package named '{name}'{' any more' if other else ''}"
    now = [need for need in related(other, "Depends") if need in known]
    if now and re.search("transitional|dummy", other.get("Description", "")):
        return f"{lacks}; it is {' and '.join(now)} now"
    same = sorted(other for other in known if NUMBER.sub("#", other) == NUMBER.sub("#", name))
    if 0 < len(same) <= MANY:
        return f"{lacks}, but {' and '.join(same)}"
    if len(new := replacing(name)) == 1:
        return f"{lacks}; {new[0]} replaces it"
    if other:
        return f"{lacks}; the release before had it"
    return lacks + (other_list(name, known) or lists.suggestion(name, known))


def other_list(name: str, known: set[str]) -> str:
    """In which list a name belongs that is not Debian's, if Debian calls something after it."""
    if f"python3-{name}" in known:
        return "; Python packages go into requirements.txt"
    return "; R packages go into r_packages.txt" if f"r-cran-{name}" in known else ""


def check(lines: list[lists.Line]) -> None:
    """Stop with a sentence on every line that asks for what cannot be had, if there is one."""
    known = known_packages()
    wrong = lists.Problems()
    absent: dict[lists.Line, str] = {}
    for line in lines:
        if not (form := re.fullmatch(LINE, line.text, re.IGNORECASE)):
            wrong.note(malformed(line.text, known), line)
        elif form[1] not in known and not providers(form[1]):
            absent[line] = form[1]
        elif problem := unusable(form[1], form[2] or "", known):
            wrong.note(problem, line)
    others = elsewhere(absent.values()) if absent else {}
    for line, name in absent.items():
        wrong.note(missing(name, known, others.get(name, {})), line)
    wrong.stop()


Versions = dict[str, str]  # of packages, by name


@dataclass(frozen=True)
class Order:
    """What is to be installed on top of what there is."""

    names: list[str] = field(default_factory=list)  # what the lists ask for
    packages: dict[str, Locked] = field(default_factory=dict)  # all that this installs or upgrades, by name
    lock: str = ""  # its name
    removed: list[str] = field(default_factory=list)  # the packages that give way

    @property
    def whose(self) -> str:
        """The name of the list, for sentences."""
        return f"{self.lock.removesuffix('.lock')}.txt"


def roots() -> list[str]:
    """The addresses of the archives that apt is told to use, that of most suites first; it need not know them yet."""
    shown = subprocess.run(["apt-get", "update", "--print-uris"], stdout=subprocess.PIPE, text=True).stdout
    suites = Counter(re.findall(r"^'(\S+?)/(?:dists/\S+|(?:\./)?)InRelease'", shown, re.MULTILINE))
    return [root for root, _ in suites.most_common()]


def fetch(packages: Mapping[str, Locked], lock: str) -> dict[str, Path]:
    """The archives of locked packages, by name, fetched where they are not there yet; or stop."""
    (ARCHIVES / "partial").mkdir(parents=True, exist_ok=True)  # as apt wants it
    found = {name: ARCHIVES / f"{name}_{package.sha256}.deb" for name, package in packages.items()}
    words = ""
    for root in roots() if any(not path.exists() for path in found.values()) else ():
        with tempfile.TemporaryDirectory(dir=ARCHIVES) as folder:
            parts = {name: Path(folder) / path.name for name, path in found.items() if not path.exists()}
            jobs: list[str] = []
            for name, part in parts.items():
                jobs += [f"{root}/{packages[name].file}", str(part), f"SHA256:{packages[name].sha256}"]
            if jobs:
                words += network.run([*HELPER, *jobs]).stderr
            for name in (name for name, part in parts.items() if part.exists()):
                whole = shutil.copyfile(parts[name], f"{parts[name]}.whole")  # of what is on this disk apt makes a link
                Path(whole).replace(found[name])
    if lacking := {name: packages[name].version for name, path in found.items() if not path.exists()}:
        raise lost(lacking, lock, words)
    for path in found.values():
        os.utime(path)  # it is of use
    return found


def lost(versions: Versions, lock: str, words: str) -> Problem:
    """Why some locked packages could not be fetched, told from apt's words."""
    mismatches = re.findall(r"/([^/\s_]+)_\S+\s+Hash Sum mismatch", unquote(words))
    if other := next((name for name in versions if name in mismatches), ""):
        what = f"the file of {other} {versions[other]} that the archive serves is not the one that was locked"
        return Problem(f"{what}; if it is to be trusted, type make upgrade P={other}", lock)
    update()
    now = {name: next(iter(versions_of(name)), "gone") for name in versions}
    if now != versions:
        return moved(lock, versions, now)
    return Problem(f"apt could not fetch {', '.join(versions)} of {lock}", words="apt")


def refused(words: str, whose: str) -> Problem:
    """What apt could not install, told from its words; `whose` names the list."""
    broken = re.search(r"^dpkg: error processing (?:package|archive \S*/)([^\s:_]+)", words, re.MULTILINE)
    what = broken[1] if broken else "the packages"
    both = re.search(r"trying to overwrite '([^']+)', which is also in package (\S+)", words)
    if broken and both:
        why = f"since both have the file {both[1]}"
        return Problem(f"{what} and {both[2]} cannot be installed together, {why}", whose)
    return Problem(f"apt could not install {what} of {whose}", words="apt")


def install(names: list[str], whose: str, *options: str) -> None:
    """Install packages that are known, or stop; `whose` names the list that they are for."""
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    for section in range(1, 9):  # where update-alternatives puts links to pages, or fails, as for Java's
        Path(f"/usr/share/man/man{section}").mkdir(parents=True, exist_ok=True)
    if own := not POLICY.exists():
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    done = network.run([*INSTALL, *options, *names])
    if own:
        POLICY.unlink()
    if done.returncode:
        raise refused(done.stderr, whose)


def installed() -> Versions:
    """The packages that are installed here."""
    form = "${db:Status-Abbrev} ${Package} ${Version}\\n"
    shown = subprocess.run(["dpkg-query", "--show", f"--showformat={form}"], check=True, capture_output=True, text=True)
    rows = (line.split() for line in shown.stdout.splitlines())
    return {name: version for status, name, version in rows if status == "ii"}


def preferred(versions: Versions) -> list[str]:
    """The options with which apt keeps to `versions` where Debian's archive still has them.

    Those that it would take anyway are not named: a few hundred preferences cost it seconds.
    """
    preferences = Path("/tmp/preferences")
    shown = apt_cache("show", "--no-all-versions", *versions) if versions else ""
    taken = {entry["Package"]: entry["Version"] for entry in paragraphs(shown)}
    others = {name: version for name, version in versions.items() if taken.get(name) != version}
    entries = (f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in others.items())
    preferences.write_text("\n".join(entries))
    return [f"--option=Dir::Etc::Preferences={preferences}"]


def plan(names: list[str], keep: Versions, whose: str, lines: Sequence[lists.Line] = ()) -> tuple[Versions, list[str]]:
    """What apt would install for packages that are known, and what it would remove; those of `lines` are among them.

    The versions to `keep` stay, but for those that apt says are in the way, or all where it does not say which.
    """
    done = ask([*names, *(line.text for line in lines)], keep)
    if done.returncode and keep:
        blocking = {*re.findall(r"[\w.+-]+", done.stdout)} & keep.keys()
        return plan(names, {name: keep[name] for name in keep.keys() - (blocking or keep)}, whose, lines)
    if done.returncode:
        check_together(names, lines)
        print(done.stdout)
        raise Problem(f"apt could not install the packages of {whose}", words="apt")
    return changes(done.stdout)


def ask(names: list[str], keep: Versions) -> subprocess.CompletedProcess[str]:
    """Let apt say what it would install for packages, with the versions to `keep`.

    It says so before it prints addresses; to simulate it all, as it also can, takes it seconds more.
    """
    command = [*INSTALL, *preferred(keep), "--quiet=1", "--verbose-versions", "--print-uris", *names]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}  # its sentences are read, whatever language the Python image has
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def changes(said: str) -> tuple[Versions, list[str]]:
    """The versions of the packages that apt says it would install, and the names of those that it would remove."""
    versions: Versions = {}
    removed: list[str] = []
    for title, *lines in (part.splitlines() for part in re.split(r"^The following ", said, flags=re.MULTILINE)):
        found = (match for line in lines if (match := re.match(r" +([\w.+-]+)\S* \((?:\S+ => )?(\S+)\)$", line)))
        rows = {match[1]: match[2] for match in found}
        if re.match(r"NEW packages|packages will be (upgraded|DOWNGRADED)", title):
            versions |= rows
        elif re.match(r"packages will be REMOVED", title):
            removed += rows
    return versions, removed


def check_together(names: list[str], lines: Sequence[lists.Line]) -> None:
    """Stop with the first line that apt cannot install besides `names` and those before, and one that is in its way."""

    def fails(some: Sequence[lists.Line]) -> bool:
        return ask([*names, *(line.text for line in some)], {}).returncode != 0

    if fails([]) or not fails(lines):
        return
    count = bisect.bisect_left(range(len(lines)), True, key=lambda number: fails(lines[: number + 1]))
    last = lines[count]
    for line in lines[:count] if not fails([last]) else ():
        if fails([line, last]):
            both = f"Debian does not let {line.text} and {last.text} be installed together"
            raise Problem(both, lists.place([line, last]))
    raise Problem(f"{last.text} cannot be installed with what else there is", lists.place([last]))


def described(versions: Versions) -> dict[str, Locked]:
    """Packages in versions that apt knows, with their archives."""
    shown = apt_cache("show", *(f"{name}={version}" for name, version in versions.items())) if versions else ""
    found: dict[str, Locked] = {}
    for entry in paragraphs(shown):
        name = entry["Package"]
        if "SHA256" in entry and versions.get(name) == entry["Version"]:
            file = entry["Filename"].removeprefix("./")
            found.setdefault(name, Locked(entry["Version"], file, int(entry["Size"]), entry["SHA256"]))
    if unknown := versions.keys() - found.keys():
        raise Problem(f"the archive names no SHA-256 of {', '.join(sorted(unknown))}, so it cannot be locked")
    return found


def kept(versions: Versions) -> Versions:
    """Those of the `versions` that UPGRADE does not ask to leave."""
    upgrades = os.environ.get("UPGRADE", "").split()
    return {name: version for name, version in versions.items() if not {"*", name} & {*upgrades}}


def moved(lock: str, locked: Versions, found: Versions) -> Problem:
    """Why what the archive has is not what is locked."""
    changes = [f"{name} {locked[name]} is now {found[name]}" for name in sorted(locked) if locked[name] != found[name]]
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return Problem(f"Debian's archive has moved on: {', '.join(changes[:3])}{more}; type make lock", lock, moved=True)


def wanted(paths: Iterable[Path], others: Iterable[Path] = ()) -> list[lists.Line]:
    """The lines of some lists, or stop with a sentence on every wrong one of these and `others`."""
    lines = [line for path in paths for line in lists.read(path)]
    check([*lines, *(line for path in others for line in lists.read(path))])
    return lines


def paths_of(images: list[str]) -> list[list[Path]]:
    """The lists of each image, as a command names them."""
    return [[Path(path).absolute() for path in image.split(",")] for image in images]


def lock_of(folder: Path, paths: list[Path]) -> Path:
    """The lock of some lists."""
    return folder / paths[-1].with_suffix(".lock").name


def lock(folder: Path, target: Path, paths: list[Path], below: list[list[Path]]) -> None:
    """Write the lock of the lists `paths`, where those `below` are there as their locks in `folder` have them."""
    update()
    there = versions_in(lock_of(folder, image) for image in below)
    lines = wanted(paths, map(Path, os.environ.get("ALSO", "").split()))
    keep = kept(versions_in([lock_of(folder, paths)])) | there
    found, removed = plan([*there], keep, paths[-1].name, lines)
    own = described({name: version for name, version in found.items() if there.get(name) != version})
    Lock({"Debian": own}, tuple(removed)).write(lock_of(target, paths))


def versions_in(locks: Iterable[Path]) -> Versions:
    """Debian's packages that some locks have."""
    return {name: version for path in locks for name, version in Lock.read(path).versions("Debian").items()}


def order(folder: Path, paths: list[Path]) -> Order:
    """The order for some lists of one image, as their lock in `folder` has it."""
    path = lock_of(folder, paths)
    lock = Lock.read(path)
    names = [line.text for each in paths for line in lists.read(each)]
    return Order(names, lock.of("Debian"), path.name, [*lock.removed])


def main() -> None:
    """Lock some lists; see the module's docstring."""
    network.connect()
    locks, target, *images = sys.argv[1:]
    paths, *below = paths_of(images)
    lock(Path(locks), Path(target), paths, below)


if __name__ == "__main__":
    events.run(main)
