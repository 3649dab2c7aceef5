"""A server in the long run: while nothing is said, while it hangs, and as one of a hub's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from checkout import PROJECT, ROOT, TAG, complaints, docker, log
from containers import HEALTHY_WITHIN, ask, cell, health, started, until
from ways import Way

PAUSE = """
import psutil, time
def used(): return sum(psutil.Process().parent().cpu_times()[:2])
before = used(); time.sleep(31); print(used() - before)
"""


def test_pause(images: str) -> None:
    """While a cell is silent the notebook stays connected, longer than pings are apart, and the server hardly works."""
    with started(f"pylab:{TAG}") as container:
        assert health(container) == "healthy", log(container)
        assert float(cell(container, "python3", PAUSE)) < 0.3  # seconds of CPU
        assert complaints(container) == []


@pytest.mark.parametrize("scheme", [[], ["--env=GEN_CERT=yes"]], ids=["http", "https"])
def test_health_of_a_server_that_hangs(scheme: list[str], images: str) -> None:
    """A server that answers no more is unhealthy, until it goes on."""
    options = [*scheme, "--health-start-period=1s", "--health-interval=1s", "--health-retries=1"]
    with started(*options, f"pylab:{TAG}") as container:
        assert until(lambda: health(container) == "healthy", HEALTHY_WITHIN)
        docker("exec", container, "pkill", "-STOP", "-f", "start-notebook")
        assert until(lambda: health(container) == "unhealthy", HEALTHY_WITHIN)
        docker("exec", container, "pkill", "-CONT", "-f", "start-notebook")
        assert until(lambda: health(container) == "healthy", HEALTHY_WITHIN)


HUB_API = "http://hub:8081/hub/api"
HUB_TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def hub(images: str) -> Iterator[str]:
    """A JupyterHub in a network of its own name, which it shares with labs."""
    name = f"{PROJECT}-hub"
    docker("network", "create", name)
    try:
        settings = f"--volume={ROOT}/tests/make/hub.py:/srv/hub.py:ro"
        options = [f"--name={name}", f"--network={name}", "--network-alias=hub", settings]
        with started(*options, f"pylab:{TAG}", "jupyterhub", "--config=/srv/hub.py"):
            assert until(lambda: ask(name, f"{HUB_API}/", HUB_TOKEN)[0] == 200, HEALTHY_WITHIN)
            assert ask(name, f"{HUB_API}/users/ada", HUB_TOKEN, "POST")[0] == 201
            yield name
    finally:
        docker("network", "rm", name)


HUB_WAYS = {
    "the image's own command": Way(),
    "the name of old charts": Way(command=("start-singleuser.sh", "--debug")),
    "a notebook folder": Way(("--env=JUPYTERHUB_ROOT_DIR=/srv",)),
    "any user, another home": Way(("--user=12345:0", "--env=HOME=/tmp/elsewhere")),
}


@pytest.mark.parametrize("way", HUB_WAYS.values(), ids=HUB_WAYS)
def test_hub(way: Way, hub: str) -> None:
    """A hub's user gets JupyterLab at the hub's address for it, whoever has no token of the hub's nothing."""
    docker("exec", hub, "rm", "--force", "/tmp/environment.json")
    asked = ["curl", "-s", "-X", "POST", "-H", f"Authorization: token {HUB_TOKEN}", f"{HUB_API}/users/ada/server"]
    docker("exec", "--detach", hub, *asked)  # answered when the lab answers
    assert until(
        lambda: subprocess.run(["docker", "exec", hub, "test", "-s", "/tmp/environment.json"]).returncode == 0,
        HEALTHY_WITHIN,
    )
    given = json.loads(docker("exec", hub, "cat", "/tmp/environment.json"))
    environment = [f"--env={name}={value}" for name, value in given.items() if name.startswith("JUPYTER")]
    options = [f"--network={hub}", "--network-alias=lab", *environment, *way.options]
    try:
        with started(*options, f"pylab:{TAG}", *way.command) as container:
            assert health(container) == "healthy", log(container)
            assert until(lambda: '"ready": true' in ask(hub, f"{HUB_API}/users/ada", HUB_TOKEN)[1], HEALTHY_WITHIN)
            token = json.loads(ask(hub, f"{HUB_API}/users/ada/tokens", HUB_TOKEN, "POST")[1])["token"]
            status, page = ask(hub, "http://lab:8888/user/ada/lab", token)
            assert (status, "<title>JupyterLab</title>" in page) == (200, True)
            assert ask(hub, "http://lab:8888/user/ada/lab")[0] == 302  # to the hub, to log in
            assert ask(hub, "http://lab:8888/user/ada/api/contents")[0] == 403
    finally:
        ask(hub, f"{HUB_API}/users/ada/server", HUB_TOKEN, "DELETE")
