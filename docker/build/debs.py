#!/usr/bin/env python3
"""Lock the Debian packages of lists, and install them with apt.

debs.py lock PREVIOUS LOCKS LIST[,LIST] [LIST[,LIST] …]
    Write a lock into the folder LOCKS for the lists of each image, parents first, called after the last list: every
    package that apt would install, with its version. What the folder PREVIOUS locked stays at its version as long as
    Debian's archive has that, but for the packages of UPGRADE.

debs.py install LOCKS LIST[,LIST] [LIST[,LIST] …]
    Install the last lists, exactly as locked, where the others are installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import lists
import network

APT = ["apt-get", "--quiet=2"]  # whatever else it is told, network.py tells it
INSTALL = [*APT, "install", "--yes"]
POLICY = Path("/usr/sbin/policy-rc.d")  # a registry's image brings one that refuses to start services


def update() -> None:
    """Fetch Debian's package lists, or stop."""
    if network.run([*APT, "update", "--error-on=any"]).returncode:
        sys.exit("pyrlab: apt cannot reach Debian's archive; apt's own words stand above")


def known_packages() -> set[str]:
    """The names of every package, virtual ones included, that apt can install."""
    run = subprocess.run(["apt-cache", "pkgnames"], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def install(names: list[str], whose: str, *options: str) -> None:
    """Install packages that are known, or stop; `whose` names the list that they are for."""
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    if own := not POLICY.exists():
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    code = network.run([*INSTALL, *options, *names]).returncode
    if own:
        POLICY.unlink()
    if code:
        sys.exit(f"pyrlab: apt could not install the packages of {whose}; apt's own words stand above")


Versions = dict[str, str]  # of packages, by name


def preferred(versions: Versions) -> list[str]:
    """The options with which apt keeps to `versions` where Debian's archive still has them."""
    preferences = Path("/tmp/preferences")
    entries = (f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in versions.items())
    preferences.write_text("\n".join(entries))
    return [f"--option=Dir::Etc::Preferences={preferences}"]


def simulate(names: list[str], keep: Versions, whose: str) -> Versions:
    """What apt would install for packages that are known, dependencies and upgrades included.

    The versions to `keep` stay, but for those that apt says are in the way, or all where it does not say which.
    """
    command = [*INSTALL, *preferred(keep), "--simulate", *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode and keep:
        blocking = {*re.findall(r"[\w.+-]+", done.stdout)} & keep.keys()
        return simulate(names, {name: keep[name] for name in keep.keys() - (blocking or keep)}, whose)
    if done.returncode:
        print(done.stdout)
        sys.exit(f"pyrlab: apt could not install the packages of {whose}; apt's own words stand above")
    return dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", done.stdout, re.MULTILINE))


def read_lock(path: Path) -> Versions:
    """The versions that a lock names."""
    return dict(line.split() for line in path.read_text().splitlines() if not line.startswith("#"))


def write_lock(path: Path, versions: Versions) -> None:
    """Write the lock `path`, a package a line."""
    path.write_text("".join(f"{name} {versions[name]}\n" for name in sorted(versions)))


def kept(versions: Versions) -> Versions:
    """Those of the `versions` that UPGRADE does not ask to leave."""
    upgrades = os.environ.get("UPGRADE", "").split()
    return {name: version for name, version in versions.items() if not {"*", name} & {*upgrades}}


def moved(lock: Path, locked: Versions, found: Versions) -> str:
    """Why what apt found is not what is locked; make tells by it that the lock must be made again."""
    changes = [
        f"{name} {locked.get(name, '(none)')} is now {found.get(name, 'gone')}"
        for name in sorted(locked.keys() | found.keys())
        if locked.get(name) != found.get(name)
    ]
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return f"pyrlab: {lock.name}: Debian's archive has moved on: {', '.join(changes[:3])}{more}; type make lock"


def texts(paths: list[Path]) -> list[str]:
    """The packages of lists that are known, or stop with one sentence on the first line that cannot be had."""
    wanted = [line for path in paths for line in lists.read(path)]
    known = known_packages()
    for line in wanted:
        if line.text.split("=")[0] not in known:
            lists.fail(line, f"Debian has no package named '{line.text}'", known)
    return [line.text for line in wanted]


def lock_of(folder: Path, paths: list[Path]) -> Path:
    """The lock of some lists."""
    return folder / paths[-1].with_suffix(".lock").name


def lock(previous: Path, folder: Path, images: list[list[Path]]) -> None:
    """Write the locks of the lists of each of `images`, parents first."""
    update()
    keep = kept({k: v for paths in images for k, v in read_lock(lock_of(previous, paths)).items()})
    below: Versions = {}
    for paths in images:
        found = simulate([*below, *texts(paths)], keep | below, paths[-1].name)
        write_lock(lock_of(folder, paths), {k: v for k, v in found.items() if below.get(k) != v})
        below = found


def install_locked(folder: Path, images: list[list[Path]]) -> None:
    """Install the lists of the last of `images` in the versions of their lock, or stop."""
    update()
    locks = [lock_of(folder, paths) for paths in images]
    locked = read_lock(locks[-1])
    keep = {k: v for path in locks for k, v in read_lock(path).items()}
    names, whose = texts(images[-1]), images[-1][-1].name
    if (found := simulate(names, keep, whose)) != locked:
        sys.exit(moved(locks[-1], locked, found))
    install(names, whose, *preferred(keep))


def main() -> None:
    """Dispatch; see the module's docstring."""
    verb, *rest = sys.argv[1:]
    network.connect()
    count = 2 if verb == "lock" else 1
    folders = [Path(argument) for argument in rest[:count]]
    images = [[Path(path) for path in argument.split(",")] for argument in rest[count:]]
    if verb == "lock":
        lock(folders[0], folders[1], images)
    else:
        install_locked(folders[0], images)


if __name__ == "__main__":
    main()
