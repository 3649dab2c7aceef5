"""A build that is cut short, and two at a time: nothing half-made is left, and the next build succeeds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import (
    PROJECT,
    TINY,
    TINY_LISTS,
    docker,
    remove_lab,
    run_make,
    state,
    succeeded,
    tagged,
    users_environment,
    write_lists,
)
from servers import free_ports

OWN = f"{TINY}-interrupted"  # the tag of the images that are built here
MOMENTS = {
    "resolving": r"\[lock-python resolved \d",
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


CUTS = [
    ("resolving", signal.SIGINT),
    ("loading", signal.SIGINT),
    ("loading", signal.SIGKILL),
    ("writing", signal.SIGKILL),
]


@pytest.mark.usefixtures("own_images")
def test_cut_short(checkout: Path) -> None:
    """Images, locks and tags are what they were; the next build gets on, and sweeps what was left."""
    lock = checkout / "requirements.lock"
    before, locked = state(OWN), lock.read_text()
    write_lists(checkout, {"requirements.txt": [*TINY_LISTS["requirements.txt"], "cowsay"]})
    for moment, ended_by in CUTS:
        cut_short(checkout, moment, ended_by)
        assert (state(OWN), lock.read_text()) == (before, locked)
        if ended_by == signal.SIGINT:
            assert left_over(OWN) == []
    write_lists(checkout, TINY_LISTS)  # nothing is to be built any more
    succeeded(run_make(checkout, "build", TAG=OWN))
    assert left_over(OWN) == []
    write_lists(checkout, {"requirements.txt": [*TINY_LISTS["requirements.txt"], "cowsay"]})
    succeeded(run_make(checkout, "build", TAG=OWN))
    docker("run", "--rm", f"pylab:{OWN}", "python", "-c", "import cowsay")


def cut_short(checkout: Path, moment: str, ended_by: signal.Signals) -> None:
    """Build, and end it at that moment, which its log tells."""
    log = checkout / ".cache/build.log"
    log.write_text("")
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
            time.sleep(0.02)
        os.killpg(building.pid, ended_by)
        _, said = building.communicate()
    assert building.returncode != 0
    assert "Traceback" not in said


@pytest.mark.usefixtures("own_images")
def test_two_targets_at_a_time(checkout: Path, tmp_path: Path) -> None:
    """`make -j2` builds what is missing once, and starts both labs."""
    docker("image", "rm", f"pyrlab-base:{OWN}")
    parameters: dict[str, str | int] = {
        "TAG": OWN,
        "FILES": str(tmp_path / "books"),
        "PROJECT": f"{PROJECT}-both",
        "BASE": "debian",
        **free_ports(),
    }
    for lab in ("pylab", "rlab"):  # of a run that was killed
        remove_lab(lab, f"{PROJECT}-both")
    try:
        said = succeeded(run_make(checkout, "-j2", "start_pylab", "start_rlab", **parameters))
        assert sorted(re.findall(r"^(\w+) is ready: http", said, re.MULTILINE)) == ["pylab", "rlab"]
        assert len(re.findall(rf"^pyrlab-base:{OWN} .* rebuilt: ", said, re.MULTILINE)) == 1
    finally:
        for lab in ("pylab", "rlab"):
            remove_lab(lab, f"{PROJECT}-both")
