"""Say what is there and what is missing on this machine, and the command that mends it (make doctor)."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pyrlab.docker import Problem, inspect, parameter, run_main
from pyrlab.lab import LABS, check_port, container_name, port_of
from pyrlab.online import ADDRESSES, without_password
from pyrlab.owner import is_own

OLDEST = {"engine": (26, 1), "Buildx": (0, 13), "Compose": (2, 26)}  # what pyrlab is tested with
ROOM = 15e9  # bytes that the four default images and their build cache take


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, and what mends it if it is wrong."""

    subject: str
    found: str
    mend: str = ""


def output(*command: str) -> str | None:
    """The output of a command, None where it fails or is not there."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def version_of(subject: str, text: str | None, missing: str) -> Finding:
    """Whether the version in `text` is one that pyrlab works with."""
    found = re.search(r"(\d+)\.(\d+)[^\s,]*", text or "")
    if not found:
        return Finding(subject, "not there", missing)
    oldest = OLDEST[subject]
    if (int(found[1]), int(found[2])) < oldest:
        return Finding(subject, f"{found[0]}, too old", f"upgrade to {'.'.join(map(str, oldest))} or later")
    return Finding(subject, f"{found[0]} ({'.'.join(map(str, oldest))} or later will do)")


def engine() -> Iterator[Finding]:
    """The engine, Buildx and Compose."""
    if shutil.which("docker") is None:
        yield Finding("engine", "no docker command", "make engine")
        return
    server = output("docker", "version", "--format", "{{.Server.Version}}")
    yield version_of("engine", server, "make engine")
    yield version_of("Buildx", output("docker", "buildx", "version"), "make engine, or install docker-buildx")
    yield version_of(
        "Compose", output("docker", "compose", "version", "--short"), "make engine, or install docker-compose"
    )
    if server:
        store = (
            "containerd"
            if "containerd" in (output("docker", "info", "--format", "{{.DriverStatus}}") or "")
            else "classic"
        )
        root = Path(output("docker", "info", "--format", "{{.DockerRootDir}}") or "/")
        yield Finding("image store", store)
        yield disk(root)


def disk(root: Path) -> Finding:
    """Whether there is room for the images below `root`, or below the nearest folder that this user sees."""
    while not os.access(root, os.R_OK | os.X_OK):
        root = root.parent
    free = shutil.disk_usage(root).free
    mend = "" if free >= ROOM else f"free {(ROOM - free) / 1e9:.0f} GB more: docker system df shows what takes room"
    return Finding("disk", f"{free / 1e9:.0f} GB free for images", mend)


def ports() -> Iterator[Finding]:
    """Whether the ports of the labs are free, or taken by the labs themselves."""
    for lab, name in LABS.items():
        try:
            container = inspect("container", container_name(lab))
        except (Problem, FileNotFoundError):  # of which another line tells
            container = None
        if container and container["State"]["Running"] and is_own(container["Config"]["Labels"]):
            yield Finding(name, f"{lab} runs there")
            continue
        try:
            port = port_of(lab)
            check_port(port, name)
        except Problem as problem:
            yield Finding(name, parameter(name), str(problem))
        else:
            yield Finding(name, f"{port} is free for {lab}")


def user() -> Finding:
    """Who the labs will run as."""
    return Finding("you", f"{getpass.getuser()} ({os.getuid()}:{os.getgid()}); files in ~/work will be yours")


def files() -> Finding:
    """The notebooks folder."""
    path = Path(parameter("FILES", str(Path.home() / "notebooks")))
    if path.exists() and not path.is_dir():
        return Finding("FILES", f"{path} is a file", "name a folder: make start_pylab FILES=…")
    return Finding("FILES", f"{path}{'' if path.is_dir() else ' (will be made)'}")


def proxies() -> Iterator[Finding]:
    """Whether the proxies answer."""
    for name in ADDRESSES:
        address = parameter(name)
        if not address:
            continue
        shown = without_password(address)
        parts = urlsplit(address if "//" in address else f"//{address}")
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=5).close()
        except (OSError, ValueError):
            yield Finding(name, shown, f"{name} does not answer; correct or unset it")
        else:
            yield Finding(name, f"{shown} answers")


def main() -> None:
    """Print the report; exit status 1 where something must be mended."""
    git = output("git", "--version")
    findings = [
        *engine(),
        Finding("git", git.split()[-1]) if git else Finding("git", "not there", "install git"),
        Finding(
            "python3",
            sys.version.split()[0],
            "" if sys.version_info >= (3, 11) else "pyrlab needs Python 3.11 or later",
        ),
        *ports(),
        *proxies(),
        user(),
        files(),
    ]
    for finding in findings:
        print(f"{'ok ' if not finding.mend else '-- '} {finding.subject:<12} {finding.found}")
        if finding.mend:
            print(f"    {'':<12} mend: {finding.mend}")
    if any(finding.mend for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
