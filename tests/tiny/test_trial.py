"""A new lab takes the place of the one before once it works, and nothing is left of either that is not in use."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from checkout import PROJECT, TINY, Run, docker, remove_lab, run_make, state, succeeded, tagged, users_environment
from pyrlab.host import contents, owner, trial
from pyrlab.host.lab import tell_of_old
from pyrlab.host.project import Project
from servers import free_ports

OWN = f"{PROJECT}-trial"  # prefix of the labs
TAG = f"{TINY}-trial"  # of the images that these tests rebuild
TRIALS = ("ps", "--all", "--quiet", f"--filter=label={trial.LABEL}")


@pytest.fixture
def tag(tiny: Path) -> Iterator[str]:
    """A tag of the tiny images for one test."""
    assert tiny.exists()
    with tagged(TAG):
        yield TAG


@pytest.fixture
def make(checkout: Path, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Run make for labs of this test's own."""
    ports = free_ports()

    def run(*targets: str, **parameters: str | int) -> Run:
        settings = {"PROJECT": OWN, "FILES": str(tmp_path / "books"), "TAG": TINY, "BASE": "debian"}
        return run_make(checkout, *targets, **{**settings, **ports, **parameters})

    remove_lab("pylab", OWN)
    yield run
    remove_lab("pylab", OWN)


def spoil(checkout: Path, lab: str, command: str) -> None:
    """Let a command be run in an image of the lab."""
    with (checkout / f"docker/{lab}/Dockerfile").open("a") as file:
        file.write(f"\nUSER 0\nRUN {command}\nUSER 1000\n")


@pytest.mark.parametrize(
    ("lab", "command", "package", "why", "logged"),
    [
        (
            "pylab",
            "rm -r /opt/venv/lib/python3*/site-packages/jinja2",
            "cowsay",
            "it ended with status 1",
            "ModuleNotFoundError: No module named 'jinja2'",
        ),
        (
            "rlab",
            "sed -i 's/IRkernel::main()/stop(42)/' /usr/share/jupyter/kernels/ir/kernel.json",
            "",
            "its kernel ir runs no cell",
            "Error: 42",
        ),
    ],
    ids=["server", "kernel"],
)
def test_broken_lab(
    lab: str, command: str, package: str, why: str, logged: str, checkout: Path, tag: str, make: Callable[..., Run]
) -> None:
    """Where a new lab does not start, or its kernel does not, nothing has changed and the user reads why."""
    before = state(tag)
    spoil(checkout, lab, command)
    with (checkout / "requirements.txt").open("a") as file:
        file.write(f"{package}\n")
    built = make(f"build_{lab}", TAG=tag)
    assert built.returncode != 0
    log, _, said = built.stderr.partition("pyrlab: the new ")
    assert logged in log
    changed = rf".*{package} \d" if package else f"docker/{lab} changed"
    assert re.match(
        rf"{lab} does not work \({re.escape(why)}; its log ends above\), so images, locks and labs stay as they were; "
        f"this has changed: {changed}",
        said,
    )
    assert state(tag) == before
    assert "cowsay" not in (checkout / "requirements.lock").read_text()
    assert docker(*TRIALS, f"--filter=label=org.pyrlab.checkout={checkout}") == ""


def test_interrupted(checkout: Path, tag: str) -> None:
    """Nothing is left of a new lab whose trial the user interrupts."""
    before = state(tag)
    spoil(checkout, "pylab", "printf '#!/bin/sh\\nexec sleep 100\\n' >/usr/local/bin/start-notebook.py")
    ours = (*TRIALS, f"--filter=label=org.pyrlab.checkout={checkout}")
    command = ["make", "build", f"TAG={tag}", "BASE=debian"]
    with subprocess.Popen(
        command,
        cwd=checkout,
        env=users_environment(),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as build:
        while not docker(*ours):
            assert build.poll() is None
            time.sleep(0.1)
        os.killpg(build.pid, signal.SIGINT)
    assert docker(*ours) == ""
    assert state(tag) == before


def test_look_that_was_cut_short(checkout: Path, tag: str) -> None:
    """A container from which a manifest was to be copied, and that Ctrl-C has left, goes with the next build."""
    own = [f"--label={label}" for label in (contents.LABEL, *owner.labels(checkout))]
    container = docker("create", "--rm", *own, f"pyrlab-base:{tag}", "cat")
    try:
        succeeded(run_make(checkout, "build_base", TAG=tag, BASE="debian"))
        assert container[:12] not in docker("ps", "--all", "--quiet").split()
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True)


def test_replaced_image(checkout: Path, tag: str, make: Callable[..., Run], capsys: pytest.CaptureFixture[str]) -> None:
    """An image that was replaced while a lab ran, which is said, goes once the lab runs on the new one."""
    images: list[str] = []
    project = Project(checkout, {**os.environ, "TAG": tag, "PROJECT": OWN})
    for number in range(2):
        with (checkout / "docker/pylab/Dockerfile").open("a") as file:
            file.write(f"LABEL org.pyrlab.test={number}\n")  # so that no other test has the same image
        succeeded(make("build_pylab", TAG=tag))
        tell_of_old(project)
        said = "pylab runs on as it was; make start_pylab goes over to the new image\n"
        assert capsys.readouterr().out == (said if images else "")
        anew = "pylab ran, and was started anew with what has changed; its kernels have ended\n"
        assert (anew in succeeded(make("start_pylab", TAG=tag))) == bool(images)
        images.append(docker("container", "inspect", f"{OWN}-pylab", "--format", "{{.Image}}"))
    assert images[1] == state(tag)["pylab"] != images[0]
    kept = docker("image", "ls", "--all", "--quiet", "--no-trunc").split()
    assert images[1] in kept
    assert images[0] not in kept


def in_lab(script: str) -> str:
    """What a shell of the lab prints."""
    return docker("exec", f"{OWN}-pylab", "sh", "-c", script)


def identity() -> str:
    """Which container the lab is."""
    return docker("container", "inspect", f"{OWN}-pylab", "--format", "{{.Id}}")


SHARE = """
from multiprocessing.shared_memory import SharedMemory
block = SharedMemory(create=True, size=200_000_000)
block.buf[:] = bytes(block.size)
block.close()
block.unlink()
"""


def test_fits_its_machine(make: Callable[..., Run]) -> None:
    """A lab has this machine's clock and room for shared memory, or what it is told to; caches go with its image."""
    succeeded(make("start_pylab"))
    offset = time.strftime("%z")
    assert in_lab("date +%z") == offset
    in_lab(f"python -c '{SHARE}'")

    in_lab("mkdir -p ~/.config/fontconfig ~/.cache/fontconfig ~/.cache/matplotlib ~/.cache/models")
    succeeded(make("stop_pylab"))
    succeeded(make("start_pylab"))
    assert in_lab("ls ~/.cache").split() == ["fontconfig", "matplotlib", "models"]

    succeeded(make("start_pylab", TZ="Asia/Kathmandu", SHM="100m"))
    assert in_lab("date +%z") == "+0545"
    assert in_lab("python -c 'import time; print(time.strftime(\"%z\"))'") == "+0545"
    assert in_lab("df --output=size -BM /dev/shm").split()[-1] == "100M"
    assert in_lab("ls ~/.cache ~/.config") == "/home/jovyan/.cache:\nmodels\n\n/home/jovyan/.config:\nfontconfig"

    before = identity()
    old = "with the proxies and certificates that it was started with; make stop_pylab start_pylab"
    again = succeeded(make("start_pylab"))
    assert old not in again
    assert "started anew" not in again
    assert f"pylab runs on {old} gives it those of now\n" in succeeded(make("start_pylab", http_proxy="192.0.2.1:3128"))
    assert identity() == before, "a running lab goes on with what it was started with"
    succeeded(make("start_pylab", TZ="US/Eastern"))
    assert in_lab("date +%Z") in ("EST", "EDT")
    assert in_lab("df --output=size -BM /dev/shm").split()[-1] == "100M"


def test_does_not_start(make: Callable[..., Run]) -> None:
    """Where a lab does not start, its last words are shown."""
    succeeded(make("start_pylab"))
    config = 'import os, sys; print("my last words", file=sys.stderr, flush=True); os._exit(3)'
    in_lab(f"mkdir -p ~/.jupyter; echo '{config}' >~/.jupyter/jupyter_server_config.py")
    succeeded(make("stop_pylab"))
    started = make("start_pylab")
    assert started.returncode != 0
    assert re.search(rf"^my last words\npyrlab: pylab did not start: .*{OWN}-pylab", started.stderr, re.MULTILINE)
