"""What is built again, and what is not."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import (
    CHANGED,
    CHECKOUT,
    NAMES,
    TINY,
    copy_checkout,
    docker,
    layers,
    remove_images,
    run_make,
    state,
    succeeded,
    tagged,
)
from pyrlab.host import faults, store

CHANGE = f"{TINY}-change"  # the tag of images that these tests rebuild


@pytest.fixture
def own_images(tiny: Path) -> Iterator[None]:
    """The images under a tag of their own."""
    assert tiny.exists()
    with tagged(CHANGE):
        yield


def test_nothing_changed(checkout: Path) -> None:
    """Building twice does nothing the second time, and says so for every image."""
    before = state(TINY)
    built = run_make(checkout, "build", TAG=TINY)
    assert built.returncode == 0, built.stderr
    lines = built.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [f"{name}:{TINY}" for name in NAMES]
    assert all(line.endswith("up to date") for line in lines[1:5])
    assert built.stderr == ""
    assert state(TINY) == before


@pytest.mark.usefixtures("own_images")
def test_a_comment(checkout: Path) -> None:
    """What a tool makes is made again where the tool changed; if it is the same, no image is another."""
    before = state(CHANGE)
    for tool in ("debs", "trees", "wheels"):
        path = checkout / f"pyrlab/steps/{tool}.py"
        path.write_text(f"# Nobody reads this.\n{path.read_text()}")
    built = run_make(checkout, "build_pylab", TAG=CHANGE)
    assert built.returncode == 0, built.stderr
    assert built.stdout.count("rebuilt: pyrlab/steps changed") == 2
    assert state(CHANGE) == before


@pytest.mark.parametrize("name", ["pyrlab-base", "rlab-base"])
def test_what_is_known_of_a_parent(name: str, tiny: Path, tmp_path: Path) -> None:
    """Make knows a parent's layers as the engine has them, so that the archive of its child can leave them out."""
    if faults.is_classic(CHECKOUT.engine.about):
        pytest.skip("the containerd image store is needed, which knows layers by what they are compressed to")
    identity = state(TINY)[name]
    known = json.loads((tiny / ".cache" / store.RECORDS).read_text())[identity]
    docker("image", "save", "--output", str(tmp_path / "saved"), f"{name}:{TINY}")
    with tarfile.open(tmp_path / "saved") as files:
        manifest = files.extractfile(f"blobs/{identity.replace(':', '/')}")
        assert manifest
        there = json.load(manifest)["layers"]
    assert [(each["digest"], each["size"]) for each in known] == [(each["digest"], each["size"]) for each in there]


def own_layers(name: str, tag: str) -> list[str]:
    """The digests of the layers that an image has and its parent has not."""
    below = CHECKOUT.table[name].parent
    parent = layers(f"{below}:{tag}") if below else []
    return layers(f"{name}:{tag}")[len(parent) :]


@pytest.mark.usefixtures("changed")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("pyrlab-base", 3),  # tree's, dpkg's database, and the manifest
        ("pylab", 3),  # cowsay's and duckdb's, and the manifest; none for tree
        ("rlab-base", 2),  # dpkg's database, which knows of tree, and the manifest
        ("rlab", 3),  # docopt's, dpkg's database, and the manifest
    ],
)
def test_what_a_change_costs(name: str, count: int) -> None:
    """Whoever has the images fetches the layers of the packages that changed; all others stay as they were."""
    assert len({*own_layers(name, CHANGED)} - {*own_layers(name, TINY)}) == count


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


@pytest.mark.usefixtures("own_images")
def test_wherever_it_is(tiny: Path, tmp_path: Path) -> None:
    """A checkout may be in a folder of any name, also where its images' layers have to be asked for."""
    checkout = copy_checkout(tmp_path / 'Ada\'s "R, Python"', tiny)
    (checkout / ".cache" / store.RECORDS).unlink()
    with (checkout / "docker/pylab/Dockerfile").open("a") as file:
        file.write("LABEL org.pyrlab.test=wherever\n")
    succeeded(run_make(checkout, "build_pylab", TAG=CHANGE))
    label = '{{index .Config.Labels "org.pyrlab.test"}}'
    assert docker("image", "inspect", f"pylab:{CHANGE}", "--format", label) == "wherever"


@pytest.mark.usefixtures("tiny")
def test_whatever_docker_is_set_to(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another builder, another platform, settings that docker cannot read: what is built is this engine's own."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    docker("buildx", "create", "--name", "elsewhere", "--driver", "docker-container", "--use")
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/s390x")
    (tmp_path / "config.json").write_text("not JSON")  # of which docker warns whatever it is asked
    try:
        succeeded(run_make(checkout, "build_pylab", TAG=f"{TINY}-set"))
    finally:
        remove_images(f"{TINY}-set")
