"""Someone whose engine runs without root builds the same images from nothing, and works in a lab like anyone else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from caches import Caches
from checkout import CHANGED, layers, succeeded
from host import HOME, PROJECT, Host

# Its bridge is another network than the one in which the caches are.
START = """
export XDG_RUNTIME_DIR=$HOME/run PATH=/usr/share/docker.io/contrib:$PATH
mkdir run
setsid dockerd-rootless.sh --bip=10.99.0.1/24 >rootless.log 2>&1 </dev/null &
"""
STOP = """
if pid=$(cat run/docker.pid) && kill "$pid"; then
    while [ -e "/proc/$pid" ]; do sleep 0.1; done
fi
"""


@pytest.fixture
def address(host: Host) -> Iterator[str]:
    """The address of an engine that she has started, beside that of the machine's root."""
    prepare = "echo ada:200000:65536 | tee /etc/subuid >/etc/subgid; chmod 666 /dev/net/tun"
    assert host.run("sh", "-c", prepare, user="root").returncode == 0
    address = f"unix://{HOME}/run/docker.sock"
    host.run("sh", "-c", START)
    try:
        deadline = time.monotonic() + 60
        while host.run("docker", "--host", address, "info").returncode:
            assert time.monotonic() < deadline, (host.home / "rootless.log").read_text()
        yield address
    finally:
        host.run("sh", "-c", STOP)


def test_a_lab(address: str, changed: Path, host: Host, caches: Caches, company: dict[str, str]) -> None:
    """What the lab writes is hers, it reads what she keeps from others, and make clean leaves nothing of it."""
    checkout, docker = host.adopt(changed, "rootless"), partial(host.docker, "--host", address)
    given = {**company, **caches.parameters, "TAG": CHANGED, "DOCKER_HOST": address, "FILES": str(HOME / "books")}
    assert "is ready: http://127.0.0.1:" in succeeded(host.make(checkout, "start_pylab", **given))
    assert layers(f"pylab:{CHANGED}", docker) == layers(f"pylab:{CHANGED}")
    host.run("sh", "-c", "echo mine >books/hers")
    cell = "print(open('work/hers').read()); open('work/made', 'w').close()"
    assert docker("exec", f"{PROJECT}-pylab", "python", "-c", cell) == "mine"
    assert (host.home / "books/made").stat().st_uid == (os.getuid() or 1000)
    assert succeeded(host.make(checkout, "clean", **given)).startswith(f"removed: {PROJECT}-pylab, ")
