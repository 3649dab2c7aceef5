"""What there is of the images, what they would be made of now, and so which are stale, and why."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pyrlab.host import locks, owner, store
from pyrlab.host.project import Project
from pyrlab.model import locked
from pyrlab.model.problem import Problem

NEW = ".new"  # ends the tag of what is built beside an image until everything is
PACKAGES = ".packages"  # ends that of what an image is finished on
RECORDS = "built.json"  # in the cache: what images were made of; what decides whether to build is no part of one

# What every image is made with, besides its own folder, lists and parent; a change is a reason to build.
TOOLS = ["pyrlab/model", "pyrlab/steps", "docker/steps", "docker/bake.hcl", "docker/pyrlab-base/dpkg.cfg"]
RUN_TIME = {"pyrlab-base": ["docker/run"]}
PLAIN = "docker/rlab/Dockerfile"  # of an image without a folder of its own


@dataclass
class Image:
    """One image, what it would be made of now, and how it came out."""

    name: str
    place: str  # its name in the engine's store
    beside: str  # how the names begin that this checkout gives it until then
    inputs: dict[str, str]
    parent: Image | None
    before: dict[str, Any] | None  # what the engine knows of the one that there is
    new: dict[str, Any] | None = None  # the same of the one that was built beside it, if that is another
    why: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tag(self) -> str:
        """Where it is now: until all images are built, the new one is beside the one before."""
        return self.beside + NEW if self.new else self.place

    @property
    def stored(self) -> dict[str, Any] | None:
        """What the engine knows of it, None where it is not built yet."""
        return self.new or self.before


def wanted(project: Project, names: list[str]) -> list[str]:
    """The named images and what they start from, parents first; where none is, the default ones and all there are."""
    table = project.table
    there = {} if names else project.images()
    chosen = {*names} or {name for name, image in table.items() if image.default or project.tag_of(name) in there}
    if unknown := chosen - table.keys():
        raise Problem(f"there is no image {unknown.pop()}; the images are {', '.join(table)}")
    if not chosen:
        raise Problem("images.toml has no image that is built unasked; name one, as in make build_IMAGE")
    needed = {parent.name for name in chosen for parent in table.lineage(name)}
    return [name for name in table if name in needed]


def beside(project: Project, name: str) -> str:
    """How the names begin of what is built to be an image: others may build one of the same name meanwhile."""
    return f"{project.tag_of(name)}.{owner.mark(project)}"


def survey(project: Project, names: list[str], python: str) -> list[Image]:
    """The images `names`, parents first, as they are, and what they would be made of now."""
    found: dict[str, Image] = {}
    there = project.images()
    for name in names:
        place, parent = project.tag_of(name), found.get(project.table[name].parent)
        found[name] = Image(name, place, beside(project, name), inputs_of(project, name), parent, there.get(place))
        if not parent:
            found[name].inputs["Python image"] = python
    return [*found.values()]


def outdated(project: Project, image: Image) -> list[str]:
    """Why `image` is not what its inputs and its parent would give now; empty where it is."""
    if image.parent:
        image.inputs["parent"] = identity(image.parent.stored)
    if image.stored is None:
        return ["no such image yet"]
    before: dict[str, str] | None = store.recall(project, RECORDS).get(image.stored["Id"])
    if before is None:
        return ["not known to this checkout"]
    changed = [name for name in image.inputs | before if before.get(name) != image.inputs.get(name)]
    return [f"{image.parent.name if image.parent and name == 'parent' else name} changed" for name in changed]


def inputs_of(project: Project, name: str) -> dict[str, str]:
    """What the image `name` is made of besides its parent, by what a user would say has changed."""
    table, folders = project.table, [*TOOLS, *RUN_TIME.get(name, ()), own_folder(project.root, name)]
    inputs = {path: digest(project.root / path) for path in folders}
    inputs["images.toml"] = locked.digest(repr(table[name]))
    for each in table[name].lists:
        content = locks.Lock.read(table, project.staged, each.lock).content
        if each.ecosystem == "Python":  # whose lock may have the packages of another image's list
            sections = locked.sections(content)
            content = sections[""] + sections.get(each.section, "")
        inputs[f"{each.lock}.lock"] = locked.digest(content)
    for setting in chain.from_iterable(locks.SETTINGS.get(each.ecosystem, ()) for each in table[name].lists):
        if value := project.parameter(setting):
            inputs[setting] = hashlib.sha256(value.encode()).hexdigest()[:16]  # it may hold a password
    return inputs


def identity(image: dict[str, Any] | None) -> str:
    """What a child depends on: the layers and the configuration of the parent `image`."""
    return locked.digest(json.dumps([image["RootFS"]["Layers"], image["Config"]])) if image else ""


def dockerfile(root: Path, name: str) -> str:
    """The Dockerfile of an image."""
    own = f"docker/{name}/Dockerfile"
    return own if (root / own).exists() else PLAIN


def own_folder(root: Path, name: str) -> str:
    """The folder of an image's Dockerfile."""
    return str(Path(dockerfile(root, name)).parent)


def digest(path: Path) -> str:
    """A short digest of a file, or of all files of a folder with their names and modes."""
    if path.is_file():
        files = [path]
    else:
        files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    total = hashlib.sha256()
    for file in files:
        executable = os.access(file, os.X_OK)
        total.update(f"{file.relative_to(path.parent)} {executable} {file.stat().st_size}\n".encode())
        total.update(file.read_bytes())
    return total.hexdigest()[:16]
