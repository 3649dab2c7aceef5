"""The same lists give the same bytes: what a change leaves alone, and that a clean build elsewhere agrees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from checkout import CHANGED, CHECKOUT, NAMES, TINY, build_records, docker, layers
from compare import assert_same
from conftest import Clean
from pyrlab.host import bake


def own_layers(name: str, tag: str) -> list[str]:
    """The digests of the layers that an image has and its parent has not."""
    below = CHECKOUT.table[name].parent
    parent = layers(f"{below}:{tag}") if below else []
    return layers(f"{name}:{tag}")[len(parent) :]


@pytest.mark.usefixtures("changed")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("pyrlab-base", 3),  # tree's, dpkg's database, and the manifest
        ("pylab", 3),  # cowsay's and duckdb's, and the manifest; none for tree
        ("rlab-base", 2),  # dpkg's database, which knows of tree, and the manifest
        ("rlab", 3),  # docopt's, dpkg's database, and the manifest
    ],
)
def test_what_a_change_costs(name: str, count: int) -> None:
    """Whoever has the images fetches the layers of the packages that changed; all others stay as they were."""
    assert len({*own_layers(name, CHANGED)} - {*own_layers(name, TINY)}) == count


@pytest.mark.usefixtures("changed")
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("pyrlab-base", ["tree", "--version"]),
        ("pylab", ["python", "-c", "import cowsay, duckdb"]),
        ("rlab", ["Rscript", "-e", "library(docopt)"]),
        ("rlab", ["dpkg", "--verify", "tree", "r-cran-docopt"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_was_added_works(name: str, command: list[str]) -> None:
    """What the lists name is there after the build."""
    docker("run", "--rm", f"{name}:{CHANGED}", *command)


@pytest.mark.parametrize("name", NAMES)
def test_clean_build_agrees(clean: Clean, name: str, tmp_path: Path) -> None:
    """A clean build gives the very image that incremental ones gave, to the last byte.

    It was made by another user on another host: with another name, resolver, umask, language and time zone, another
    file system, engine and image store.
    """
    image = f"{name}:{CHANGED}"
    assert_same(image, image, clean.host, tmp_path)


TIDY = """
import os
from pathlib import Path
from pyrlab.host import bake, engine
for layers in (bake.MANY, 1):
    with bake.turn(engine.Engine(Path(), os.environ), layers):
        pass
"""


def tidy(clean: Clean) -> str:
    """Let there have been many builds; what the build cache has then."""
    assert clean.host.run("python3", "-c", TIDY, cwd=clean.checkout).returncode == 0
    return clean.host.docker("buildx", "du", "--verbose")


def test_what_the_build_cache_keeps(clean: Clean) -> None:
    """Once there were many builds the engine has the tools for the next one, and nothing of what none can use.

    As long as somebody else builds, all stays: he might have the use of it.
    """
    start = f"FROM pyrlab-base:{CHANGED}\\nUSER 0\\nRUN"
    clean.host.run("sh", "-c", f"printf '{start} mkdir -p /pyrlab/archive/' | docker build -")  # as a step does
    slow = f"echo $$ >builder; printf '{start} sleep 300' >slow; exec docker build - <slow"
    building = clean.host.start("sh", "-c", slow)
    while not bake.IN_USE.search(clean.host.docker("buildx", "du", "--verbose")):
        assert building.poll() is None, building.communicate()
    assert bake.used_up(tidy(clean))
    clean.host.run("sh", "-c", "kill $(cat builder)")
    assert building.wait() != 0
    while bake.IN_USE.search(clean.host.docker("buildx", "du", "--verbose")):
        pass
    records = tidy(clean)
    assert bake.used_up(records) == set()
    described = re.compile("Description:(?! +from local)")
    layers = [text for text, _ in bake.cache_records(records).values() if not described.search(text)]
    assert layers == []
    assert [record for record in build_records("tools.sh", clean.host.docker) if "cached mount" not in record]
