"""Without make: what docker build and docker compose make of the Dockerfiles alone, by lists and locks."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import (
    CHECKOUT,
    NAMES,
    PROJECT,
    ROOT,
    TINY,
    Run,
    build_records,
    docker,
    layers,
    remove_images,
    users_environment,
)
from compare import settings
from pyrlab.host import contents
from pyrlab.host.bake import prune, turn
from pyrlab.host.base import LABEL
from pyrlab.host.online import build_environment
from pyrlab.model.problem import Problem
from servers import free_port

HAND = f"{TINY}-hand"  # the tag of images that docker build makes
COMPOSED = f"{TINY}-composed"  # and docker compose
PYTHON = f"pyrlab-python:{HAND}"  # the Python image that all of them start from, as a registry would have it


@pytest.fixture(scope="module")
def python(debian: Path) -> Iterator[str]:
    """A Python image of the engine's; what was built on it leaves nothing in the build cache, where it takes much."""
    path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    docker("import", f"--change={path}", '--change=CMD ["python3"]', str(debian), PYTHON)
    before = cached()
    yield PYTHON
    docker("image", "rm", PYTHON)
    prune(CHECKOUT.engine, cached() - before)


def cached() -> set[str]:
    """The records of what plain builds have made."""
    words = ("steps/plain.sh", "run.sh unpack")
    return {record.split()[0].rstrip("*") for word in words for record in build_records(word)}


def build(checkout: Path, name: str) -> Run:
    """Build an image by its Dockerfile, as somebody would type it, with what getting online takes on this machine."""
    parent = CHECKOUT.table[name].parent
    start = f"PARENT={parent}:{HAND}" if parent else f"PYTHONBASE={PYTHON}"
    given = build_environment(CHECKOUT)
    secrets = ["--secret=id=network,env=NETWORK", f"--secret=id=ca,src={given['CACERT'] or os.devnull}"]
    command = [
        "docker",
        "build",
        "--provenance=false",
        *secrets,
        f"--build-arg={start}",
        f"--file=docker/{name}/Dockerfile",
    ]
    command += [f"--tag={name}:{HAND}", "."]
    with turn(CHECKOUT.engine):
        return subprocess.run(command, cwd=checkout, capture_output=True, text=True, env={**os.environ, **given})


@pytest.fixture(scope="module")
def by_hand(tiny: Path, python: str) -> Iterator[None]:
    """All images of the tiny lists, built without make."""
    assert python
    try:
        for name in NAMES:
            built = build(tiny, name)
            assert built.returncode == 0, built.stderr
        yield
    finally:
        remove_images(HAND)


def tree(image: str) -> dict[str, list[object]]:
    """All that is in an image."""
    code = (ROOT / "tests/make/walk.py").read_text()
    run = ["run", "--rm", "--user=0", "--network=none", "--entrypoint=python3", image, "-IBSc", code]
    found: dict[str, list[object]] = json.loads(docker(*run))
    return found


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("name", NAMES)
def test_docker_build(name: str) -> None:
    """It gives the files of make's image, in one layer beside those of the Dockerfile itself, but for the manifest."""
    ours, theirs = tree(f"{name}:{TINY}"), tree(f"{name}:{HAND}")
    manifest = {path: ours.pop(path) for path in [contents.PATH, str(Path(contents.PATH).parent)]}
    assert manifest.keys().isdisjoint(theirs)
    wrong = {path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)}
    assert not wrong, "\n".join(f"{path}: {ours.get(path)}, but {theirs.get(path)}" for path in sorted(wrong)[:20])
    parent = CHECKOUT.table[name].parent
    own = layers(f"{name}:{HAND}")[len(layers(f"{parent}:{HAND}" if parent else PYTHON)) :]
    assert len(own) <= 3


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("name", NAMES)
def test_how_it_is_run(name: str) -> None:
    """The image is run as make's; it knows neither which Python image it starts from nor its packages, and says so."""
    ours, theirs = (settings(f"{name}:{tag}", docker) for tag in (TINY, HAND))
    labels = ours["Labels"]
    assert isinstance(labels, dict)
    assert labels.pop(LABEL).startswith("Debian ")
    assert theirs == ours
    with pytest.raises(Problem, match="has no manifest, as what docker build makes alone; make build gives it one"):
        contents.manifest_of(CHECKOUT.engine, f"{name}:{HAND}")


@pytest.mark.usefixtures("by_hand")
def test_a_list_that_was_changed(checkout: Path) -> None:
    """What a list names is in the image, or there is none: its lock must have been made of the list as it is."""
    with (checkout / "requirements.txt").open("a") as file:
        file.write("cowsay\n")
    built = build(checkout, "pylab")
    assert built.returncode != 0
    what = "made before docker/pyrlab-base/jupyter.txt or requirements.txt was changed"
    assert f'"what": "{what}, so that it lacks what is asked for; type make lock"' in built.stderr
    assert '"where": "requirements.lock"' in built.stderr


@pytest.mark.usefixtures("by_hand")
def test_docker_compose(tiny: Path, tmp_path: Path) -> None:
    """Without any image there, it builds what a lab starts from, then the lab's image, and starts the lab."""
    (tmp_path / "work").mkdir(mode=0o777)
    port, token = free_port(), "canary"
    given = {"TAG": COMPOSED, "PROJECT": PROJECT, "PORT": str(port), "TBPORT": str(free_port()), "PYTHONBASE": PYTHON}
    given |= {"JUPYTER_TOKEN": token, "WORK": str(tmp_path / "work")}
    given |= {"CERTIFICATES": certificates} if (certificates := build_environment(CHECKOUT)["CACERT"]) else {}

    def compose(*arguments: str) -> Run:
        command = ["docker", "compose", *arguments]
        return subprocess.run(command, cwd=tiny, env={**users_environment(), **given}, capture_output=True, text=True)

    try:
        with turn(CHECKOUT.engine):
            up = compose("up", "--build", "--detach", "--wait", "pylab")
        assert up.returncode == 0, up.stderr
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token={token}") as answer:
            assert answer.status == 200
        names = docker("ps", "--all", f"--filter=name={PROJECT}-", "--format={{.Names}}").split()
        assert names == [f"{PROJECT}-pylab"]
        assert tree(f"pylab:{COMPOSED}") == tree(f"pylab:{HAND}")
    finally:
        compose("down", "--volumes")
        remove_images(COMPOSED)
