"""An archive is what the image specification says, and leaves out what the engine has and nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pyrlab.host.contents import read_archive
from pyrlab.steps import oci
from pyrlab.steps.pieces import FOLDER, Mode, Piece, Tar

SETTINGS = {"Env": ["PATH=/usr/bin"], "Cmd": ["python3"]}


def piece(folder: Path, name: str, content: bytes = b"") -> Piece:
    """The piece of a package with one file."""
    tar = Tar()
    tar.folder(f"opt/{name}")
    tar.file(f"opt/{name}/file", content or name.encode(), Mode(0o644))
    return tar.save(Piece(folder / "pieces" / name))


def layers(folder: Path, *groups: str) -> list[oci.Layer]:
    """The layers of groups of packages, whose names are given as in "one two"."""
    made = [(group, [piece(folder, name) for name in group.split()]) for group in groups]
    return oci.layers(made, folder / "known", {})


@pytest.fixture
def image(tmp_path: Path) -> oci.Image:
    """An image of three layers."""
    return oci.Image.of(layers(tmp_path, "one two", "three", "four"), SETTINGS, "amd64")


def sha256(content: bytes) -> str:
    """The name of a content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def blob(archive: Path, named: dict[str, Any]) -> bytes:
    """The blob that a document names, which is what it says of it."""
    content = (archive / oci.place(named["digest"])).read_bytes()
    assert (sha256(content), len(content)) == (named["digest"], named["size"])
    return content


def documents(archive: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest and the configuration of the one image of an archive, found as containerd finds them."""
    assert json.loads((archive / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    [named] = json.loads((archive / "index.json").read_text())["manifests"]
    assert named["annotations"]["io.containerd.image.name"] == f"docker.io/library/{name}"
    manifest = json.loads(blob(archive, named))
    assert manifest["mediaType"] == named["mediaType"]
    return manifest, json.loads(blob(archive, manifest["config"]))


def sent(archive: Path) -> set[str]:
    """The blobs that an archive has."""
    return {f"sha256:{path.name}" for path in (archive / "blobs/sha256").iterdir()}


def test_the_documents_agree(image: oci.Image, tmp_path: Path) -> None:
    """Both of the engine's stores find every layer of a whole archive, with the digests and sizes that it has."""
    archive = tmp_path / "archive"
    image.write(archive, "own:mine", image.layers)
    manifest, config = documents(archive, "own:mine")
    [classic] = json.loads((archive / "manifest.json").read_text())
    assert classic["RepoTags"] == ["own:mine"]
    assert classic["Config"] == oci.place(manifest["config"]["digest"])
    assert classic["Layers"] == [oci.place(named["digest"]) for named in manifest["layers"]]
    unpacked = []
    for named in manifest["layers"]:
        with zstandard.ZstdDecompressor().stream_reader(blob(archive, named), read_across_frames=True) as reader:
            unpacked.append(sha256(reader.read()))
        assert named["mediaType"].endswith("tar+zstd")
    assert config["rootfs"] == {"type": "layers", "diff_ids": unpacked}
    assert [step["created_by"] for step in config["history"]] == ["one two", "three", "four"]
    assert (config["architecture"], config["os"], config["config"]) == ("amd64", "linux", SETTINGS)
    assert sent(archive) == {
        manifest["config"]["digest"],
        sha256(image.manifest),
        *(named["digest"] for named in manifest["layers"]),
    }


def test_what_make_reads_of_an_archive(image: oci.Image) -> None:
    """What make knows of the layers of an archive, which it may leave out of the next, is what they are."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, parts in image.files("own:mine", image.layers):
            content = b"".join(parts)
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    stream.seek(0)
    [saved] = read_archive(stream, "own.tar")
    assert saved.layers == {layer.diff_id: layer.size for layer in image.layers}


def test_an_engine_that_has_blobs(image: oci.Image, tmp_path: Path) -> None:
    """The containerd store is sent what it lacks, wherever it stands, and told of the rest."""
    _, there, _ = image.layers
    lacking = image.lacking([there.digest, "sha256:other"], [])
    archive = tmp_path / "archive"
    image.write(archive, "own:mine", lacking)
    manifest, _ = documents(archive, "own:mine")
    assert [named["digest"] for named in manifest["layers"]] == [layer.digest for layer in image.layers]
    assert {layer.digest for layer in image.layers} - sent(archive) == {there.digest}


@pytest.mark.parametrize(
    ("chains", "lacks"),
    [
        ([], [0, 1, 2]),
        ([[0]], [1, 2]),
        ([[0, 1]], [2]),
        ([[0, 2], [0, 1, 9], []], [2]),
        ([[1, 2], [9, 0]], [0, 1, 2]),
        ([[0, 9, 2]], [1, 2]),
        ([[0, 1, 2, 9]], []),
        ([[0, 1, 2]], []),
    ],
)
def test_an_engine_that_has_chains(image: oci.Image, chains: list[list[int]], lacks: list[int]) -> None:
    """The classic store has a layer only with all those that it stands on, from the lowest."""
    diff_ids = {number: layer.diff_id for number, layer in enumerate(image.layers)}
    known = [[diff_ids.get(number, "sha256:other") for number in chain] for chain in chains]
    assert image.lacking([], known) == [image.layers[number] for number in lacks]


def test_a_layer_twice(tmp_path: Path) -> None:
    """An image that has a layer twice, as an empty one, is sent it once."""
    made = layers(tmp_path, "one", "two")
    image = oci.Image.of([*made, made[0]], SETTINGS, "arm64")
    files = [path for path, _ in image.files("own", image.layers)]
    assert len(files) == len(set(files)) == 3 + 2 + 2
    assert len(json.loads(image.config)["rootfs"]["diff_ids"]) == 3


def test_a_layer_of_the_parent(tmp_path: Path) -> None:
    """An image stands on the layers of its parent as they were described, though nothing else is known of them."""
    below = oci.Image.of(layers(tmp_path, "one", "two"), SETTINGS, "amd64")
    remembered = [oci.Layer(**each) for each in json.loads(json.dumps(below.described()))]
    assert remembered == below.layers
    [own] = layers(tmp_path, "three")
    image = oci.Image.of([*remembered, own], SETTINGS, "amd64")
    image.write(tmp_path / "archive", "own", image.lacking([layer.digest for layer in remembered], []))
    assert own.digest in sent(tmp_path / "archive")
    assert oci.Image.of([*below.layers, own], SETTINGS, "amd64") == image


def test_the_same_again(tmp_path: Path) -> None:
    """Two machines with the same packages have the same image; what was known of a layer is what it is."""
    groups = ("one two", "three")
    first, known, other = (
        oci.Image.of(layers(tmp_path / place, *groups), SETTINGS, "amd64") for place in ("here", "here", "there")
    )
    assert first.manifest == known.manifest == other.manifest
    other = oci.Image.of(layers(tmp_path / "here", *groups[::-1]), SETTINGS, "amd64")
    assert other.layers == first.layers[::-1]
    assert other.manifest != first.manifest


@pytest.mark.parametrize("folders", [{"opt": Mode(0o700)}, {"opt/one": Mode(0o755, 1000, 100)}])
def test_another_folder_is_another_layer(tmp_path: Path, folders: dict[str, Mode]) -> None:
    """What is known of a layer is not taken for one whose folders are others; what it does not have counts not."""
    made = [piece(tmp_path, "one")]
    plain = oci.layer(made, "", tmp_path / "known", {"opt": FOLDER})
    assert oci.layer(made, "", tmp_path / "known", {"opt": FOLDER, "srv": Mode(0o700)}) == plain
    other = oci.layer(made, "", tmp_path / "known", folders)
    assert other.diff_id != plain.diff_id
    for layer in (plain, other):
        assert layer.digest == sha256(b"".join(layer.frames()))
        assert layer.size == sum(map(len, layer.frames()))


def test_words_of_the_history_are_no_part_of_a_layer(tmp_path: Path) -> None:
    """A layer that is told of in other words is the same."""
    made = [piece(tmp_path, "one")]
    first, other = (oci.layer(made, about, tmp_path / "known", {}) for about in ("Python: one", "R: one"))
    assert replace(first, about="R: one") == other


def test_a_layer_is_known_as_long_as_its_pieces(tmp_path: Path) -> None:
    """A layer is in use whenever it is asked for: known for longer than its pieces, it could be told from others."""
    layers(tmp_path, "one")
    [known] = (tmp_path / "known").iterdir()
    os.utime(known, (0, 0))
    before = known.read_bytes()
    layers(tmp_path, "one")
    assert known.stat().st_mtime > 0
    assert known.read_bytes() == before
