"""Say what is there and what is missing on this machine, and the command that mends it (make doctor)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyrlab.host import machine, online, owner, parameters
from pyrlab.host.faults import OLDEST, Finding, is_classic, is_here, storage, version_of
from pyrlab.host.lab import Running, check_port, checked_folder, labs
from pyrlab.host.project import Project, run_main
from pyrlab.host.ready import checkout_fault
from pyrlab.model.problem import Problem
from pyrlab.model.proxies import ADDRESSES

ROOM = 15e9  # bytes that the four default images and their build cache take
CORRECT = "correct it where it comes from: make, local.mk or the environment"


def engine(ill: Finding | None, info: dict[str, Any]) -> Iterator[Finding]:
    """The engine, Buildx and Compose."""
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
        yield Finding("image store", "classic" if is_classic(info) else "containerd")
    if server and is_here(info) and not (ill and ill.subject == "disk"):
        yield disk(storage(info))


def disk(root: Path) -> Finding:
    """Whether there is room for the images below `root`."""
    free = shutil.disk_usage(root).free
    mend = "" if free >= ROOM else f"free {(ROOM - free) / 1e9:.0f} GB more: docker system df shows what takes room"
    return Finding("disk", f"{free / 1e9:.0f} GB free for images", mend)


def ports(project: Project, answers: bool) -> Iterator[Finding]:
    """Whether the ports of the labs are free, or taken by the labs themselves."""
    for lab in labs(project):
        own = project.table.labs[lab.name]
        try:
            container = lab.container if answers else None
            if container and container["State"]["Running"]:
                yield Finding(own, f"{lab.name} runs at {Running.of(container).port}")
                continue
            needed = lab.ports()
        except Problem as problem:
            given = project.parameter(own)
            yield Finding(own, given, str(problem)) if given else Finding(own, f"not set; {lab.name} would want it")
            continue
        for name, port in needed.items():
            try:
                check_port(project.engine, port, name)
            except Problem as problem:
                known = Finding(name, str(port), str(problem))
                yield known if answers else Finding(name, f"{port} is in use, perhaps by {lab.name}")
            else:
                yield Finding(name, f"{port} is free for {lab.name}")


def settings(project: Project) -> Iterator[Finding]:
    """Whether what the user says of certificates, time zone and shared memory is such."""
    for names, look in ((("CACERT",), online.certificates_of), (("TZ", "SHM"), machine.chosen)):
        try:
            look(project)
        except Problem as problem:
            found, _, mend = str(problem).partition("; ")
            yield Finding(found.partition("=")[0], found, mend or CORRECT)
        else:
            yield from (Finding(name, value) for name in names if (value := project.parameter(name)))


def files(project: Project) -> Finding:
    """The notebooks folder."""
    try:
        path = checked_folder(project)
    except Problem as problem:
        return Finding("FILES", project.parameter("FILES"), str(problem))
    return Finding("FILES", f"{path}{'' if path.exists() else ' (will be made)'}")


def proxies(project: Project) -> Iterator[Finding]:
    """Whether the proxies answer."""
    for name in ADDRESSES:
        if not (address := project.parameter(name)):
            continue
        shown = online.without_password(address)
        try:
            parts = urlsplit(address if "//" in address else f"//{address}")
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=5).close()
        except (OSError, ValueError):
            yield Finding(name, shown, f"{name} does not answer; correct or unset it")
        else:
            here = online.names_this_machine(parts.hostname or "")
            mend = f"name this machine by its address in your network: in a container {parts.hostname} is the container"
            yield Finding(name, f"{shown} answers", mend * here)


def main(project: Project) -> None:
    """Print the report; exit status 1 where something must be mended."""
    git = subprocess.run(["git", "--version"], capture_output=True, text=True).stdout if shutil.which("git") else ""
    info = project.engine.info() if shutil.which("docker") else {}
    wrong = parameters.wrong(project.root, project.environment)
    answers = bool(info.get("ServerVersion"))
    found = [
        *engine(project.engine.fault(), info),
        Finding("git", git.split()[2]) if git else Finding("git", "not there", "install git"),
        Finding("python3", sys.version.split()[0]),
        checkout_fault(project) or Finding("checkout", str(project.root)),
        *(Finding(name, sentence, CORRECT) for name, sentence in wrong.items()),
        *([] if wrong else [*ports(project, answers), *proxies(project), *settings(project), files(project)]),
        Finding("you", f"{owner.name()} ({os.getuid()}:{os.getgid()}); files in ~/work will be yours"),
    ]
    for each in found:
        print(f"{'-- ' if each.mend else 'ok '} {each.subject:<12} {each.found}")
        if each.mend:
            print(f"    {'':<12} mend: {each.mend}")
    if any(each.mend for each in found):
        sys.exit(1)


if __name__ == "__main__":
    run_main(main, whatever=True)
