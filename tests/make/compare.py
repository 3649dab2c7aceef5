"""Whether an image here and one on another machine are the same, to the last byte."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from checkout import docker, layers
from host import HOME, Host

Docker = Callable[..., str]  # the output of a docker command, here or on another engine
SETTINGS = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "User", "WorkingDir")


def settings(image: str, engine: Docker) -> dict[str, object]:
    """What an image says of how it is run."""
    found = json.loads(engine("image", "inspect", image, "--format", "{{json .Config}}"))
    return {name: found.get(name) for name in SETTINGS}


def assert_same(here: str, there: str, host: Host, folder: Path) -> None:
    """Fail where two images differ, with a line for each file that does."""
    if layers(here) != layers(there, host.docker):
        pytest.fail("\n".join(differences(here, there, host, folder)))
    assert settings(here, docker) == settings(there, host.docker)


def differences(here: str, there: str, host: Host, folder: Path) -> list[str]:
    """A line for each file that differs between the layers of two images, with what differs."""
    docker("save", "--output", str(folder / "here.tar"), here)
    host.docker("save", "--output", str(HOME / "there.tar"), there)
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
