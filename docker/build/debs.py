#!/usr/bin/env python3
"""Install the Debian packages of lists with apt: debs.py LIST [LIST …]."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lists
import network

APT = [
    "apt-get",
    "--quiet=2",
    "--option=Dpkg::Use-Pty=0",
    "--option=Acquire::Retries=3",
    "--option=Binary::apt-get::APT::Keep-Downloaded-Packages=true",  # the cache mount keeps them
]
# A build step that is cut short is thrown away whole, so syncing every file buys nothing.
INSTALL = [*APT, "install", "--yes", "--no-install-recommends", "--option=Dpkg::Options::=--force-unsafe-io"]


def update() -> None:
    """Fetch Debian's package lists, or stop."""
    if network.run([*APT, "update", "--error-on=any"]).returncode:
        sys.exit("pyrlab: apt cannot reach Debian's archive; apt's own words stand above")


def known_packages() -> set[str]:
    """The names of every package, virtual ones included, that apt can install."""
    run = subprocess.run(["apt-cache", "pkgnames"], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def install(names: list[str], whose: str) -> None:
    """Install packages that are known, or stop; `whose` names the list that they are for."""
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    if network.run([*INSTALL, *names]).returncode:
        sys.exit(f"pyrlab: apt could not install the packages of {whose}; apt's own words stand above")


def main() -> None:
    """Install what the lists ask for, or stop with one sentence on the first line that cannot be had."""
    network.connect()
    paths = [Path(path) for path in sys.argv[1:]]
    wanted = [line for path in paths for line in lists.read(path)]
    update()
    known = known_packages()
    for line in wanted:
        if line.text.split("=")[0] not in known:
            lists.fail(line, f"Debian has no package named '{line.text}'", known)
    install([line.text for line in wanted], paths[-1].name)


if __name__ == "__main__":
    main()
