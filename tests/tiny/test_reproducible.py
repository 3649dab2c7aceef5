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

from checkout import CHANGED, NAMES, TINY, docker, layers
from conftest import Clean
from host import HOME, Host
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
    before, after = own_layers(name, TINY), own_layers(name, CHANGED)
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


SETTINGS = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "User", "WorkingDir")


def settings(image: str, engine: Docker) -> dict[str, object]:
    """What an image says of how it is run."""
    found = json.loads(engine("image", "inspect", image, "--format", "{{json .Config}}"))
    return {name: found.get(name) for name in SETTINGS}


@pytest.mark.parametrize("name", NAMES)
def test_clean_build_agrees(clean: Clean, name: str, tmp_path: Path) -> None:
    """A clean build gives the very image that incremental ones gave, to the last byte.

    It was made by another user on another host: with another name, resolver, umask, language and time zone, another
    file system, engine and image store.
    """
    image = f"{name}:{CHANGED}"
    if layers(image) != layers(image, clean.host.docker):
        pytest.fail("\n".join(differences(image, clean.host, tmp_path)))
    assert settings(image, docker) == settings(image, clean.host.docker)


def test_busy_disk(clean: Clean) -> None:
    """An image is built all the same where the disk lets BuildKit not write in time how it came about."""
    engine, tag, log = clean.host, "busy", clean.checkout / ".cache/build.log"
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


def differences(image: str, host: Host, folder: Path) -> list[str]:
    """A line for each file that differs between the layers of an image here and there, with what differs."""
    docker("save", "--output", str(folder / "here.tar"), image)
    host.docker("save", "--output", str(HOME / "there.tar"), image)
    trees = [contents(archive) for archive in (folder / "here.tar", host.home / "there.tar")]
    found: list[str] = []
    for number, (a, b) in enumerate(zip(*trees, strict=True)):
        found += [
            f"layer {number}: /{path}: {a.get(path)} in one, {b.get(path)} in the other"
            for path in sorted(a.keys() | b.keys())
            if a.get(path) != b.get(path)
        ]
    return found or ["both hold the same files, but in another order"]


def contents(archive: Path) -> list[dict[str, tuple[object, ...]]]:
    """For each layer of the image in an archive of docker save its files: what of them can differ, by path."""
    trees = []
    with tarfile.open(archive) as saved:

        def content(name: str) -> bytes:
            member = saved.extractfile(name)
            assert member is not None
            return member.read()

        for layer in json.loads(content("manifest.json"))[0]["Layers"]:
            raw = content(layer)
            if raw.startswith(b"\x28\xb5\x2f\xfd"):
                reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw), read_across_frames=True)
                raw = reader.read()
            with tarfile.open(fileobj=io.BytesIO(raw)) as tree:
                trees.append({member.name.removeprefix("./"): facts(tree, member) for member in tree})
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
