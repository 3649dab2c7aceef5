"""What the engine's store has of images, and how it gets what a build step made."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pyrlab.host.bake import bake
from pyrlab.host.engine import Engine
from pyrlab.host.faults import FULL_DISK, is_classic
from pyrlab.host.progress import FULL
from pyrlab.host.project import Project
from pyrlab.host.session import Session
from pyrlab.host.text import write_whole

Layers = list[dict[str, Any]]  # each with digest, size (bytes), diff_id and about, as pyrlab/steps/oci.py describes it
RECORDS = "layers.json"  # in the cache: the layers of images that were loaded or read
MANY = 100  # images to remember


def recall(project: Project, name: str) -> dict[str, Any]:
    """What a file of the cache says of images, by the engine's id of each."""
    records = project.cache / name
    found: dict[str, Any] = json.loads(records.read_text()) if records.exists() else {}
    return found


def remember(project: Project, name: str, identity: str, what: Any) -> None:
    """Note something of an image in a file of the cache, beside what it says of the latest others."""
    found = recall(project, name)
    found.pop(identity, None)
    found[identity] = what
    write_whole(project.cache / name, json.dumps(dict([*found.items()][-MANY:])))


def has(project: Project) -> dict[str, Any]:
    """What the engine has already, for an archive that leaves it out: blobs, or in the classic store chains of layers.

    Of blobs only those count that this checkout has loaded itself, with an image that is there still: an image that was
    pulled may lack some (moby/moby#49473).
    """
    engine, known = project.engine, recall(project, RECORDS)
    if not is_classic(engine.about):
        there = {image["Id"] for image in engine.described("image", [*known])}
        return {"blobs": sorted({layer["digest"] for each in there for layer in known[each]})}
    present = engine.run("image", "ls", "--no-trunc", "--format", "{{.ID}} {{.Repository}}").splitlines()
    ids = {identity for identity, _, name in (line.partition(" ") for line in present) if name in project.table}
    found = engine.described("image", sorted(ids))  # the same plan each time
    return {"chains": [image["RootFS"]["Layers"] for image in found]}


def layers_of(now: Session, image: str, stored: dict[str, Any]) -> Layers:
    """The layers of an image, as it is `stored`, the lowest first; raises Problem where it cannot be read."""
    project, name = now.project, image.partition(":")[0]
    diff_ids: list[str] = stored["RootFS"]["Layers"]
    if is_classic(project.engine.about):  # whose archives name layers by what they unpack to
        return [{"digest": each, "size": 0, "diff_id": each, "about": name} for each in diff_ids]
    known: Layers = recall(project, RECORDS).get(stored["Id"], [])
    if [layer["diff_id"] for layer in known] != diff_ids:
        about = {layer["diff_id"]: layer["about"] for layer in known}
        known = [
            {"digest": blob["digest"], "size": blob["size"], "diff_id": each, "about": about.get(each, name)}
            for each, blob in zip(diff_ids, manifest_of(now, image, known)["layers"], strict=True)
        ]
        remember(project, RECORDS, stored["Id"], known)
    return known


def manifest_of(now: Session, image: str, known: Layers) -> dict[str, Any]:
    """The manifest of an image, which BuildKit writes with all layers but those of which a file seems to be there."""
    with tempfile.TemporaryDirectory(dir=now.project.cache) as folder:
        blobs = Path(folder) / "blobs/sha256"
        blobs.mkdir(parents=True)
        for layer in known:
            (blobs / layer["digest"].removeprefix("sha256:")).touch()
        environment = {**now.environment, "PARENT": f"docker-image://{image}", "FOLDER": folder}
        bake(now.project, "manifest", now.progress, environment)
        [written] = json.loads((Path(folder) / "index.json").read_text())["manifests"]
        found: dict[str, Any] = json.loads((blobs / written["digest"].removeprefix("sha256:")).read_text())
    return found


class Tee(io.RawIOBase):
    """A stream that passes on what is read of it."""

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self.source, self.sink = source, sink

    def read(self, size: int = -1) -> bytes:
        """Read, and pass on."""
        content = self.source.read(size)
        self.sink.write(content)
        return content


def load(engine: Engine, archive: IO[bytes]) -> dict[str, Any]:
    """Let the engine load an archive that comes as a stream; what its pyrlab.json says, and the engine's `words`."""
    said: dict[str, Any] = {}
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    # Ctrl-C ends what writes the archive, and so this; ended itself it would leave the engine to go on unseen.
    with engine.open("load", "--quiet", **streams, start_new_session=True) as loading:
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
