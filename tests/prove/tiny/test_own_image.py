"""An image of a user's own: an entry of images.toml and lists, with all that the others have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import (
    PROJECT,
    TINY,
    Run,
    docker,
    layers,
    refusal,
    run_make,
    running_lab,
    succeeded,
    tagged,
    write_lists,
)
from servers import free_port

OWN = f"{TINY}-own"  # the tag of the images of this module
ENTRIES = """
[lists.course]
file = "course.txt"
ecosystem = "Python"
layers = 4

[lists.course_debs]
file = "course_debs.txt"
ecosystem = "Debian"
layers = 2

[images.course]
parent = "pylab"
lists = ["course_debs", "course"]
port = "COURSEPORT"
default = false
"""


@pytest.fixture
def course(checkout: Path) -> Iterator[Path]:
    """A checkout with an image more, and the others as they are."""
    table = checkout / "images.toml"
    table.write_text(table.read_text() + ENTRIES)
    write_lists(checkout, {"course.txt": ["cowsay==6.0", "simplejson"], "course_debs.txt": ["tree"]})
    with tagged(OWN):
        yield checkout
        docker("image", "rm", "--force", f"course:{OWN}")


def test_an_own_image(course: Path, tmp_path: Path) -> None:
    """It is built on its parent with what its lists name besides, locked beside them, started and listed as a lab."""
    parent = layers(f"pylab:{OWN}")
    port, project = free_port(), f"{PROJECT}-own"

    def make(*targets: str) -> Run:
        return run_make(course, *targets, TAG=OWN, PROJECT=project, COURSEPORT=port, FILES=str(tmp_path / "books"))

    with running_lab("course", make, project, tmp_path / "books", port) as lab:
        said = docker(
            "exec", lab.container, "python", "-c", "import cowsay, duckdb, simplejson; print(cowsay.__version__)"
        )
        assert said == "6.0"
        assert docker("exec", lab.container, "tree", "--version").startswith("tree ")
    assert layers(f"course:{OWN}")[: len(parent)] == parent
    assert layers(f"pylab:{OWN}") == parent
    lock = (course / "course.lock").read_text()
    assert '\ncowsay = { version = "6.0", ' in lock
    assert "simplejson" not in lock, "what the parent has is in its own lock"
    assert (course / "course_debs.lock").read_text().splitlines()[2:] != []
    assert (course / "installed/course.txt").read_text().splitlines()[-1] == "Python cowsay 6.0"
    manifest = json.loads(docker("run", "--rm", f"course:{OWN}", "cat", "/usr/share/pyrlab/manifest.json"))
    why = {package["name"]: package["why"] for package in manifest["packages"]}
    assert (why["cowsay"], why["tree"]) == (["course.txt"], ["course_debs.txt"])
    assert "course" in succeeded(run_make(course, "help"))


def test_what_the_parent_cannot_bear(course: Path) -> None:
    """A line that wants another version of what the parent has is refused with its number; nothing is built."""
    write_lists(course, {"course.txt": ["cowsay", "duckdb<1"]})
    said = refusal(run_make(course, "build_course", TAG=OWN))
    assert said.startswith("pyrlab: course.txt line 2: 'duckdb<1' does not go with what the image's parent has: ")
    assert not (course / "course.lock").exists()
