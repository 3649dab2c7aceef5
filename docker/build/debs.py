#!/usr/bin/env python3
"""Install the Debian packages of a list, or those that hold the R packages of a list, with apt.

debs.py LIST [LIST …]    lists of Debian packages
debs.py --r LIST         a list of R packages; Debian names them r-cran-NAME or r-bioc-NAME
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lists

APT = [
    "apt-get",
    "--quiet=2",
    "--option=Dpkg::Use-Pty=0",
    "--option=Acquire::Retries=3",
    "--option=Binary::apt-get::APT::Keep-Downloaded-Packages=true",  # the cache mount keeps them
]
# A build step that is cut short is thrown away whole, so syncing every file buys nothing.
INSTALL = [*APT, "install", "--yes", "--no-install-recommends", "--option=Dpkg::Options::=--force-unsafe-io"]


def known_packages() -> set[str]:
    """The names of every package, virtual ones included, that apt can install."""
    run = subprocess.run(["apt-cache", "pkgnames"], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def r_names(wanted: list[lists.Line], known: set[str]) -> list[str]:
    """Debian's package for each R package, in order; R's own packages (stats, parallel) need none."""
    base = Path("/usr/lib/R/library")
    names = []
    for line in wanted:
        if (base / line.text).is_dir():
            continue
        candidates = [f"r-{archive}-{line.text.lower()}" for archive in ("cran", "bioc")]
        name = next((name for name in candidates if name in known), None)
        if name is None:
            r_known = {
                known_name.split("-", 2)[2] for known_name in known if known_name.startswith(("r-cran-", "r-bioc-"))
            }
            lists.fail(line, f"Debian has no R package named '{line.text}'", r_known)
        names.append(name)
    return names


def check_r(wanted: list[lists.Line]) -> None:
    """Load every R package of the list: R's installers report success for what cannot be loaded."""
    script = 'for (p in commandArgs(TRUE)) if (!suppressWarnings(requireNamespace(p, quietly = TRUE))) cat(p, "\\n")'
    run = subprocess.run(
        ["Rscript", "-e", script, *(line.text for line in wanted)], check=True, capture_output=True, text=True
    )
    broken = set(run.stdout.split())
    for line in wanted:
        if line.text in broken:
            lists.fail(line, f"R cannot load the package '{line.text}' (R's names are case-sensitive)")


def main() -> None:
    """Install what the list asks for, or stop with one sentence on the first line that cannot be had."""
    is_r = sys.argv[1] == "--r"
    paths = [Path(path) for path in sys.argv[1 + is_r :]]
    wanted = [line for path in paths for line in lists.read(path)]
    if subprocess.run([*APT, "update", "--error-on=any"]).returncode:
        sys.exit("pyrlab: apt cannot reach Debian's archive; apt's own words stand above")
    known = known_packages()
    if is_r:
        names = r_names(wanted, known)
    else:
        names = [line.text for line in wanted]
        for line in wanted:
            if line.text.split("=")[0] not in known:
                lists.fail(line, f"Debian has no package named '{line.text}'", known)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run([*INSTALL, *names], env=environment).returncode:
        sys.exit(f"pyrlab: apt could not install the packages of {paths[-1].name}; apt's own words stand above")
    if is_r:
        check_r(wanted)


if __name__ == "__main__":
    main()
