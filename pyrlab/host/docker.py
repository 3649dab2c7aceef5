"""The container engine's command line, and the one way in which pyrlab reports a problem."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from typing import Any, TextIO

from pyrlab.host import parameters
from pyrlab.host.engine import fault
from pyrlab.model.problem import Problem

ROOT = parameters.ROOT
CACHE = ROOT / ".cache"
# Named files only: no .env, override or COMPOSE_FILE of the user's steers a lab.
COMPOSE = ["docker", "compose", "--file", "compose.yaml", "--env-file", os.devnull, "--progress", "quiet"]

# What the client says of a name where the engine is well.
NONE = r"no such (image|container|volume|network|object)|network \S+ not found|invalid reference"


def run_main(main: Callable[[], None], whatever: bool = False) -> None:
    """Run `main` if the parameters are right, or `whatever` they are; a problem becomes one line and exit status 1."""
    try:
        wrong = parameters.take()
        if wrong and not whatever:
            sys.exit("\n".join(f"pyrlab: {sentence}" for sentence in wrong.values()))
        main()
        sys.stdout.flush()
    except Problem as problem:
        sys.exit("\n".join(f"pyrlab: {sentence}" for sentence in str(problem).splitlines()))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if unread(sys.stderr):  # which is written to while there is still something to do
            os._exit(141)  # as of what SIGPIPE ends; else a reader of stdout, as head or less, has seen enough
    except OSError as error:
        sys.exit(f"pyrlab: {told(error)}")
    except (KeyboardInterrupt, EOFError):  # EOFError: Ctrl-D where something is asked
        sys.exit(130)


def told(error: OSError) -> str:
    """One sentence on what the system has refused."""
    if error.filename == "docker":
        return str(fault() or error)
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


def parameter(name: str, default: str = "") -> str:
    """A parameter of the Makefile, which exports them all."""
    return os.environ.get(name) or default


def tag_of(name: str) -> str:
    """The name of an image in the engine's store."""
    return f"{name}:{parameter('TAG', 'latest')}"


def docker(*arguments: str, check: bool = True) -> str:
    """The output of a docker command; raises Problem with its own last words where it fails."""
    run = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    if check and run.returncode:
        raise failure(arguments, run)
    return run.stdout


def failure(arguments: tuple[str, ...], run: subprocess.CompletedProcess[str]) -> Problem:
    """Why a docker command has failed: what is wrong with the engine, or else its own last words."""
    words = (run.stderr or run.stdout).strip().splitlines()
    own = f"docker {' '.join(arguments[:2])} failed: {words[-1] if words else run.returncode}"
    return Problem(str(fault() or own))


def last_words(container: str) -> None:
    """Print the end of a container's log, whichever stream it is on."""
    log = subprocess.run(["docker", "logs", "--tail", "30", container], capture_output=True, text=True)
    print(f"{log.stdout}{log.stderr}".strip(), file=sys.stderr, flush=True)


def drop_image(identity: str) -> None:
    """Remove an image that no name is left of, if nothing uses it."""
    found = inspect("image", identity)
    if found and not found["RepoTags"]:
        docker("image", "rm", identity, check=False)


def inspect(kind: str, name: str) -> dict[str, Any] | None:
    """What the engine knows of an image, container or volume, None where there is none."""
    found = described(kind, [name])
    return found[0] if found else None


def described(kind: str, names: Collection[str]) -> list[dict[str, Any]]:
    """What the engine knows of those images, containers or volumes that are there."""
    arguments = (kind, "inspect", *names)
    run = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    if run.returncode and not all(re.search(NONE, line, re.IGNORECASE) for line in run.stderr.splitlines()):
        raise failure(arguments, run)
    found: list[dict[str, Any]] = json.loads(run.stdout or "[]")
    return found


def present(*names: str) -> dict[str, dict[str, Any]]:
    """What the engine knows of those images that are there, by their names in its store."""
    return {name: image for image in described("image", names) for name in image["RepoTags"] if name in names}
