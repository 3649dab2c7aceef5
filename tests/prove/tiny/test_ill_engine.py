"""An engine that is ill, full, or does not talk to a user is known as such, and what is said mends it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from bare import copy_parts
from checkout import CHANGED, NAMES, TINY_LISTS, Run, layers, refusal, succeeded, write_lists
from conftest import Clean
from host import Host

OWN = "own"  # the tag of images that are built anew here

SOCKET, AWAY = "/run/docker.sock", "/run/docker-away.sock"


@pytest.fixture(scope="module")
def checkout(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Her checkout."""
    return host.adopt(copy_parts(tmp_path_factory.mktemp("ill") / "pyrlab"), "ill")


def as_root(host: Host, script: str) -> str:
    """What a script of root's prints there."""
    done = host.run("bash", "-euc", script, user="root")
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for_engine(host: Host) -> None:
    """Wait until the engine there answers, and has its bridge."""
    deadline = time.monotonic() + 300
    while host.run("sh", "-c", "docker info && ip link show docker0").returncode:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@contextmanager
def without_bridge(host: Host) -> Iterator[None]:
    """Take the engine's bridge away, as a second engine does; a restart brings it back."""
    as_root(host, "ip link delete docker0")
    try:
        yield
    finally:
        as_root(host, "pid=$(cat /run/docker.pid); kill $pid; while [ -e /proc/$pid/exe ]; do sleep 0.1; done")
        wait_for_engine(host)


@contextmanager
def closed(host: Host) -> Iterator[None]:
    """Let the engine answer nobody but root."""
    as_root(host, f"chmod 600 {SOCKET}")
    try:
        yield
    finally:
        as_root(host, f"chmod 660 {SOCKET}")


@contextmanager
def moved(host: Host) -> Iterator[None]:
    """Let the engine answer elsewhere, as a docker context says."""
    with absent(host):
        host.run("docker", "context", "create", "desktop-linux", f"--docker=host=unix://{AWAY}")
        try:
            yield
        finally:
            host.run("docker", "context", "rm", "desktop-linux")


@contextmanager
def absent(host: Host) -> Iterator[None]:
    """Let no engine answer at all."""
    as_root(host, f"mv {SOCKET} {AWAY}")
    try:
        yield
    finally:
        as_root(host, f"mv {AWAY} {SOCKET}")


ILLNESSES: list[tuple[Callable[[Host], AbstractContextManager[None]], str, str]] = [
    (
        without_bridge,
        "the engine's bridge docker0 is gone, without which no build gets online",
        "restart the engine: sudo systemctl restart docker, or as it is started here",
    ),
    (
        Host.filled,
        "the engine's disk is full",
        "docker system df shows what takes room, docker buildx prune removes the build cache",
    ),
    (
        closed,
        "the engine at unix:///var/run/docker.sock answers root and the group docker only",
        re.escape('sudo usermod -aG docker "$USER", and then newgrp docker or log in again'),
    ),
    (
        moved,
        "no engine answers at unix:///var/run/docker.sock, but one does in the docker context desktop-linux",
        "docker context use desktop-linux",
    ),
]


@pytest.mark.parametrize(("illness", "found", "mend"), ILLNESSES, ids=[each[0].__name__ for each in ILLNESSES])
def test_illness(
    illness: Callable[[Host], AbstractContextManager[None]], found: str, mend: str, host: Host, checkout: Path
) -> None:
    """Make doctor says what it is and what mends it; what would build stops with the same sentence."""
    with illness(host):
        doctor = host.make(checkout, "doctor")
        assert re.search(rf"^--  \w+ +{found}\n +mend: {mend}$", doctor.stdout, re.MULTILINE), doctor.stdout
        for target in ("build", "start_pylab"):
            assert re.match(rf"pyrlab: {found}; {mend}\n", host.make(checkout, target).stderr), target
    assert sentence(host.make(checkout, "engine")) == "pyrlab: an engine answers already: nothing to do"


def sentence(run: Run) -> str:
    """What make says first of all."""
    return run.stderr.splitlines()[0]


def test_no_engine(host: Host, checkout: Path) -> None:
    """Who has no root is not asked whether to start an engine; who says external has none started."""
    with absent(host):
        engines = "grep -slx dockerd /proc/[0-9]*/comm || true"
        [before] = as_root(host, engines).split()
        assert sentence(host.make(checkout, "build")).startswith(
            "pyrlab: no container engine answers; install or start one as https://docs.docker.com/engine/install/ says"
        )
        assert sentence(host.make(checkout, "list")) == (
            "pyrlab: no container engine answers; make engine installs and starts one on Debian and Ubuntu"
        )
        external = host.run("make", "--no-print-directory", "build", "ENGINE=external", cwd=checkout, user="root")
        assert sentence(external).startswith("pyrlab: no container engine answers; ENGINE=external forbids to ")
        assert as_root(host, engines).split() == [before]


@pytest.fixture
def own(clean: Clean) -> Iterator[Path]:
    """A copy of the checkout that her images were built from, which wants the larger one of the large wheels."""
    copy = clean.host.home / "own"
    clean.host.run("cp", "--archive", clean.checkout.name, copy.name)
    (copy / ".cache/build.log").write_text("")
    write_lists(copy, {"requirements.txt": TINY_LISTS["requirements.txt"]})
    for name in NAMES:
        clean.host.docker("tag", f"{name}:{CHANGED}", f"{name}:{OWN}")
    yield copy
    clean.host.run("rm", "-rf", copy.name)


@contextmanager
def resolving(clean: Clean, own: Path, target: str) -> Iterator[Future[Run]]:
    """Make something, and wait until it is resolving the list."""
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(clean.host.make, own, target, TAG=OWN, **clean.parameters)
        while not re.search(r"\[lock-python resolved \d", (own / ".cache/build.log").read_text()):
            assert not making.done(), making.result()
            time.sleep(0.02)
        yield making


def test_engine_ends(clean: Clean, own: Path) -> None:
    """A build goes on where the engine ends in the middle of it and is started again, as by systemd."""
    # What waits for the step is there already: the step may be short.
    resolving = r"until grep -q '\[lock-python resolved' .cache/build.log; do sleep 0.02; done"
    ending = clean.host.start("sh", "-c", f"{resolving}; kill -9 $(cat /var/run/docker.pid)", cwd=own, user="root")
    succeeded(clean.host.make(own, "lock", TAG=OWN, **clean.parameters))
    assert ending.wait() == 0
    assert "--- again" in (own / ".cache/build.log").read_text()


def test_full_disk(clean: Clean, own: Path) -> None:
    """A build for which the engine has no room says so, and changes nothing; with room it succeeds."""
    engine = clean.host
    before = layers(f"pylab:{OWN}", engine.docker)
    with resolving(clean, own, "build_pylab") as building, engine.filled():
        said = refusal(building.result())
    assert said.startswith("pyrlab: the engine's disk is full; ")
    assert layers(f"pylab:{OWN}", engine.docker) == before
    succeeded(engine.make(own, "build_pylab", TAG=OWN, **clean.parameters))
    assert layers(f"pylab:{OWN}", engine.docker) != before
