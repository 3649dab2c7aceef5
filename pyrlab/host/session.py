"""One run of builds: alone in its checkout, with all that BuildKit is given, followed to the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyrlab.host.bake import wait_for
from pyrlab.host.base import archive as debian
from pyrlab.host.base import bootstrap
from pyrlab.host.online import build_environment, check
from pyrlab.host.progress import Progress
from pyrlab.host.project import Project

LISTS = "lists"  # in the cache: all lists, as steps find them


@dataclass(frozen=True)
class Session:
    """One run of builds: where they start from, and how they are followed."""

    project: Project
    python: str  # the identity of the Python image
    progress: Progress
    environment: dict[str, str]


@contextmanager
def session(project: Project, source: str, python: str) -> Iterator[Session]:
    """Get ready to build from the Python image `source`; raises Problem where a proxy is in the way."""
    check(project)
    if source == "target:debian" and not debian(project).exists():
        python = bootstrap(project)
    shutil.rmtree(project.cache / LISTS, ignore_errors=True)
    project.checkout.stage(project.cache / LISTS)
    environment = {"PYTHON": source, "PYTHON_IMAGE": python}
    with Progress([*project.table], project.cache / "build.log") as progress:
        yield Session(project, python, progress, environment | build_environment(project))


@contextmanager
def alone(project: Project) -> Iterator[None]:
    """Let one build of this checkout run at a time, as `make -j pylab rlab` starts two."""
    path, ours = project.cache / "lock", False
    while not ours:
        project.cache.mkdir(exist_ok=True)
        with path.open("w") as lock:
            wait_for(lock, "command in this checkout")
            ours = path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno()))  # make clean removes it
            if ours:
                yield
