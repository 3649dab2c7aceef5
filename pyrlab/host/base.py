"""The Python image that all images start from: a registry's, or bootstrapped from Debian's archive."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from pyrlab.host import locks
from pyrlab.host.bake import bake
from pyrlab.host.docker import CACHE, ROOT, inspect, parameter, tag_of
from pyrlab.host.online import blame, build_environment, check, settings
from pyrlab.host.progress import Progress
from pyrlab.model.problem import Problem

PYTHON = "python:3.14-slim-trixie"  # where PYTHONBASE names none
ARCHIVE = CACHE / "pyrlab-debian.tar"  # the Python image as bootstrapped from Debian's archive
LABEL = "org.pyrlab.python"  # which Python image an image starts from
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")  # on every Debian
PACKAGES = ["?essential", "apt", "ca-certificates", "mmdebstrap", "python3"]  # of the Debian to bootstrap in
APT = """\
Dir::Etc::SourceList "{0}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{0}";
Dir::State::status "{0}/status";
Dir::Cache "{0}";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
"""


def choose_python(refresh: bool = False) -> tuple[str, str]:
    """The Python image to start from: what bake calls it, and its identity for the label and the lock.

    BASE=auto stays with what the present images start from; with none, it asks the registry. A registry's image is
    the one that is locked, or that the present ones start from, unless `refresh` asks for the current one.
    """
    base, name = parameter("BASE", "auto"), parameter("PYTHONBASE", PYTHON)
    before = started_from(inspect("image", tag_of("pyrlab-base")))
    stays = before if before.partition("@")[0] == name else ""
    known = "" if refresh else locked_python(name) or stays
    if base == "registry" or (base == "auto" and stays):
        pinned = known or pin(name) or name
        return f"docker-image://{pinned}", pinned
    if base == "auto" and not before.startswith("Debian "):
        if pinned := pin(known or name):
            return f"docker-image://{pinned}", pinned
        print(f"pyrlab: no registry answers for {name}; starting from Debian's archive instead", file=sys.stderr)
    if not ARCHIVE.exists() and before.startswith("Debian "):
        return ("target:debian", before)  # bootstrapped again only if something must be built
    return ("target:debian", bootstrap())


def started_from(image: dict[str, Any] | None) -> str:
    """The identity of the Python image that an image in the store starts from; empty where there is no such image."""
    return ((image or {}).get("Config", {}).get("Labels") or {}).get(LABEL) or ""


def locked_python(name: str) -> str:
    """The image `name` with the digest that is locked, empty where it is not."""
    locked = locks.Lock.read(ROOT, "base_debs").python
    return locked if locked.startswith(f"{name}@") else ""


def pin(name: str) -> str:
    """The image `name` with the digest that its registry gives, empty where none answers."""
    command = ["docker", "buildx", "imagetools", "inspect", name]  # with --format, some tell no plain digest
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return ""
    digest = re.search(r"^Digest: +(sha256:[0-9a-f]{64})$", run.stdout, re.MULTILINE)
    return f"{name.partition('@')[0]}@{digest[1]}" if digest else ""


def bootstrap() -> str:
    """Make the Python image from Debian's archive, once for each recipe; its identity for the label."""
    recipe = [ROOT / "docker/debian/Dockerfile", ROOT / "docker/pyrlab-base/dpkg.cfg"]
    if not ARCHIVE.exists() or ARCHIVE.stat().st_mtime < max(file.stat().st_mtime for file in recipe):
        check()
        print("pyrlab: bootstrapping Debian's Python from the archive", file=sys.stderr)
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder, Progress([], CACHE / "bootstrap.log") as progress:
            environment = {"FIRST": first(Path(folder)), "FOLDER": folder, "STAMP": str(time.time_ns())}
            bake(["bootstrap"], progress, {**environment, **build_environment()})
            (Path(folder) / ARCHIVE.name).replace(ARCHIVE)
            ARCHIVE.touch()  # it is as old as all that is in it
    with ARCHIVE.open("rb") as file:
        return f"Debian {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def first(folder: Path) -> str:
    """A Debian to bootstrap in, as bake calls it: made in `folder`, or where this machine is none, a registry's."""
    if source := archive_of_this_machine():
        return unpack(source, folder)
    name = parameter("PYTHONBASE", PYTHON)
    if pinned := pin(locked_python(name) or name):
        return f"docker-image://{pinned}"
    raise Problem(
        f"no registry answers for {name}, and this machine is no Debian, whose apt could fetch from Debian's archive; "
        "PYTHONBASE names an image of another registry, as in make pylab PYTHONBASE=registry.company/python:3.14"
    )


def archive_of_this_machine() -> str:
    """The address of Debian's archive as this machine's apt has it; empty where this is no Debian, or knows none."""
    system = platform.freedesktop_os_release() if KEYS.exists() and shutil.which("apt-get") else {}
    if system.get("ID") != "debian":
        return ""
    said = subprocess.run(["apt-get", "--print-uris", "update"], capture_output=True, text=True).stdout
    suites = {system.get("VERSION_CODENAME"), "trixie", "stable", "testing", "unstable", "sid"}
    found = re.findall(r"^'(\S+)/dists/([\w-]+)/InRelease'", said, re.MULTILINE)
    return next((address for address, suite in found if suite in suites), "")


def unpack(source: str, folder: Path) -> str:
    """Unpack in `folder` what it takes to run mmdebstrap, with this machine's apt, which checks Debian's signatures.

    Nothing is configured, and no root is needed: the files are the engine's root's once they are there.
    """
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()  # of no package: all that is needed is fetched
    (folder / "sources.list").write_text(f"deb [signed-by={KEYS}] {source} trixie main\n")
    (folder / "apt.conf").write_text(APT.format(folder))
    environment = {**os.environ, **settings(), "APT_CONFIG": f"{folder}/apt.conf"}
    if proxy := environment.get("APTPROXY"):
        environment["http_proxy"] = proxy
    for command in (["update", "--error-on=any"], ["install", "--yes", "--download-only", *PACKAGES]):
        run = subprocess.run(["apt-get", "-q=2", *command], env=environment, capture_output=True, text=True)
        if run.returncode:
            if why := blame(run.stderr):
                raise Problem(why)
            print(run.stderr, end="", file=sys.stderr)
            raise Problem("Debian's archive could not be fetched from; apt's own words stand above")
    with tarfile.open(folder / "first.tar", "w") as root:
        for package in sorted((folder / "archives").glob("*.deb")):
            with (
                subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpacking,
                tarfile.open(fileobj=unpacking.stdout, mode="r|") as files,
            ):
                for member in files:
                    root.addfile(member, files.extractfile(member) if member.isreg() else None)
            if unpacking.returncode:
                raise Problem(f"{package.name} of Debian's archive cannot be unpacked; type the command again")
    return "target:unpacked"
