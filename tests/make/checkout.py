"""What all tests use: this checkout and copies of it, make, docker and git as a user types them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pyrlab.host import idmap, locks
from pyrlab.host.project import Project

ROOT = Path(__file__).resolve().parent.parent.parent
CHECKOUT = Project(ROOT, os.environ)
MAKES = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "P")  # what make tells those that it runs
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")  # of several that run tests side by side
TAG = "test"  # of the default images
MINE = hashlib.sha256(str(ROOT).encode()).hexdigest()[:4]  # in the names of whatever this checkout's tests make
TINY = f"tiny-{MINE}"  # of the images of the tiny lists
CHANGED = f"{TINY}-changed"  # of those of the tiny lists once they were changed
NAMES = tuple(name for name, image in CHECKOUT.table.items() if image.default)  # of the images, parents first
PROJECT = f"pyrlab-{MINE}{WORKER}"  # prefix of the containers and volumes that are started here

# Lists that are built in seconds: a large wheel and one with a compiled extension, a few Debian packages, and R.
TINY_LISTS = {
    "base_debs.txt": ["curl", "git", "less", "wget"],
    "requirements.txt": ["duckdb", "simplejson"],
    "r_debs.txt": ["r-base-core"],
    "r_packages.txt": ["IRkernel"],
}

Run = subprocess.CompletedProcess[str]
Make = Callable[..., Run]


def users_environment() -> dict[str, str]:
    """The environment of a user who types make: without a screen, and not from within make test P=…."""
    return {name: value for name, value in os.environ.items() if name not in ("DISPLAY", *MAKES)}


def docker(*arguments: str) -> str:
    """The output of a docker command that must succeed.

    What a container prints that just ends, a busy engine waits for two seconds long; where there is nothing, it runs
    once more.
    """
    command = ["docker", *arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if arguments[:2] == ("run", "--rm") and not said:
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return said


def git(folder: Path, *arguments: str) -> str:
    """The output of a git command that must succeed in `folder`."""
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
    run = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return run.stdout.strip()


def layers(image: str, engine: Callable[..., str] = docker) -> list[str]:
    """The digests of an image's layers, lowest first."""
    found: list[str] = json.loads(engine("image", "inspect", image, "--format", "{{json .RootFS.Layers}}"))
    return found


def state(tag: str) -> dict[str, str]:
    """The identity of each image in the engine's store."""
    return {name: docker("image", "inspect", f"{name}:{tag}", "--format", "{{.Id}}") for name in NAMES}


def build_records(word: str, engine: Callable[..., str] = docker) -> list[str]:
    """The records of the build cache whose description has the word, each beginning with its id."""
    records = re.split(r"^ID:\s+", engine("buildx", "du", "--verbose"), flags=re.MULTILINE)[1:]
    return [record for record in records if word in record]


def copy_checkout(copy: Path, source: Path = ROOT) -> Path:
    """Copy a checkout as it is now, with what was bootstrapped and what it knows of its images, but without git."""
    left_out = shutil.ignore_patterns(
        *(".venv", ".git", "screenshots", "__pycache__", "r-repositories-*", "test-host", "*.tar", "tmp*")
    )
    # What another worker's build of the same checkout may be writing just now, and makes anew each time.
    under_way = shutil.ignore_patterns("lock", "locks", "lists", "plan", "manifests", "*.part")

    def ignored(folder: str, names: list[str]) -> set[str]:
        return left_out(folder, names) | (under_way(folder, names) if Path(folder) == source / ".cache" else set())

    shutil.copytree(source, copy, ignore=ignored)
    for archive in (source / ".cache").glob("*.tar"):
        (copy / ".cache" / archive.name).hardlink_to(archive)
    return copy


def write_lists(checkout: Path, lists: dict[str, list[str]]) -> None:
    """Give a checkout these lists."""
    for name, lines in lists.items():
        (checkout / name).write_text("".join(f"{line}\n" for line in lines))


def run_make(checkout: Path, *targets: str, **parameters: str | int) -> Run:
    """Run make in `checkout` as a user would, with the tests' own names; nobody is there to answer questions."""
    settings = {"TAG": TAG, "PROJECT": PROJECT, **{name: str(value) for name, value in parameters.items()}}
    arguments = [f"{name}={value}" for name, value in settings.items()]
    command = ["make", "--no-print-directory", *targets, *arguments]
    return subprocess.run(
        command, cwd=checkout, env=users_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def run_shell(checkout: Path, command: str, **parameters: str) -> Run:
    """Run a command of the shell in `checkout`, with parameters in the environment; what it prints is in one stream."""
    environment = {**users_environment(), "PROJECT": PROJECT, "MAKEFLAGS": "--no-print-directory", **parameters}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def succeeded(run: Run) -> str:
    """What a make that must succeed printed."""
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def refusal(run: Run) -> str:
    """The sentence with which make refuses."""
    assert run.returncode != 0, run.stdout
    [sentence] = [line for line in run.stderr.splitlines() if line.startswith("pyrlab: ")]
    return sentence


def remove_images(*tags: str) -> None:
    """Remove the images of some tags, and what is noted of whose they are."""
    for tag in tags:
        images = [f"{name}:{tag}" for name in reversed(NAMES)]
        subprocess.run(["docker", "image", "rm", *images], capture_output=True)
        subprocess.run(["docker", "volume", "rm", f"pyrlab_tag_{tag}"], capture_output=True)


@contextmanager
def tagged(tag: str, source: str = TINY) -> Iterator[None]:
    """The images under another tag, too, so that a test can rebuild them."""
    for name in NAMES:
        docker("tag", f"{name}:{source}", f"{name}:{tag}")
    try:
        yield
    finally:
        remove_images(tag)


def forge(checkout: Path, name: str, package: str) -> None:
    """Let the lock `name` of a checkout have other checksums for a package than its files have."""
    lock = locks.Lock.read(CHECKOUT.table, checkout, name)
    block = re.search(rf"^{package}\b.*\n( .*\n)*", lock.content, re.MULTILINE)
    assert block
    forged = lock.content.replace(block[0], re.sub(r"\b[0-9a-f]{64}\b", "0" * 64, block[0]))
    assert forged != lock.content
    replace(lock, content=forged).write(checkout)


@dataclass(frozen=True)
class Lab:
    """A running lab."""

    name: str
    container: str
    url: str
    token: str
    files: Path
    port: int
    output: str  # what make printed when it was started


# What a lab logs that something is wrong, and what is meant to be there: the welcome, the farewell, that a notebook
# comes from elsewhere or is deleted, that tests ask for what is not theirs or not there, or export what has no font.
WRONG = re.compile(r"^(\[[WEC] |\[\w+\] (WARNING|ERROR|CRITICAL)|WARNING|ERROR|CRITICAL|Traceback)")
MEANT = re.compile(
    r"^\[C [^]]*\] ($|received signal 15, stopping$)"
    r"|^\[W [^]]*\] (Notebook .* is not trusted$|delete /|40[34] GET /api/contents|"
    r"wrote error: 'Forbidden'$|the PDF lacks signs for )"
)


def log(container: str) -> str:
    """What a container has logged."""
    command = ["docker", "logs", container]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def complaints(container: str) -> list[str]:
    """The lines of a lab's log that should not be there."""
    return [line for line in log(container).splitlines() if WRONG.search(line) and not MEANT.search(line)]


@contextmanager
def running_lab(lab: str, make: Make, project: str, files: Path, port: int) -> Iterator[Lab]:
    """Start `lab` with make, and remove its container and volume afterwards; its log must have no complaint."""
    remove_lab(lab, project)  # of a run that was killed
    started = make(f"start_{lab}")
    try:
        succeeded(started)
        url = make(f"url_{lab}").stdout.strip()
        address, _, token = url.partition("lab?token=")
        yield Lab(lab, f"{project}-{lab}", address, token, files, port, started.stdout)
        make(f"stop_{lab}")
        wrong = complaints(f"{project}-{lab}")
        assert not wrong, "\n".join(wrong)
    finally:
        make(f"stop_{lab}")
        remove_lab(lab, project)


def remove_lab(lab: str, project: str) -> None:
    """Remove a lab with its settings, and after the last one the network."""
    subprocess.run(["docker", "rm", "--force", "--volumes", f"{project}-{lab}"], capture_output=True)
    idmap.unmount(idmap.PLACE / f"{project}-{lab}")
    for each in {"pylab", "rlab", lab}:  # what another lab uses stays
        subprocess.run(["docker", "volume", "rm", f"{project}_{each}-home"], capture_output=True)
    for network in (f"{project}_default", f"{project}-{lab}_default"):
        subprocess.run(["docker", "network", "rm", network], capture_output=True)
