#!/usr/bin/env python3
"""Prove that what the lists name works in an image: check.py LINES MARKS.

Every R package is loaded, and every Python package imported, in this very file system. LINES is a file that names them,
each with the line of the list that asks for it, and its mark: one that was loaded once, with all that it needs as it is
now, has that in the folder MARKS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pyrlab.model import events, lists
from pyrlab.model.problem import Problem
from pyrlab.steps import r

# A module may want what its package only suggests; a package none of whose modules can be imported is broken.
IMPORTS = r"""
import importlib, importlib.metadata, re, sys
modules = {}
for module, owners in sorted(importlib.metadata.packages_distributions().items()):
    for owner in owners if module.isidentifier() else ():
        modules.setdefault(re.sub("[-_.]+", "-", owner).lower(), []).append(module)
for package in sys.argv[1:]:
    errors = []
    for module in modules.get(package, ()):
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            errors.append(f"{type(error).__name__}: {error}".splitlines()[0])
    if errors and len(errors) == len(modules[package]):
        print(f"{package}\t{errors[0]}", file=sys.stderr)
        sys.exit(1)
"""


def imported(lines: dict[str, lists.Line]) -> None:
    """Import Python packages as the user of a lab, or stop with the line of the first that cannot be imported."""
    environment = {**os.environ, "HOME": "/home/jovyan"}
    command = ["/opt/venv/bin/python", "-c", IMPORTS, *lines]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, user=1000, group=100)
    name, tab, problem = (run.stderr.strip() or "\t").splitlines()[-1].partition("\t")
    if run.returncode and tab and name in lines:
        raise Problem(f"{name} cannot be imported: {problem}", lists.place([lines[name]]))
    if run.returncode:  # it has ended Python itself
        sys.stderr.write(run.stderr)
        raise Problem(f"the packages of {next(iter(lines.values())).list} cannot be imported", words="Python")


def main() -> None:
    """Prove it; see the module's docstring."""
    found, marks = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    marks.mkdir(exist_ok=True)
    for ecosystem, prove in (("R", r.check), ("Python", imported)):
        new = {name: about for name, about in found[ecosystem].items() if not (marks / about[1]).exists()}
        if new:
            prove({name: lists.Line(*line) for name, (line, _) in new.items()})
        for _, mark in new.values():
            (marks / mark).touch()


if __name__ == "__main__":
    events.run(main)
