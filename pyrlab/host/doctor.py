"""Say what is there and what is missing on this machine, and the command that mends it (make doctor)."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyrlab.host import owner, parameters
from pyrlab.host.docker import ROOT, inspect, parameter, run_main
from pyrlab.host.engine import OLDEST, Finding, engine_info, fault, is_here, output, storage, version_of
from pyrlab.host.lab import Running, check_port, checked_folder, container_name, ports_of
from pyrlab.host.online import ADDRESSES, without_password
from pyrlab.host.ready import checkout_fault
from pyrlab.model.images import labs
from pyrlab.model.problem import Problem

ROOM = 15e9  # bytes that the four default images and their build cache take


def engine(info: dict[str, Any]) -> Iterator[Finding]:
    """The engine, Buildx and Compose."""
    ill = fault()
    if ill:
        yield ill
    if server := info.get("ServerVersion"):
        yield version_of("engine", server)
    for plugin in (info.get("ClientInfo") or {}).get("Plugins") or []:
        if (name := str(plugin.get("Name")).capitalize()) in OLDEST:
            found = version_of(name, str(plugin.get("Version")))
            if found != ill:
                yield found
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
    for lab, own in labs().items():
        container = inspect("container", container_name(lab)) if answers else None
        if container and container["State"]["Running"] and owner.is_own(container["Config"]["Labels"]):
            yield Finding(own, f"{lab} runs at {Running.of(container).port}")
            continue
        try:
            needed = ports_of(lab)
        except Problem as problem:
            yield Finding(own, parameter(own), str(problem))
            continue
        for name, port in needed.items():
            try:
                check_port(port, name)
            except Problem as problem:
                known = Finding(name, str(port), str(problem))
                yield known if answers else Finding(name, f"{port} is in use, perhaps by {lab}")
            else:
                yield Finding(name, f"{port} is free for {lab}")


def user() -> Finding:
    """Who the labs will run as."""
    return Finding("you", f"{owner.name()} ({os.getuid()}:{os.getgid()}); files in ~/work will be yours")


def files() -> Finding:
    """The notebooks folder."""
    try:
        path = checked_folder()
    except Problem as problem:
        return Finding("FILES", parameter("FILES"), str(problem))
    return Finding("FILES", f"{path}{'' if path.exists() else ' (will be made)'}")


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
