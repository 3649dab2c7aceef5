"""What the engine's store has of images, and how it gets what a build step made."""

from __future__ import annotations

import functools
import io
import json
import subprocess
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pyrlab.host.docker import CACHE, docker, inspect
from pyrlab.host.engine import FULL_DISK
from pyrlab.host.progress import FULL
from pyrlab.model.problem import Problem

Layers = list[dict[str, Any]]  # each with digest, size (bytes), diff_id and about, as pyrlab/steps/oci.py describes it
RECORDS = CACHE / "layers.json"  # the layers of images that were loaded or read
MANY = 100  # images to remember


@functools.cache
def is_classic() -> bool:
    """Whether the engine has its classic image store, which knows layers by what they unpack to."""
    return "io.containerd.snapshotter" not in docker("info", "--format", "{{json .DriverStatus}}")


def recall(records: Path) -> dict[str, Any]:
    """What a file says of images, by the engine's id of each."""
    found: dict[str, Any] = json.loads(records.read_text()) if records.exists() else {}
    return found


def remember(records: Path, identity: str, what: Any) -> None:
    """Note something of an image in a file, beside what it says of the latest others."""
    found = recall(records)
    found.pop(identity, None)
    found[identity] = what
    part = records.with_suffix(".part")
    part.write_text(json.dumps(dict([*found.items()][-MANY:])))
    part.replace(records)


def has(names: Iterable[str]) -> dict[str, Any]:
    """What the engine has already, for an archive that leaves it out: blobs, or in the classic store chains of layers.

    Of blobs only those count that this checkout has loaded itself, with an image that is there still: an image that was
    pulled may lack some (moby/moby#49473). `names` are those of all images.
    """
    present = docker("image", "ls", "--no-trunc", "--format", "{{.ID}} {{.Repository}}").splitlines()
    ids = {identity for identity, _, name in (line.partition(" ") for line in present) if name in names}
    if is_classic():
        found = json.loads(docker("image", "inspect", *sorted(ids))) if ids else []  # the same plan each time
        return {"blobs": [], "chains": [image["RootFS"]["Layers"] for image in found]}
    known = recall(RECORDS)
    return {"blobs": sorted({layer["digest"] for each in ids for layer in known.get(each, ())}), "chains": []}


def layers_of(image: str) -> Layers:
    """The layers of an image of the store, the lowest first; raises Problem where it cannot be read."""
    stored = inspect("image", image)
    assert stored
    name = image.partition(":")[0]
    diff_ids: list[str] = stored["RootFS"]["Layers"]
    if is_classic():  # whose archives name layers by what they unpack to
        return [{"digest": each, "size": 0, "diff_id": each, "about": name} for each in diff_ids]
    known: Layers = recall(RECORDS).get(stored["Id"], [])
    if [layer["diff_id"] for layer in known] != diff_ids:
        about = {layer["diff_id"]: layer["about"] for layer in known}
        blobs = manifest_of(stored["Id"], image)["layers"]
        known = [
            {"digest": blob["digest"], "size": blob["size"], "diff_id": each, "about": about.get(each, name)}
            for each, blob in zip(diff_ids, blobs, strict=True)
        ]
        remember(RECORDS, stored["Id"], known)
    return known


def manifest_of(identity: str, image: str) -> dict[str, Any]:
    """The manifest of an image, by whose digest the engine knows it: saving the image stops where it has come by."""
    with subprocess.Popen(["docker", "image", "save", image], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            return document(process.stdout, identity, image)
        finally:
            process.kill()


def document(archive: IO[bytes], digest: str, image: str) -> dict[str, Any]:
    """The document of this digest in an archive of an image, read no further; raises Problem where there is none."""
    with tarfile.open(fileobj=archive, mode="r|") as files:
        for member in files:
            if member.name.endswith(digest.removeprefix("sha256:")) and (file := files.extractfile(member)):
                found: dict[str, Any] = json.loads(file.read())
                return found
    raise Problem(f"the engine does not give the manifest of {image}")


class Tee(io.RawIOBase):
    """A stream that passes on what is read of it."""

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self.source, self.sink = source, sink

    def read(self, size: int = -1) -> bytes:
        """Read, and pass on."""
        content = self.source.read(size)
        self.sink.write(content)
        return content


def load(archive: IO[bytes]) -> dict[str, Any]:
    """Let the engine load an archive that comes as a stream; what its pyrlab.json says, and the engine's `words`."""
    said: dict[str, Any] = {}
    command = ["docker", "load", "--quiet"]
    pipe = subprocess.PIPE
    # Ctrl-C ends what writes the archive, and so this; ended itself it would leave the engine to go on unseen.
    with subprocess.Popen(
        command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, start_new_session=True
    ) as loading:
        assert loading.stdin and loading.stderr
        tee = Tee(archive, loading.stdin)
        # Of a build step that has failed there is nothing to read; where the engine takes no more, it says why.
        with suppress(tarfile.TarError, BrokenPipeError):
            with tarfile.open(fileobj=tee, mode="r|") as files:
                for member in files:
                    if member.name == "pyrlab.json" and (file := files.extractfile(member)):
                        said = json.loads(file.read())
            while tee.read(1 << 16):
                pass
        while archive.read(1 << 16):  # so that whoever writes it comes to an end
            pass
        with suppress(BrokenPipeError):
            loading.stdin.close()
        said["words"] = loading.stderr.read().decode(errors="replace").strip()
    return said


def refusal(words: str) -> str:
    """Why the engine has not loaded an archive, told from its words."""
    if FULL in words.lower():
        return str(FULL_DISK)
    return f"the engine did not load what was built: {(words or 'it gives no reason').splitlines()[-1]}"
