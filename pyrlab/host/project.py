"""A checkout, what its user wants of it, and the one way in which make runs something there and reports a problem."""

from __future__ import annotations

import errno
import os
import select
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pyrlab.host import parameters
from pyrlab.host.engine import Engine
from pyrlab.model.problem import Problem

if TYPE_CHECKING:
    from pyrlab.model.checkout import Checkout
    from pyrlab.model.images import Table


@dataclass(frozen=True, eq=False)
class Project:
    """A checkout, and the environment of whoever types make there, with the parameters as they are meant."""

    root: Path
    environment: Mapping[str, str]

    def parameter(self, name: str) -> str:
        """A parameter of the Makefile, or of a lab's own port."""
        return self.environment.get(name) or parameters.DEFAULTS.get(name, "")

    def tag_of(self, name: str) -> str:
        """The name of an image in the engine's store."""
        return f"{name}:{self.parameter('TAG')}"

    @cached_property
    def table(self) -> Table:
        """The images that there are; raises Problem where images.toml cannot be right."""
        from pyrlab.model import images  # noqa: PLC0415  # it takes a moment, and some commands need none

        return images.read((self.root / images.FILE).read_bytes())

    @property
    def checkout(self) -> Checkout:
        """Its lists."""
        from pyrlab.model.checkout import Checkout  # noqa: PLC0415  # likewise

        return Checkout(self.root, self.table)

    def images(self) -> dict[str, dict[str, Any]]:
        """What the engine knows of those images that are there, by their names in its store."""
        tags = [*map(self.tag_of, self.table)]
        found = self.engine.described("image", tags)
        return {name: image for image in found for name in image["RepoTags"] if name in tags}

    @cached_property
    def engine(self) -> Engine:
        """The engine that builds them and runs labs."""
        return Engine(self.root, self.environment)

    @property
    def cache(self) -> Path:
        """The folder of what is made anew where it is gone."""
        return self.root / ".cache"

    @property
    def staged(self) -> Path:
        """The locks that a build uses; the checkout's own change only when it has succeeded."""
        return self.cache / "locks"

    @property
    def apart(self) -> Path:
        """What the images have where the checkout's locks could not be had, or not from here."""
        return self.cache / "resolved"


def run_main(main: Callable[[Project], None], whatever: bool = False) -> None:
    """Run `main` if the parameters are right, or `whatever` they are; a problem becomes one line and exit status 1."""
    root = Path(__file__).resolve().parents[2]
    project = Project(root, os.environ)
    try:
        project = replace(project, environment=parameters.meant(root, os.environ))
        wrong = {} if whatever else parameters.wrong(root, project.environment)
        if wrong:
            sys.exit("\n".join(f"pyrlab: {sentence}" for sentence in wrong.values()))
        main(project)
        sys.stdout.flush()
    except Problem as problem:
        sys.exit("\n".join(f"pyrlab: {sentence}" for sentence in str(problem).splitlines()))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if unread(sys.stderr):  # which is written to while there is still something to do
            os._exit(141)  # as of what SIGPIPE ends; else a reader of stdout, as head or less, has seen enough
    except OSError as error:
        sys.exit(f"pyrlab: {told(project.engine, error)}")
    except (KeyboardInterrupt, EOFError):  # EOFError: Ctrl-D where something is asked
        sys.exit(130)


def told(engine: Engine, error: OSError) -> str:
    """One sentence on what the system has refused."""
    if error.filename == "docker":
        return str(engine.fault() or error)
    if isinstance(error, shutil.Error):  # of a whole folder: the first of those that could not be copied
        _, place, why = error.args[0][0]
        return f"{place} cannot be written: {why}"
    place = f"{error.filename} cannot be used: " if error.filename else ""
    more = "; df -h shows which disk is full" if error.errno == errno.ENOSPC else ""
    return f"{place}{error.strerror or error}{more}"


def unread(stream: TextIO) -> bool:
    """Whether `stream` is a pipe that nobody reads from any more."""
    watch = select.poll()
    watch.register(stream, 0)
    return any(event & select.POLLERR for _, event in watch.poll(0))
