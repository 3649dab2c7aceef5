"""The Python image that all images start from: a registry's, or bootstrapped from Debian's archive."""

from __future__ import annotations

import hashlib
import io
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
from pyrlab.host.engine import Engine
from pyrlab.host.online import build_environment, check, network, settings
from pyrlab.host.progress import Progress
from pyrlab.host.project import Project
from pyrlab.model.problem import Problem

LABEL = "org.pyrlab.python"  # which Python image an image starts from
REFUSED = r"not found|toomanyrequests|access denied|[Uu]nauthorized"  # what registries say
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


def archive(project: Project) -> Path:
    """The Python image as bootstrapped from Debian's archive."""
    return project.cache / "pyrlab-debian.tar"


def choose_python(project: Project, refresh: bool = False) -> tuple[str, str]:
    """The Python image to start from: what bake calls it, and its identity for the label and the lock.

    BASE=auto stays with what the present images start from; with none, it asks the registry. A registry's image is
    the one that is locked, or that the present ones start from, unless `refresh` asks for the current one.
    """
    base, name = project.parameter("BASE"), project.parameter("PYTHONBASE")
    before = started_from(project.engine.inspect("image", project.tag_of("pyrlab-base")))
    stays = before if name in (before, before.partition("@")[0]) else ""
    known = "" if refresh else locked_python(project, name) or stays
    if base == "registry" or (base == "auto" and stays):
        pinned = known or pin(project.engine, name) or name
        return f"docker-image://{pinned}", pinned
    if base == "auto" and not before.startswith("Debian "):
        if pinned := pin(project.engine, known or name):
            return f"docker-image://{pinned}", pinned
        print(f"pyrlab: no registry answers for {name}; starting from Debian's archive instead", file=sys.stderr)
    if not archive(project).exists() and before.startswith("Debian "):
        return ("target:debian", before)  # bootstrapped again only if something must be built
    return ("target:debian", bootstrap(project))


def started_from(image: dict[str, Any] | None) -> str:
    """The identity of the Python image that an image in the store starts from; empty where there is no such image."""
    return ((image or {}).get("Config", {}).get("Labels") or {}).get(LABEL) or ""


def locked_python(project: Project, name: str) -> str:
    """The image `name` with the digest that is locked, empty where it is not."""
    lowest = (each for each in project.table.locks if locks.is_lowest(project.table, each))
    found = (locks.Lock.read(project.table, project.root, each).made.on for each in lowest)
    return next((on for on in found if on.startswith(f"{name}@")), "")


def pin(engine: Engine, name: str) -> str:
    """The image `name` with the digest that its registry gives, empty where none answers; raises Problem if it refuses.

    Another Python in its place would be a surprise.
    """
    try:  # with --format, some tell no plain digest
        run = engine.call("buildx", "imagetools", "inspect", name, timeout=30)
    except subprocess.TimeoutExpired:
        return ""
    if run.returncode and re.search(REFUSED, run.stderr):
        raise Problem(f"PYTHONBASE={name} cannot be had: {run.stderr.strip().splitlines()[-1].removeprefix('ERROR: ')}")
    digest = re.search(r"^Digest: +(sha256:[0-9a-f]{64})$", run.stdout, re.MULTILINE)
    return f"{name.partition('@')[0]}@{digest[1]}" if digest else ""


def bootstrap(project: Project) -> str:
    """Make the Python image from Debian's archive, once for each recipe; its identity for the label."""
    recipe = [project.root / "docker/debian/Dockerfile", project.root / "docker/pyrlab-base/dpkg.cfg"]
    made = archive(project)
    if not made.exists() or made.stat().st_mtime < max(file.stat().st_mtime for file in recipe):
        check(project)
        print("pyrlab: bootstrapping Debian's Python from the archive", file=sys.stderr)
        project.cache.mkdir(exist_ok=True)
        log = project.cache / "bootstrap.log"
        with tempfile.TemporaryDirectory(dir=project.cache) as folder, Progress([], log) as progress:
            environment = {"FIRST": first(project, Path(folder)), "FOLDER": folder, "STAMP": str(time.time_ns())}
            bake(project, "bootstrap", progress, {**environment, **build_environment(project)})
            (Path(folder) / made.name).replace(made)
            made.touch()  # it is as old as all that is in it
    with made.open("rb") as file:
        return f"Debian {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def first(project: Project, folder: Path) -> str:
    """A Debian to bootstrap in, as bake calls it: made in `folder`, or where this machine is none, a registry's."""
    if source := archive_of_this_machine():
        return unpack(project, source, folder)
    name = project.parameter("PYTHONBASE")
    if pinned := pin(project.engine, locked_python(project, name) or name):
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


def unpack(project: Project, source: str, folder: Path) -> str:
    """Unpack in `folder` what it takes to run mmdebstrap, with this machine's apt, which checks Debian's signatures.

    Nothing is configured, and no root is needed: the files are the engine's root's once they are there.
    """
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()  # of no package: all that is needed is fetched
    (folder / "sources.list").write_text(f"deb [signed-by={KEYS}] {source} trixie main\n")
    (folder / "apt.conf").write_text(APT.format(folder))
    environment = {**project.environment, **settings(project), "APT_CONFIG": f"{folder}/apt.conf"}
    if proxy := environment.get("APTPROXY"):
        environment["http_proxy"] = proxy
    for command in (["update", "--error-on=any"], ["install", "--yes", "--download-only", *PACKAGES]):
        run = subprocess.run(["apt-get", "-q=2", *command], env=environment, capture_output=True, text=True)
        if run.returncode:
            if why := network(project, "explain", run.stderr):
                raise Problem(why)
            print(run.stderr, end="", file=sys.stderr)
            raise Problem("Debian's archive could not be fetched from; apt's own words stand above")
    with tarfile.open(folder / "pyrlab-first.tar", "w") as root:
        for package in sorted((folder / "archives").glob("*.deb")):
            unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
            if unpacked.returncode:
                raise Problem(f"{package.name} of Debian's archive cannot be unpacked; type the command again")
            with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as files:
                for member in files:
                    root.addfile(member, files.extractfile(member) if member.isreg() else None)
    return "target:unpacked"
