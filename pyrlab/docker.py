"""The container engine's command line, and the one way in which pyrlab reports a problem."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
# Named files only: no .env, override or COMPOSE_FILE of the user's steers a lab.
COMPOSE = ["docker", "compose", "--file", "compose.yaml", "--env-file", os.devnull, "--progress", "quiet"]


class Problem(Exception):
    """What went wrong, where, and what to do, in one sentence for the user."""


def run_main(main: Callable[[], None]) -> None:
    """Run `main`; a Problem becomes one line on stderr and exit status 1."""
    try:
        main()
        sys.stdout.flush()
    except Problem as problem:
        sys.exit(f"pyrlab: {problem}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if unread(sys.stderr):  # which is written to while there is still something to do
            os._exit(141)  # as of what SIGPIPE ends; else a reader of stdout, as head or less, has seen enough
    except KeyboardInterrupt:
        sys.exit(130)


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
    if run.returncode and check:
        words = (run.stderr or run.stdout).strip().splitlines()
        raise Problem(f"docker {' '.join(arguments[:2])} failed: {words[-1] if words else run.returncode}")
    return run.stdout


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
    try:
        found: list[dict[str, Any]] = json.loads(docker(kind, "inspect", name))
    except Problem as problem:
        if "no such" not in str(problem).lower():
            raise
        return None
    return found[0]
