"""Containers of an image as anybody starts them, and what they say when asked."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from checkout import ROOT, docker, log

CELL = (ROOT / "tests/make/cell.py").read_text()
HEALTHY_WITHIN = 60  # seconds


@contextmanager
def started(*arguments: str) -> Iterator[str]:
    """A container with these arguments of docker run."""
    name = docker("run", "--detach", "--health-start-interval=200ms", *arguments)
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def health(container: str) -> str:
    """What the engine thinks of a container, once it has made up its mind."""
    end = time.monotonic() + HEALTHY_WITHIN
    while time.monotonic() < end:
        state = json.loads(docker("inspect", "--format={{json .State}}", container))
        if state["Health"]["Status"] != "starting" or not state["Running"]:
            break
        time.sleep(0.1)
    return str(state["Health"]["Status"])


def said(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a container to its end."""
    return subprocess.run(["docker", "run", "--rm", *arguments], capture_output=True, text=True)


def run_cell(container: str, kernel: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run a cell in a new kernel of a container's server."""
    command = ["docker", "exec", container, "/opt/venv/bin/python", "-I", "-c", CELL, kernel, code]
    return subprocess.run(command, capture_output=True, text=True)


def cell(container: str, kernel: str, code: str) -> str:
    """What a cell prints that must succeed."""
    run = run_cell(container, kernel, code)
    assert run.returncode == 0, run.stderr + log(container)
    return run.stdout.strip()


def ask(container: str, url: str, token: str = "none", method: str = "GET") -> tuple[int, str]:
    """The status and the text of what is asked from within a container."""
    curl = ["curl", "-s", "-m", "20", "-X", method, "-H", f"Authorization: token {token}", "-w", "\n%{http_code}", url]
    text = subprocess.run(["docker", "exec", container, *curl], capture_output=True, text=True).stdout
    return int(text.rpartition("\n")[2] or 0), text.rpartition("\n")[0]


def until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether the condition comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
