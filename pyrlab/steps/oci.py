"""Put layers together from pieces, and write an image as an archive that `docker load` takes, thin or whole.

Thin means: without the layers that the engine has. Both of Docker's stores take it: containerd's reads index.json, the
classic one manifest.json (OCI image-spec, image-layout.md; moby's image/tarexport).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from pyrlab.steps.pieces import Mode, Piece, decompress, frames, write

CREATED = "2026-01-01T00:00:00Z"
KIND = "application/vnd.oci.image"
LAYER, MANIFEST, CONFIG, INDEX = (
    f"{KIND}.{name}" for name in ("layer.v1.tar+zstd", "manifest.v1+json", "config.v1+json", "index.v1+json")
)


@dataclass(frozen=True)
class Layer:
    """A layer: its blob, the tar file that this unpacks to, and what it is made of where it is one of ours."""

    digest: str
    size: int  # bytes of the blob
    diff_id: str
    about: str = ""  # for docker history
    pieces: tuple[Piece, ...] = field(default=(), compare=False, repr=False)
    folders: Mapping[str, Mode] = field(default_factory=dict, compare=False, repr=False)  # as the image has them below

    def frames(self) -> Iterator[bytes]:
        """The blob."""
        return frames(self.pieces, self.folders)


def layer(pieces: Collection[Piece], about: str, known: Path, folders: Mapping[str, Mode]) -> Layer:
    """The layer of some pieces; its digests are computed once, and kept in the folder `known`."""
    used = {path: folders[path] for piece in pieces for path in piece.folders if path in folders}
    key = digest(encode([[piece.key for piece in pieces], {path: str(mode) for path, mode in used.items()}]))
    record = known / key.removeprefix("sha256:")
    if record.exists():
        os.utime(record)  # it is of use, and goes when its pieces do, which may come out otherwise one day
    else:
        blob, content, total = hashlib.sha256(), hashlib.sha256(), 0
        for frame in frames(pieces, used):
            blob.update(frame)
            content.update(decompress(frame))
            total += len(frame)
        write(record, encode([f"sha256:{blob.hexdigest()}", total, f"sha256:{content.hexdigest()}"]))
    blob_digest, size, diff_id = json.loads(record.read_text())
    return Layer(blob_digest, size, diff_id, about, tuple(pieces), used)


def layers(groups: Iterable[tuple[str, list[Piece]]], known: Path, folders: Mapping[str, Mode]) -> list[Layer]:
    """The layers of groups of pieces, each with what docker history says of it."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and decompressing let other threads run
        return list(pool.map(lambda group: layer(group[1], group[0], known, folders), groups))


def encode(value: Any) -> bytes:
    """A document, always in the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest(content: bytes) -> str:
    """The name of a blob."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def descriptor(kind: str, blob: bytes, **more: Any) -> dict[str, Any]:
    """How one document names another."""
    return {"mediaType": kind, "digest": digest(blob), "size": len(blob), **more}


@dataclass(frozen=True)
class Image:
    """An image that is ready to be written: its layers, the lowest first, and the two documents about it."""

    layers: list[Layer]
    config: bytes
    manifest: bytes

    @classmethod
    def of(cls, layers: list[Layer], settings: Mapping[str, Any], architecture: str) -> Image:
        """The image of some layers with the `settings` (Env, User and so on) of an OCI configuration."""
        config = encode(
            {
                "architecture": architecture,
                "os": "linux",
                "created": CREATED,
                "config": settings,
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
                "history": [{"created": CREATED, "created_by": layer.about} for layer in layers],
            }
        )
        blobs = [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size} for layer in layers]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, config), "layers": blobs}
        return cls(layers, config, encode(manifest))

    def lacking(self, blobs: Collection[str], chains: Iterable[list[str]]) -> list[Layer]:
        """The layers that an engine lacks: which has single `blobs`, or, in the classic store, `chains` of layers."""
        ours = [layer.diff_id for layer in self.layers]
        common = max((shared(ours, chain) for chain in chains), default=0)
        return [layer for layer in self.layers[common:] if layer.digest not in blobs]

    def files(self, name: str, sent: Iterable[Layer]) -> Iterator[tuple[str, Iterable[bytes]]]:
        """The files of the archive of the image `name`, with the layers that are `sent`: path and content."""
        named = {"io.containerd.image.name": f"docker.io/library/{name}"}
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [descriptor(MANIFEST, self.manifest, annotations=named)],
        }
        classic = {
            "Config": place(digest(self.config)),
            "RepoTags": [name],
            "Layers": [place(layer.digest) for layer in self.layers],
        }
        yield "oci-layout", [encode({"imageLayoutVersion": "1.0.0"})]
        yield "index.json", [encode(index)]
        yield "manifest.json", [encode([classic])]
        for blob in (self.config, self.manifest):
            yield place(digest(blob)), [blob]
        for layer in {layer.digest: layer for layer in sent}.values():
            yield place(layer.digest), layer.frames()

    def write(self, folder: Path, name: str, sent: Iterable[Layer]) -> None:
        """Write the archive's files into a folder."""
        for path, content in self.files(name, sent):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (folder / path).open("wb") as file:
                file.writelines(content)

    def described(self) -> list[dict[str, Any]]:
        """The layers as documents, to be remembered."""
        names = ("digest", "size", "diff_id", "about")
        return [{name: getattr(layer, name) for name in names} for layer in self.layers]


def shared(ours: list[str], theirs: list[str]) -> int:
    """How many layers two chains have in common from the lowest on."""
    return len([*takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))])


def place(name: str) -> str:
    """Where the blob of this digest is in an archive."""
    return f"blobs/{name.replace(':', '/')}"
