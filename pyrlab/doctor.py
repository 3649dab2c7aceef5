"""Say what is there and what is missing on this machine, and the command that mends it (make doctor)."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyrlab import owner, parameters
from pyrlab.docker import ROOT, Problem, inspect, parameter, run_main
from pyrlab.engine import Finding, engine_info, fault, is_here, output, storage
from pyrlab.lab import LABS, check_port, container_name, port_of
from pyrlab.online import ADDRESSES, without_password
from pyrlab.ready import checkout_fault

OLDEST = {"engine": (26, 1), "Buildx": (0, 13), "Compose": (2, 26)}  # what pyrlab is tested with
ROOM = 15e9  # bytes that the four default images and their build cache take


def version_of(subject: str, text: str) -> Finding:
    """Whether the version in `text` is one that pyrlab works with."""
    found = re.search(r"(\d+)\.(\d+)[^\s,]*", text)
    oldest = ".".join(map(str, OLDEST[subject]))
    if not found:
        return Finding(subject, text or "of no version that is told")
    if (int(found[1]), int(found[2])) < OLDEST[subject]:
        return Finding(subject, f"{found[0]}, too old", f"upgrade to {oldest} or later")
    return Finding(subject, f"{found[0]} ({oldest} or later will do)")


def engine(info: dict[str, Any]) -> Iterator[Finding]:
    """The engine, Buildx and Compose."""
    ill = fault()
    if ill:
        yield ill
    if server := info.get("ServerVersion"):
        yield version_of("engine", server)
    for plugin in (info.get("ClientInfo") or {}).get("Plugins") or []:
        if (name := str(plugin.get("Name")).capitalize()) in OLDEST:
            yield version_of(name, str(plugin.get("Version")))
    if server:
        yield Finding("image store", "containerd" if "containerd" in str(info.get("DriverStatus")) else "classic")
    if server and is_here(info) and not (ill and ill.subject == "disk"):
        yield disk(storage(info))


def disk(root: Path) -> Finding:
    """Whether there is room for the images below `root`."""
    free = shutil.disk_usage(root).free
    mend = "" if free >= ROOM else f"free {(ROOM - free) / 1e9:.0f} GB more: docker system df shows what takes room"
    return Finding("disk", f"{free / 1e9:.0f} GB free for images", mend)


def ports(answers: bool) -> Iterator[Finding]:
    """Whether the ports of the labs are free, or taken by the labs themselves."""
    for lab, name in LABS.items():
        container = inspect("container", container_name(lab)) if answers else None
        if container and container["State"]["Running"] and owner.is_own(container["Config"]["Labels"]):
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
    return Finding("you", f"{owner.name()} ({os.getuid()}:{os.getgid()}); files in ~/work will be yours")


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
        try:
            parts = urlsplit(address if "//" in address else f"//{address}")
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=5).close()
        except (OSError, ValueError):
            yield Finding(name, shown, f"{name} does not answer; correct or unset it")
        else:
            yield Finding(name, f"{shown} answers")


def main() -> None:
    """Print the report; exit status 1 where something must be mended."""
    git = output("git", "--version")
    info = engine_info() if shutil.which("docker") else {}
    wrong = parameters.take()
    found = [
        *engine(info),
        Finding("git", git.split()[-1]) if git else Finding("git", "not there", "install git"),
        Finding("python3", sys.version.split()[0]),
        checkout_fault() or Finding("checkout", str(ROOT)),
        *(
            Finding(name, sentence, "correct it where it comes from: make, local.mk or the environment")
            for name, sentence in wrong.items()
        ),
        *([] if wrong else [*ports(answers=bool(info.get("ServerVersion"))), *proxies(), files()]),
        user(),
    ]
    for each in found:
        print(f"{'-- ' if each.mend else 'ok '} {each.subject:<12} {each.found}")
        if each.mend:
            print(f"    {'':<12} mend: {each.mend}")
    if any(each.mend for each in found):
        sys.exit(1)


if __name__ == "__main__":
    run_main(main, whatever=True)
