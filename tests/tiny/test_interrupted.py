"""A build that is cut short, and two at a time: nothing half-made is left, and the next build succeeds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from checkout import (
    CHANGED,
    NAMES,
    PROJECT,
    TINY,
    TINY_LISTS,
    docker,
    layers,
    refusal,
    remove_lab,
    run_make,
    state,
    succeeded,
    tagged,
    users_environment,
    write_lists,
)
from conftest import Clean

OWN = f"{TINY}-interrupted"  # the tag of the images that are built here
MOMENTS = {
    "resolving": r"\[lock-python python-lock \d",
    "loading": r"exporting to client tarball",
    "writing": r"exporting to image",
}


@pytest.fixture
def own_images(tiny: Path) -> Iterator[None]:
    """The images under a tag of their own."""
    assert tiny.exists()
    with tagged(OWN):
        yield


def left_over(tag: str) -> list[str]:
    """The images that a build of `tag` has written beside those of before."""
    return docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference=*:{tag}.*").split()


@pytest.mark.usefixtures("own_images")
@pytest.mark.parametrize(
    ("moment", "ended_by"),
    [
        ("resolving", signal.SIGINT),
        ("loading", signal.SIGINT),
        ("loading", signal.SIGKILL),
        ("writing", signal.SIGKILL),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_cut_short(checkout: Path, moment: str, ended_by: signal.Signals) -> None:
    """Images, locks and tags are what they were; the next build succeeds and sweeps what was left."""
    log, lock = checkout / ".cache/build.log", checkout / "requirements.lock"
    before, locked = state(OWN), lock.read_text()
    log.write_text("")
    write_lists(checkout, {"requirements.txt": [*TINY_LISTS["requirements.txt"], "cowsay"]})
    with subprocess.Popen(
        ["make", "build", f"TAG={OWN}", "BASE=debian"],
        cwd=checkout,
        env=users_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as building:
        while not re.search(MOMENTS[moment], log.read_text()):
            assert building.poll() is None, building.communicate()
        os.killpg(building.pid, ended_by)
        _, said = building.communicate()
    assert building.returncode != 0
    assert "Traceback" not in said
    assert (state(OWN), lock.read_text()) == (before, locked)
    if ended_by == signal.SIGINT:
        assert left_over(OWN) == []

    write_lists(checkout, TINY_LISTS)  # nothing is to be built any more
    succeeded(run_make(checkout, "build", TAG=OWN))
    assert left_over(OWN) == []
    write_lists(checkout, {"requirements.txt": [*TINY_LISTS["requirements.txt"], "cowsay"]})
    succeeded(run_make(checkout, "build", TAG=OWN))
    docker("run", "--rm", f"pylab:{OWN}", "python", "-c", "import cowsay")


@pytest.mark.usefixtures("own_images")
def test_two_targets_at_a_time(checkout: Path, ports: dict[str, int], tmp_path: Path) -> None:
    """`make -j2` builds what is missing once, and starts both labs."""
    overrides = checkout / "docker/run/overrides.json"  # which is in pyrlab-base
    overrides.write_text(overrides.read_text() + "\n")
    parameters: dict[str, str | int] = {
        "TAG": OWN,
        "FILES": str(tmp_path / "books"),
        "PROJECT": f"{PROJECT}-both",
        **ports,
    }
    try:
        said = succeeded(run_make(checkout, "-j2", "start_pylab", "start_rlab", **parameters))
        assert sorted(re.findall(r"^(\w+) is ready: http", said, re.MULTILINE)) == ["pylab", "rlab"]
        assert len(re.findall(rf"^pyrlab-base:{OWN} .* rebuilt: ", said, re.MULTILINE)) == 1
    finally:
        for lab in ("pylab", "rlab"):
            remove_lab(lab, f"{PROJECT}-both")


def test_engine_ends(clean: Clean) -> None:
    """A build goes on where the engine ends in the middle of it and is started again, as by systemd."""
    engine, log = clean.host, clean.checkout / ".cache/build.log"
    log.write_text("")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(engine.make, clean.checkout, "outdated", **clean.parameters)
        while not re.search(MOMENTS["resolving"], log.read_text()):
            assert not asking.done(), asking.result()
        engine.run("sh", "-c", "kill -9 $(cat /var/run/docker.pid)", user="root")
        succeeded(asking.result())
    assert "--- again" in log.read_text()


def test_full_disk(clean: Clean) -> None:
    """A build for which the engine has no room says so, and changes nothing; with room it succeeds."""
    engine, tag = clean.host, "full"
    checkout = engine.home / "filling"
    engine.run("cp", "--archive", clean.checkout.name, checkout.name)
    write_lists(checkout, TINY_LISTS)  # with the larger one of the large wheels, which this engine has not seen
    for name in NAMES:
        engine.docker("tag", f"{name}:{CHANGED}", f"{name}:{tag}")
    before = layers(f"pylab:{tag}", engine.docker)
    with engine.filled():
        said = refusal(engine.make(checkout, "build_pylab", TAG=tag, **clean.parameters))
        assert said.startswith("pyrlab: the engine's disk is full; ")
    assert layers(f"pylab:{tag}", engine.docker) == before
    succeeded(engine.make(checkout, "build_pylab", TAG=tag, **clean.parameters))
    assert layers(f"pylab:{tag}", engine.docker) != before
