"""Build one image: its plan, the archive of what the engine lacks, the load, the checks."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from itertools import takewhile
from typing import IO, Any

from pyrlab.host import store
from pyrlab.host.bake import bake
from pyrlab.host.session import LISTS, Session
from pyrlab.host.state import NEW, PACKAGES, RECORDS, Image, dockerfile, identity, outdated, own_folder
from pyrlab.model import plan
from pyrlab.model.problem import Problem

PLAN = "plan"  # in the cache
SETTINGS = (  # of an image, as the OCI's image-spec has them, and Docker's own
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"),
    *("Healthcheck", "Shell", "OnBuild", "ArgsEscaped"),
)


def make(image: Image, now: Session) -> None:
    """Build an image beside the one before, whose place it is to take if it did not turn out the same."""
    started = time.monotonic()
    project, engine = now.project, now.project.engine
    now.progress.current = image.name
    packages, beside = image.beside + PACKAGES, image.beside + NEW
    environment = {
        **now.environment,
        "TAG": beside.partition(":")[2],
        "IMAGE": image.name,
        "PARENT": f"docker-image://{image.parent.tag}" if image.parent else "",
        "PACKAGES": packages,
        "DOCKERFILE": dockerfile(project.root, image.name),
    }
    said: dict[str, Any] = {}

    def load(archive: IO[bytes]) -> None:
        said.update(store.load(engine, archive))

    def loaded() -> bool:
        """Whether the engine has all of it: one that lacks a layer may have said nothing."""
        found = engine.inspect("image", packages)
        return found is not None and found["RootFS"]["Layers"] == [each["diff_id"] for each in said.get("layers", ())]

    for thin in (True, False):
        write_plan(image, now, thin)
        bake(project, "archive", now.progress, environment, loaded, load)
        if loaded():
            break
    else:
        raise Problem(str(engine.fault() or store.refusal(said["words"])))
    (project.cache / PLAN / "lines.json").write_text(json.dumps(said["lines"]))
    built = partial(engine.inspect, "image", beside)
    bake(project, "checked", now.progress, environment, built, layers=new_layers(image, said["layers"]))
    new = built()
    assert new
    store.remember(project, store.RECORDS, new["Id"], said["layers"])
    image.why = outdated(project, image)
    if not image.before or image.before["Id"] != new["Id"]:
        image.new = new
    image.seconds = time.monotonic() - started
    store.remember(project, RECORDS, new["Id"], image.inputs)


def new_layers(image: Image, layers: store.Layers) -> int:
    """How many layers an image has from the first on that neither the image of before nor the parent has there."""
    own = [layer["diff_id"] for layer in layers]
    known = [each["RootFS"]["Layers"] for each in (image.before, image.parent and image.parent.stored) if each]
    same = ([*takewhile(lambda pair: pair[0] == pair[1], zip(own, each, strict=False))] for each in known)
    return len(own) - max(map(len, same), default=0)


def write_plan(image: Image, now: Session, thin: bool) -> None:
    """Write what an image is to have, for pyrlab/steps/image.py; `thin` leaves out what the engine has."""
    project, folder = now.project, now.project.cache / PLAN
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(project.cache / LISTS, folder / "lists")
    shutil.copytree(project.staged, folder / "locks")
    parent = image.parent.stored if image.parent else None
    plan.write(
        folder,
        project.checkout,
        image.name,
        name=image.beside + PACKAGES,
        python=now.python,
        parent=identity(parent),
        dockerfile=image.inputs[own_folder(project.root, image.name)],
        below=store.layers_of(now, image.parent.tag, parent) if image.parent and parent else [],
        settings={name: value for name, value in parent["Config"].items() if name in SETTINGS} if parent else {},
        **(store.has(project) if thin else {}),
    )
