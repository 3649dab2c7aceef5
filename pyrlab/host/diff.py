"""Say what differs between two builds (make diff A=… B=…).

A and B are each a tag, of all images, an image, an archive of docker save, or a git revision.

A git revision has the lists of packages that were committed with it, but neither layers nor sizes.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyrlab.host import contents, locks
from pyrlab.host.contents import Manifest, Versions
from pyrlab.host.engine import Engine
from pyrlab.host.locks import Change, compare
from pyrlab.host.project import Project, run_main
from pyrlab.host.text import megabytes
from pyrlab.model.problem import Problem


@dataclass(frozen=True)
class Build:
    """One image of one side."""

    versions: Versions
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)  # bytes of each package, where known
    size: int = 0  # bytes of all files, where known
    layers: tuple[str, ...] = ()  # digests, where known
    image: str = ""  # in the engine's store
    compressed: dict[str, int] = field(default_factory=dict)  # bytes of each layer of an archive, by digest


def sides(project: Project, reference: str) -> dict[str, Build]:
    """The builds that `reference` means, by image; raises Problem where it means none."""
    engine = project.engine
    if (path := project.root / reference).is_file():
        return from_archive(engine, path)
    images = [f"{name}:{reference}" for name in project.table if engine.inspect("image", f"{name}:{reference}")]
    if not images and engine.inspect("image", reference):
        images = [reference]
    if images:
        return dict(from_store(engine, image) for image in images)
    if builds := from_git(project, reference):
        return builds
    there = f"no tag, image or archive here, nor a git revision that has {contents.LISTS}/"
    raise Problem(f"{reference} is {there}; docker images and git log show what there is")


def described(manifest: Manifest) -> Build:
    """The build that `manifest` is of."""
    sizes = {(package["ecosystem"], package["name"]): package["size"] for package in manifest["packages"]}
    return Build(contents.versions(manifest), sizes, manifest["size"])


def from_store(engine: Engine, image: str) -> tuple[str, Build]:
    """An image of the engine's store."""
    layers = (engine.inspect("image", image) or {})["RootFS"]["Layers"]
    manifest = contents.manifest_of(engine, image)
    return manifest["image"], replace(described(manifest), layers=tuple(layers), image=image)


def from_archive(engine: Engine, path: Path) -> dict[str, Build]:
    """The images in an archive of docker save."""
    builds: dict[str, Build] = {}
    with path.open("rb") as stream:
        images = contents.read_archive(stream, path.name)
    for saved in images:
        manifest = contents.manifest_in(engine, path, saved)
        builds[manifest["image"]] = replace(described(manifest), layers=saved.digests, compressed=saved.layers)
    return builds


def from_git(project: Project, revision: str) -> dict[str, Build]:
    """The lists of packages of a git revision; none where there is no such thing."""
    builds: dict[str, Build] = {}
    for name, image in project.table.items():
        for folder in (contents.LISTS, contents.LISTS_BEFORE):
            command = ["git", "show", f"{revision}:./{folder}/{name}.txt"]
            run = subprocess.run(command, cwd=project.root, capture_output=True, text=True)
            if run.returncode == 0:
                parent = builds.get(image.parent)
                builds[name] = Build({**(parent.versions if parent else {}), **contents.read_list(run.stdout)})
                break
    return builds


def changes(old: Build, new: Build) -> list[Change]:
    """What differs between two builds, with sizes where both are known."""
    found = compare(old.versions, new.versions)
    if not (old.sizes and new.sizes):
        return found
    keys = [(change.ecosystem, change.package) for change in found]
    grown = [new.sizes.get(key, 0) - old.sizes.get(key, 0) for key in keys]
    return [replace(change, grown=more) for change, more in zip(found, grown, strict=True)]


def heading(name: str, old: Build, new: Build, known: set[str], sizes: dict[str, int]) -> str:
    """What became of an image as a whole, for those who have the layers `known`."""
    if not (old.layers and new.layers):
        return name
    missing = set(new.layers) - known
    shared = f"{sum(layer in known for layer in new.layers)} of {len(new.layers)} layers shared"
    pulled = megabytes(sum(sizes[layer] for layer in missing))
    return f"{name}: {megabytes(old.size)} → {megabytes(new.size)}, {shared}, {pulled} to pull"


def main(project: Project) -> None:
    """Print what B has otherwise than A, of a child what its parent has not."""
    one, other = project.parameter("A"), project.parameter("B")
    before, after = sides(project, one), sides(project, other)
    pairs = {name: (before[name], after[name]) for name in project.table if name in before and name in after}
    if not pairs:
        raise Problem(f"{one} has {', '.join(before)}, but {other} has {', '.join(after)}")
    known = {layer for build in before.values() for layer in build.layers}
    sizes = contents.layer_sizes(
        project.engine,
        *(new.image for old, new in pairs.values() if new.image and old.layers and not known.issuperset(new.layers)),
    )
    found = {name: changes(*pair) for name, pair in pairs.items()}
    for name, (old, new) in pairs.items():
        above = found.get(project.table[name].parent, [])
        own = [change for change in found[name] if change not in above]
        print(heading(name, old, new, known, sizes | new.compressed))
        print(locks.table(own) if own else "the same packages" + (" as its parent's" if above else ""), end="\n\n")


if __name__ == "__main__":
    run_main(main)
