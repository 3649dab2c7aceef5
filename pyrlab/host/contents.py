"""What is in an image: its manifest, the lists of its packages, and the size of its layers."""

from __future__ import annotations

import functools
import io
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any

from pyrlab.host import owner
from pyrlab.host.engine import Engine
from pyrlab.host.text import write_whole
from pyrlab.model.problem import Problem

Manifest = dict[str, Any]  # as pyrlab/steps/manifest.py writes it
Versions = dict[tuple[str, str], str]  # of packages, by ecosystem and name

LABEL = "org.pyrlab.look"  # of a container that it is copied from
PATH = "/usr/share/pyrlab/manifest.json"  # in every image
LISTS = "installed"  # the folder with a list of packages for each image, which git keeps
LISTS_BEFORE = "packages"  # what it was called once, of older revisions


def manifest_of(engine: Engine, image: str) -> Manifest:
    """The manifest of an image in the engine's store, and its digest; raises Problem where there is none."""
    stored = engine.inspect("image", image)
    if not stored:
        raise Problem(f"there is no image {image}; make build makes it")
    if not (text := manifest_text(engine, image, stored["Id"])):
        raise Problem(f"{image} has no manifest, as what docker build makes alone; make build gives it one")
    found: Manifest = json.loads(text)
    return found | {"digest": stored["Id"]}


@functools.cache
def manifest_text(engine: Engine, image: str, digest: str) -> str:
    """The manifest's file in the image that has this digest now; empty where it has none.

    It is asked for by its name: a digest stands for any of an image's names, one that is just being removed included.
    It is copied: what a container prints, an engine waits for two seconds long, which on a busy machine is too short.
    """
    own = [f"--label={label}" for label in (LABEL, *owner.labels(engine.folder))]
    for _ in range(5):
        made = engine.call("create", "--pull=never", "--network=none", *own, image, "cat")
        container, words = made.stdout.strip(), made.stderr
        if not container:
            break
        copy = ("cp", f"{container}:{PATH}", "-")  # as a tar file
        with engine.open(*copy, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as copying:
            content, told = copying.communicate()
        engine.run("rm", container, check=False)
        if copying.returncode == 0:
            with tarfile.open(fileobj=io.BytesIO(content)) as tree:
                return "".join(file.read().decode() for member in tree if (file := tree.extractfile(member)))
        words = told.decode(errors="replace")
        if "Could not find the file" in words:
            return ""
        if "No such container" not in words:  # else a build of this checkout that began meanwhile has swept it away
            break
    why = (words.strip() or "docker gives no reason").splitlines()[0]
    raise Problem(f"{image}, now {digest[:19]}, cannot be looked into: {why}")


def versions(manifest: Manifest) -> Versions:
    """The packages of a manifest."""
    return {(package["ecosystem"], package["name"]): package["version"] for package in manifest["packages"]}


def own_packages(manifest: Manifest, parent: Manifest | None) -> list[dict[str, Any]]:
    """The packages that an image has and its parent has not, or in another version."""
    above = versions(parent) if parent else {}
    return [p for p in manifest["packages"] if above.get((p["ecosystem"], p["name"])) != p["version"]]


def spellings(package: str) -> set[str]:
    """The names of the packages that a user may mean: of Python's any spelling will do, R's may be Debian's."""
    canonical = re.sub(r"[-_.]+", "-", package).lower()  # as indexes, locks and manifests have it
    return {package, canonical, f"r-cran-{package.lower()}", f"r-bioc-{package.lower()}"}


def write_list(path: Path, packages: str) -> None:
    """Write the list of an image's own packages, in the folder LISTS of the checkout for git to keep."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, packages)


def read_list(text: str) -> Versions:
    """The packages of such a list."""
    rows = re.findall(r"^(\w+) (\S+) (\S+)$", text, re.MULTILINE)  # git may have left a conflict between them
    return {(ecosystem, name): version for ecosystem, name, version in rows}


def layer_sizes(engine: Engine, *images: str) -> dict[str, int]:
    """The bytes of each layer of some images, by the layer's digest: compressed, but in a classic image store."""
    if not images:
        return {}
    with engine.open("image", "save", *images, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = read_archive(process.stdout, "what the engine saved")
        return {layer: size for saved in found for layer, size in saved.layers.items()}


class Saved:
    """An image in an archive."""

    def __init__(self, entry: dict[str, Any], config: dict[str, Any], sizes: dict[str, int]) -> None:
        self.last = entry["Layers"][-1]  # the archive's name for the layer on top
        self.digests: tuple[str, ...] = tuple(config["rootfs"]["diff_ids"])
        self.layers = dict(zip(self.digests, (sizes[path] for path in entry["Layers"]), strict=True))


def read_archive(stream: IO[bytes], name: str) -> list[Saved]:
    """The images in the archive `name` of docker save, read once from front to end; raises Problem where it is none."""
    sizes: dict[str, int] = {}
    documents: dict[str, Any] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                sizes[member.name] = member.size
                file = archive.extractfile(member) if member.size < 1 << 20 else None
                content = file.read() if file else b""
                if content.startswith((b"{", b"[")):
                    documents[member.name] = json.loads(content)
        return [Saved(entry, documents[entry["Config"]], sizes) for entry in documents["manifest.json"]]
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise Problem(f"{name} is no archive of docker save") from error


def manifest_in(engine: Engine, path: Path, saved: Saved) -> Manifest:
    """The manifest of an image in the archive `path`; raises Problem where there is none.

    It is in the layer on top, which BuildKit unpacks, for it knows every compression.
    """
    with tarfile.open(path) as archive, tempfile.TemporaryDirectory() as name:
        file, folder = archive.extractfile(saved.last), Path(name)
        assert file is not None
        (folder / "layer").write_bytes(file.read())
        steps = f"FROM scratch AS pyrlab\nADD layer /\nFROM scratch\nCOPY --from=pyrlab {PATH} /\n"
        (folder / "Dockerfile").write_text(steps)
        engine.run("buildx", "build", "--quiet", f"--output={folder}", name)
        found: Manifest = json.loads((folder / "manifest.json").read_text())
        return found
