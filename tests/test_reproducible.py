"""The same lists give the same bytes: what a change leaves alone, and that a clean build elsewhere agrees."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from conftest import NAMES, PROJECT, TAG, copy_checkout, docker, layers, run_make
from pyrlab.build import PARENT

CHANGED = "changed"  # the tag of the images whose lists were changed, built upon the cache
CLEAN = "clean"  # the tag of the same images, built from nothing


def own_layers(name: str, tag: str) -> list[str]:
    """The digests of the layers that an image has and its parent has not."""
    parent = layers(f"{PARENT[name]}:{tag}") if name in PARENT else []
    return layers(f"{name}:{tag}")[len(parent) :]


def remove_images(tag: str) -> None:
    """Remove the images of a tag."""
    for name in reversed(NAMES):
        subprocess.run(["docker", "image", "rm", f"{name}:{tag}"], capture_output=True)


@pytest.fixture(scope="module")
def changed(images: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout with a package more in each list, and a large one bumped: built upon what is cached."""
    checkout = copy_checkout(tmp_path_factory.mktemp("changed") / "pyrlab")
    for path, package in (("base_debs.txt", "tree"), ("r_packages.txt", "docopt"), ("requirements.txt", "cowsay")):
        (checkout / path).write_text((checkout / path).read_text() + f"{package}\n")
    version = docker("run", "--rm", f"pylab:{TAG}", "python", "-c", "import duckdb; print(duckdb.__version__)")
    requirements = (checkout / "requirements.txt").read_text()
    assert "\nduckdb\n" in requirements
    (checkout / "requirements.txt").write_text(requirements.replace("\nduckdb\n", f"\nduckdb<{version}\n"))
    for name in NAMES:
        docker("tag", f"{name}:{TAG}", f"{name}:{CHANGED}")
    try:
        built = run_make(checkout, "build", TAG=CHANGED)
        assert built.returncode == 0, built.stdout + built.stderr
        yield checkout
    finally:
        remove_images(CHANGED)


@pytest.mark.usefixtures("changed")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("pyrlab-base", 2),  # tree's, and dpkg's database
        ("pylab", 2),  # cowsay's and duckdb's; none for tree
        ("rlab-base", 1),  # dpkg's database, which knows of tree
        ("rlab", 2),  # docopt's, and dpkg's database
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


@pytest.fixture(scope="module")
def clean(changed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The images of the same lists, from nothing: no cache, in another folder, at another time."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "somebody-elses-pyrlab"
    shutil.copytree(changed, elsewhere)
    settings = {"TAG": CLEAN, "PROJECT": f"{PROJECT}-{CLEAN}"}
    cleaned = run_make(elsewhere, "clean", **settings)
    assert cleaned.returncode == 0, cleaned.stderr
    assert "pyrlab" not in docker("buildx", "du", "--verbose")
    try:
        built = run_make(elsewhere, "build", **settings)
        assert built.returncode == 0, built.stdout + built.stderr
        yield
    finally:
        remove_images(CLEAN)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("name", NAMES)
def test_clean_build_agrees(name: str, tmp_path: Path) -> None:
    """A clean build gives the very image that incremental ones gave: the same digest, to the last byte."""
    one, other = f"{name}:{CHANGED}", f"{name}:{CLEAN}"
    if layers(one) != layers(other):
        pytest.fail("\n".join(differences(one, other, tmp_path)))
    ids = {docker("image", "inspect", image, "--format", "{{.Id}}") for image in (one, other)}
    assert len(ids) == 1


def differences(one: str, other: str, folder: Path) -> list[str]:
    """A line for each file that differs between the layers of two images, with what differs."""
    found: list[str] = []
    trees = [contents(image, folder / f"{number}.tar") for number, image in enumerate((one, other))]
    for number, (a, b) in enumerate(zip(*trees, strict=True)):
        found += [
            f"layer {number}: /{path}: {a.get(path)} in {one}, {b.get(path)} in {other}"
            for path in sorted(a.keys() | b.keys())
            if a.get(path) != b.get(path)
        ]
    return found or [f"{one} and {other} hold the same files, but in another order"]


def contents(image: str, archive: Path) -> list[dict[str, tuple[object, ...]]]:
    """For each layer of an image its files: what of them can differ, by path."""
    docker("save", "--output", str(archive), image)
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
