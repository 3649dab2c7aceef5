"""The same lists give the same bytes: what a change leaves alone, and that a clean build elsewhere agrees."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from conftest import CHANGED, NAMES, TAG, Clean, docker, layers
from pyrlab.dockerfile import PARENT

HISTORY = 22  # seconds, two more than BuildKit gives the writing of its history
Docker = Callable[..., str]  # the output of a docker command, here or on another engine


def own_layers(name: str, tag: str) -> list[str]:
    """The digests of the layers that an image has and its parent has not."""
    parent = layers(f"{PARENT[name]}:{tag}") if name in PARENT else []
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
    before, after = own_layers(name, TAG), own_layers(name, CHANGED)
    assert len(before) == len(after)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == count


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
    """A clean build gives the very image that incremental ones gave: the same digest, to the last byte."""
    image = f"{name}:{CHANGED}"
    if layers(image) != layers(image, clean.engine.docker):
        pytest.fail("\n".join(differences(image, docker, clean.engine.docker, tmp_path)))
    ids = {engine("image", "inspect", image, "--format", "{{.Id}}") for engine in (docker, clean.engine.docker)}
    assert len(ids) == 1


def test_busy_disk(clean: Clean) -> None:
    """An image is built all the same where the disk lets BuildKit not write in time how it came about."""
    engine, tag, log = clean.engine, "busy", clean.checkout / ".cache/build.log"
    engine.docker("tag", f"pyrlab-base:{CHANGED}", f"pyrlab-base:{tag}")
    log.write_text("")
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(engine.make, clean.checkout, "build_pylab", TAG=tag)
        while not re.search(r"^--- .* s from .*: \[pylab\] exporting to image$", log.read_text(), re.MULTILINE):
            assert not building.done(), building.result()
        with engine.frozen():
            time.sleep(HISTORY)
        built = building.result()
    assert built.returncode == 0, built.stderr
    assert "DeadlineExceeded" in log.read_text()
    assert "--- again" not in log.read_text()  # which may fail likewise
    assert layers(f"pylab:{tag}", engine.docker) == layers(f"pylab:{CHANGED}", engine.docker)


def differences(image: str, here: Docker, there: Docker, folder: Path) -> list[str]:
    """A line for each file that differs between the layers of an image on two engines, with what differs."""
    found: list[str] = []
    trees = [contents(image, engine, folder / f"{number}.tar") for number, engine in enumerate((here, there))]
    for number, (a, b) in enumerate(zip(*trees, strict=True)):
        found += [
            f"layer {number}: /{path}: {a.get(path)} in one, {b.get(path)} in the other"
            for path in sorted(a.keys() | b.keys())
            if a.get(path) != b.get(path)
        ]
    return found or ["both hold the same files, but in another order"]


def contents(image: str, engine: Docker, archive: Path) -> list[dict[str, tuple[object, ...]]]:
    """For each layer of an image its files: what of them can differ, by path."""
    engine("save", "--output", str(archive), image)
    trees = []
    with tarfile.open(archive) as saved:

        def document(digest: str) -> dict[str, list[dict[str, str]]]:
            loaded: dict[str, list[dict[str, str]]] = json.loads(blob(digest))
            return loaded

        def blob(digest: str) -> bytes:
            member = saved.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert member is not None
            return member.read()

        index = saved.extractfile("index.json")
        assert index is not None
        manifest = document(json.load(index)["manifests"][0]["digest"])
        for layer in manifest["layers"]:
            raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob(layer["digest"])), read_across_frames=True)
            with tarfile.open(fileobj=io.BytesIO(raw.read())) as tree:
                trees.append({member.name: facts(tree, member) for member in tree})
    return trees


def facts(tree: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[object, ...]:
    """What of a file can differ: type, mode, owner, time, link, extended attributes, content."""
    content = tree.extractfile(member) if member.isreg() else None
    return (
        member.type.decode(),
        oct(member.mode),
        member.uid,
        member.gid,
        member.mtime,
        member.linkname,
        tuple(sorted(member.pax_headers.items())),
        hash(content.read()) if content else None,
    )
