#!/usr/bin/env python3
"""Write down what is in an image: manifest.py IMAGE BASE PLAN LAYER.

Looks at the image IMAGE, which starts from the Python image BASE: this very file system. Writes
usr/share/pyrlab/manifest.json in the folder LAYER: every Debian, Python and R package with its version, licence, size
(bytes of its files), and why it is there: the lists of the folder PLAN/asked that name it, the packages that need it,
or the Python image that came with it. What belongs to no package is counted, too.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email import message_from_string
from email.message import Message
from itertools import chain
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from pyrlab.model import events, lists
from pyrlab.model.locked import canonical
from pyrlab.steps import debs, r, trees, wheels
from pyrlab.steps.pieces import EPOCH

ROOT = Path("/")
R_LIBRARIES = ("/usr/local/lib/R/site-library", "/usr/lib/R/site-library", "/usr/lib/R/library")
IN_LIBRARY = re.compile(rf"((?:{'|'.join(R_LIBRARIES)})/[^/]+)/")
PARTS = ("bin/[ip]*", "include/python*/**/*", "lib/libpython*", "lib/pkgconfig/*", "lib/python*/**/*", "share/man/**/*")
JUPYTER = ("jupyterlab", "notebook", "jupyter-server", "ipykernel")
SHOWN = ("ecosystem", "name", "version", "licence", "size", "why")  # of each package


@dataclass
class Package:
    """One package of the image; what it `needs` and `provides` are names of its own ecosystem."""

    ecosystem: str
    name: str
    version: str
    licence: str
    needs: set[str] = field(default_factory=set)
    provides: set[str] = field(default_factory=set)
    part_of: str = ""  # the Debian package that brings a package of R
    size: int = 0
    why: list[str] = field(default_factory=list)


def debian() -> Iterator[Package]:
    """Debian's packages, as dpkg's database has them."""
    for entry in debs.paragraphs((ROOT / "var/lib/dpkg/status").read_text()):
        if entry["Status"].split()[-1] != "installed":
            continue
        name = entry["Package"]
        needs, provides = debs.related(entry, "Depends", "Pre-Depends"), debs.related(entry, "Provides")
        yield Package("Debian", name, entry["Version"], copyright_of(name), {*needs}, {*provides})


def copyright_of(name: str) -> str:
    """The licences that a Debian package's copyright file names in its machine-readable form, if it has that."""
    path = ROOT / f"usr/share/doc/{name}/copyright"
    text = path.read_text(errors="replace") if path.is_file() else ""
    found = re.findall(r"^License:[ \t]*(\S.*)$", text, re.MULTILINE) if "Format:" in text[:300] else []
    return " and ".join(dict.fromkeys(found))


def glob(pattern: str) -> list[Path]:
    """Every file that matches `pattern`, an absolute one."""
    return sorted(ROOT.glob(pattern[1:]))


def python(wanted: Iterable[str]) -> Iterator[Package]:
    """Python's packages of the environment, with what they need here, for the extras that anything asks for."""
    places = [f"{wheels.VENV}/lib/{folder}/*.dist-info/METADATA" for folder in ("python3*/site-packages", "pyrlab")]
    # What comes before a blank line: then it describes itself at length.
    texts = (path.read_text().partition("\n\n")[0] for place in places for path in glob(place))
    found = [message_from_string(text) for text in texts]
    required = [[requirement(text) for text in about.get_all("Requires-Dist", [])] for about in found]
    extras: dict[str, set[str]] = {}
    asked = [requirement(name) for name in map(named, wanted) if name]
    for need in chain(asked, *required):
        extras.setdefault(canonical(need.name), {""}).update(need.extras)
    for about, requirements in zip(found, required, strict=True):
        name = canonical(about["Name"])
        needs = {
            canonical(need.name)
            for need in requirements
            if not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in extras.get(name, {""}))
        }
        yield Package("Python", name, about["Version"], licence_of(about), needs)


def requirement(text: str) -> Requirement:
    """A requirement; where it is older than today's rules for them, which uv forgives, its name."""
    try:
        return Requirement(text)
    except InvalidRequirement:
        return Requirement(re.match(r"[\w.-]+", text)[0])  # type: ignore[index]


def named(line: str) -> str:
    """The package, with its extras, that a line of a list names; of an address, what it is probably called after.

    Empty of a line of options.
    """
    text = line.rpartition("::")[2]
    wheel = re.search(r"\.whl\b", text)
    if not wheel and (repository := re.match(r"[\w.-]+/([\w.-]+)", text)):
        return repository[1]
    if wheel or re.match(r"[\w+]+://", text):
        text = re.split(r"[_-]\d|\.git\b|[@?#]", text.rpartition("/")[2])[0]
    return re.match(r"(?!-)[\w.-]*(\[[\w., -]*\])?|", text)[0]  # type: ignore[index]


def licence_of(about: Message) -> str:
    """The licence that a wheel's metadata names."""
    if "License-Expression" in about:
        return about["License-Expression"]
    classifiers = [text for text in about.get_all("Classifier", []) if text.startswith("License ::")]
    names = " and ".join(text.split(" :: ")[-1] for text in classifiers)
    return names or about.get("License", "").strip().partition("\n")[0]


def r_packages() -> Iterator[tuple[Package, str]]:
    """R's packages, each with the folder it is in."""
    for library in R_LIBRARIES:
        for path in glob(f"{library}/*/Meta/package.rds"):  # of what R calls installed
            folder = path.parent.parent
            about = next(iter(debs.paragraphs((folder / "DESCRIPTION").read_text(errors="replace"))))
            needs = {need.name for need in r.needs(about)}
            yield Package("R", folder.name, about["Version"], about.get("License", ""), needs), str(folder)


def own(packages: dict[tuple[str, str], Package], folders: dict[str, Package]) -> tuple[int, list[int]]:
    """Give every file's bytes to its package; the bytes of all files, and of each that is nobody's."""
    files = sorted(
        (path, status.st_size, status.st_ino if status.st_nlink > 1 else 0)
        for path, item, status in trees.walk(ROOT)
        if not item.is_dir(follow_symlinks=False)
    )
    owners = trees.owners_of(ROOT, (path for path, _, _ in files))
    debian = {owner: packages.get(("Debian", owner.partition(":")[0])) for owner in {*owners.values()}}
    recorded = dict(records())
    nobodys: list[int] = []
    seen: set[int] = set()
    total = 0
    for path, whole, inode in files:
        size = 0 if inode in seen else whole
        if inode:
            seen.add(inode)
        total += size
        in_library = folders.get(found[1]) if (found := IN_LIBRARY.match(path)) else None
        brought = packages.get(recorded.get(trees.source_of(path), ("", "")))
        package = debian.get(owners.get(path, "")) or in_library or brought
        if package:
            package.size += size
        if in_library and in_library is not package:
            in_library.size += size
            in_library.part_of = package.name if package else ""
        if not package:
            nobodys.append(size)
    return total, nobodys


def records() -> Iterator[tuple[str, tuple[str, str]]]:
    """Every file that a wheel, or a Python that is not Debian's, has brought, with the ecosystem and the name."""
    for record in wheels.VENV.glob(wheels.RECORDS):
        package = "Python", wheels.package_of(record)
        for path in wheels.rows(record):
            yield f"/{path}", package
    for pattern in PARTS if sys.base_prefix != "/usr" else ():
        for file in Path(sys.base_prefix).glob(pattern):
            yield str(file), ("base", "python")


def explain(packages: dict[tuple[str, str], Package], wanted: dict[tuple[str, str], list[str]], base: str) -> None:
    """Say of every package why it is there."""
    providers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (ecosystem, name), package in packages.items():
        for provided in (name, *package.provides):
            providers[ecosystem, provided].add(name)
    needed: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (ecosystem, name), package in packages.items():
        for need in package.needs:
            for other in providers[ecosystem, need] - {name}:
                needed[ecosystem, other].add(name)
    for (ecosystem, name), package in packages.items():
        virtual = [each for each in sorted(package.provides) if (ecosystem, each) not in packages]
        package.why = [why for each in (name, *virtual) for why in wanted.get((ecosystem, each), ())]
        package.why += [f"needed by {other}" for other in sorted(needed[ecosystem, name])]
        if not package.why:
            package.why = [f"part of {package.part_of}" if package.part_of else base]


def asked_for(folder: Path) -> dict[tuple[str, str], list[str]]:
    """The packages that lists name, with the lists; each ecosystem has a folder."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        ecosystem, *rest = path.relative_to(folder).parts
        for line in lists.read(path):
            name = line.text.partition("=")[0] if ecosystem == "Debian" else named(line.text)
            keys = [(ecosystem, canonical(name) if ecosystem == "Python" else name)]
            if ecosystem == "R":  # which Debian has under another name
                keys += [("Debian", package) for package in r.in_debian(name)]
            for key in keys if name else ():
                found.setdefault(key, []).append("/".join(rest))
    return found


def main() -> None:
    """Write the manifest; see the module's docstring."""
    name, base, folder, layer = sys.argv[1:]
    in_r = list(r_packages())
    listed = Path(folder) / "asked"
    wanted = [line.text for path in listed.glob("Python/**/*.*") for line in lists.read(path)]
    found = [*debian(), *python(wanted), *(package for package, _ in in_r)]
    if sys.base_prefix != "/usr":
        found.append(Package("base", "python", platform.python_version(), "PSF-2.0"))
    packages = {(package.ecosystem, package.name): package for package in reversed(found)}
    total, nobodys = own(packages, {path: package for package, path in in_r})
    if pdf := packages.get(("Python", "pyrlab-pdf")):  # of every image that starts from pyrlab-base
        pdf.part_of = "pyrlab"
    explain(packages, asked_for(listed), base)
    shown = {"R": ("R", "base"), **{name: ("Python", name) for name in JUPYTER}}
    versions = {title: packages[key].version for title, key in shown.items() if key in packages}
    manifest = {
        "image": name,
        "base": base,
        "architecture": platform.machine(),
        "versions": {"Python": platform.python_version(), **versions},
        "size": total,
        "nobodys": {"size": sum(nobodys), "files": len(nobodys)},
        "packages": [{name: getattr(packages[key], name) for name in SHOWN} for key in sorted(packages)],
    }
    path = Path(layer) / "usr/share/pyrlab/manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    for made in (path, *path.parents[:3]):
        os.utime(made, (EPOCH, EPOCH))


if __name__ == "__main__":
    events.run(main)
