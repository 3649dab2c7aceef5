"""The same lists give the same bytes on a machine that has nothing yet, and its build cache keeps what is of use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from checkout import CHANGED, NAMES, build_records
from compare import assert_same
from conftest import Clean
from pyrlab.host import bake


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
    assert bake.used_up(bake.cache_records(tidy(clean)))
    clean.host.run("sh", "-c", "kill $(cat builder)")
    assert building.wait() != 0
    while bake.IN_USE.search(clean.host.docker("buildx", "du", "--verbose")):
        pass
    records = bake.cache_records(tidy(clean))
    assert bake.used_up(records) == set()
    described = re.compile("Description:(?! +from local)")
    layers = [text for text, _ in records.values() if not described.search(text)]
    assert layers == []
    assert [record for record in build_records("tools.sh", clean.host.docker) if "cached mount" not in record]
