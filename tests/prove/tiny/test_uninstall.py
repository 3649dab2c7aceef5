"""make clean removes what is pyrlab's, and nothing of anyone else's."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from caches import OWN_LINES, Caches
from checkout import CHANGED, NAMES, PROJECT, ROOT, TAG, build_records, docker, run_make, succeeded
from conftest import Clean
from host import HOME, Host
from pyrlab.host import owner

OWN = f"{PROJECT}-clean"  # prefix of the containers and volumes that are removed here
OWN_TAG = f"{TAG}-clean"
FOREIGN = "somebody-elses"  # name of everything that must stay


@pytest.fixture
def engine(clean: Clean) -> Host:
    """A machine whose engine has images and a build cache that nobody will miss."""
    return clean.host


@pytest.fixture
def place(engine: Host) -> Iterator[Path]:
    """A folder of that machine's user, as seen from here."""
    place = engine.home / "cleaning"
    engine.run("mkdir", "--mode=755", place.name)
    yield place
    engine.run("rm", "-rf", place.name, user="root")


@pytest.fixture
def checkout(clean: Clean, engine: Host, place: Path) -> Path:
    """A copy of the checkout that its images were built from."""
    engine.run("cp", "--archive", clean.checkout.name, f"{place.name}/pyrlab")
    return place / "pyrlab"


@pytest.fixture
def own(engine: Host, checkout: Path, place: Path) -> dict[str, str]:
    """Both labs of a set of images, volumes and network of their own, with a notebook, started in `checkout`."""
    parameters = {"PROJECT": OWN, "TAG": OWN_TAG, "FILES": str(HOME / place.name / "books")}
    for name in NAMES:
        engine.docker("tag", f"{name}:{CHANGED}", f"{name}:{OWN_TAG}")
    for lab in ("pylab", "rlab"):
        started = engine.make(checkout, f"start_{lab}", **parameters)
        assert started.returncode == 0, started.stdout + started.stderr
    (place / "books/own.ipynb").write_text("a notebook")
    return parameters


@pytest.fixture
def foreign(engine: Host, place: Path) -> dict[str, str]:
    """An image, a container, a volume and a network that have nothing to do with pyrlab: kind and id."""
    (place / "file").touch()
    with tarfile.open(place / "root.tar", "w") as archive:
        archive.add(place / "file", "file")
    return {
        "image": engine.docker("import", str(HOME / place.name / "root.tar"), FOREIGN),
        "container": engine.docker("create", "--name", FOREIGN, FOREIGN, "/file"),
        "volume": engine.docker("volume", "create", FOREIGN),
        "network": engine.docker("network", "create", FOREIGN),
    }


def build(engine: Host, folder: Path, destination: str, workdir: str) -> None:
    """Leave two records in the build cache, the second resting on the first, whose descriptions name the paths."""
    folder.mkdir()
    (folder / "file").write_text(destination)
    (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY file {destination}\nWORKDIR {workdir}\n")
    engine.docker(
        "buildx", "build", "--quiet", "--output", "type=cacheonly", str(HOME / folder.relative_to(engine.home))
    )


def build_steps(engine: Host, word: str) -> list[str]:
    """The ids of the records in the build cache whose description has the word, and which no build uses now."""
    records = build_records(word, engine.docker)
    return sorted(r.split()[0] for r in records if not re.search(r"^Reclaimable:\s+false", r, re.MULTILINE))


def test_clean(
    clean: Clean, engine: Host, own: dict[str, str], foreign: dict[str, str], checkout: Path, place: Path
) -> None:
    """A user who no longer wants pyrlab gets the disk back, and keeps the notebooks and everything else."""

    def there(kind: str, name: str) -> bool:
        """Whether the engine knows it."""
        return engine.run("docker", kind, "inspect", name).returncode == 0

    kept = [f"{name}:{CHANGED}" for name in NAMES]
    build(engine, place / "one", "/pyrlab/step", "/home/somebody")
    build(engine, place / "two", f"/{FOREIGN}/step", f"/{FOREIGN}/home")
    foreign_steps = build_steps(engine, f"/{FOREIGN}/")
    assert len(foreign_steps) == 2
    engine.docker("volume", "create", f"--label={owner.USER}=bob", "pyrlab_tag_bobs")
    cleaned = engine.make(checkout, "clean", PROJECT="none-of-it", TAG="none-of-it")
    stays = rf"the build cache stays, for (/\S+ and )*{HOME / clean.checkout.name} and (/\S+ and )*bob on this engine\n"
    assert re.fullmatch(rf"{stays}removed: nothing\n", cleaned.stdout), cleaned.stdout
    assert build_steps(engine, "/pyrlab/step") != []
    engine.docker("volume", "rm", *engine.docker("volume", "ls", "--quiet", "--filter=name=^pyrlab_tag_").split())

    cleaned = engine.make(checkout, "clean", **own)
    assert cleaned.returncode == 0, cleaned.stdout + cleaned.stderr

    containers = [f"{OWN}-pylab", f"{OWN}-rlab"]
    volumes = [f"{OWN}_pylab-home", f"{OWN}_rlab-home"]
    images = [f"{name}:{OWN_TAG}" for name in NAMES]
    assert [name for name in containers if there("container", name)] == []
    assert [name for name in volumes if there("volume", name)] == []
    assert not there("network", f"{OWN}_default")
    assert [name for name in images if there("image", name)] == []
    steps = build_records("Description:", engine.docker)
    assert [step for step in steps if not re.search(f"{FOREIGN}|Description: +(local source|from local)", step)] == []
    assert not (checkout / ".cache").exists()
    for removed in (*containers, *volumes, *images, "the build cache"):
        assert removed in cleaned.stdout

    assert (place / "books/own.ipynb").read_text() == "a notebook"
    assert [kind for kind, name in foreign.items() if not there(kind, name)] == []
    assert build_steps(engine, f"/{FOREIGN}/") == foreign_steps
    assert [image for image in kept if not there("image", image)] == []


def test_asked_first() -> None:
    """At a terminal the user is asked before the labs' settings go, and may say no."""
    volume = docker("volume", "create", f"{OWN}_pylab-home")
    terminal, keyboard = pty.openpty()
    try:
        os.write(terminal, b"n\n")
        command = ["make", "--no-print-directory", "clean", f"PROJECT={OWN}", f"TAG={OWN_TAG}"]
        asked = subprocess.run(command, cwd=ROOT, stdin=keyboard, capture_output=True, text=True)
        assert asked.returncode != 0
        assert f"(volumes {volume}); your notebooks stay." in asked.stdout
        assert "pyrlab: nothing was removed" in asked.stderr
        assert docker("volume", "inspect", volume)
    finally:
        os.close(terminal)
        os.close(keyboard)
        docker("volume", "rm", volume)


def test_local_mk(caches: Caches) -> None:
    """What make proxies writes to local.mk is used, and goes with make stop_proxies; the user's own lines stay.

    No test after this one has the caches.
    """
    succeeded(caches.make("proxies"))
    written = (caches.checkout / "local.mk").read_text()
    assert written.startswith(OWN_LINES)
    assert written.count("APTPROXY") == 1
    shown = run_make(caches.checkout, "help").stdout
    for name, value in caches.parameters.items():
        assert re.search(rf"^  {name} .*\[{re.escape(value)}\]$", shown, re.MULTILINE)
    succeeded(caches.make("stop_proxies"))
    assert (caches.checkout / "local.mk").read_text() == OWN_LINES
    assert docker("ps", "--quiet", f"--filter=name={caches.project}-(apt|pip)-proxy") == ""
