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

from conftest import NAMES, PROJECT, TAG, docker, run_make
from servers import free_port

OWN = f"{PROJECT}-clean"  # prefix of the containers and volumes that are removed here
OWN_TAG = f"{TAG}-clean"
FOREIGN = "somebody-elses"  # name of everything that must stay


@pytest.fixture
def own(images: str, checkout: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Both labs of a set of images, volumes and network of their own, with a notebook, started in `checkout`."""
    ports = {port: str(free_port()) for port in ("PORT", "RPORT", "TBPORT")}
    parameters = {"PROJECT": OWN, "TAG": OWN_TAG, "FILES": str(tmp_path / "books"), **ports}
    for name in NAMES:
        docker("tag", f"{name}:{TAG}", f"{name}:{OWN_TAG}")
    try:
        for lab in ("pylab", "rlab"):
            started = run_make(checkout, f"start_{lab}", **parameters)
            assert started.returncode == 0, started.stdout + started.stderr
        (tmp_path / "books" / "own.ipynb").write_text("a notebook")
        yield parameters
    finally:
        remove("container", f"{OWN}-pylab", f"{OWN}-rlab")
        remove("volume", f"{OWN}_pylab-home", f"{OWN}_rlab-home")
        remove("network", f"{OWN}_default")
        remove("image", *(f"{name}:{OWN_TAG}" for name in NAMES))


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An image, a container, a volume and a network that have nothing to do with pyrlab: kind and id."""
    (tmp_path / "file").touch()
    with tarfile.open(tmp_path / "root.tar", "w") as archive:
        archive.add(tmp_path / "file", "file")
    try:
        yield {
            "image": docker("import", str(tmp_path / "root.tar"), FOREIGN),
            "container": docker("create", "--name", FOREIGN, FOREIGN, "/file"),
            "volume": docker("volume", "create", FOREIGN),
            "network": docker("network", "create", FOREIGN),
        }
    finally:
        for kind in ("container", "volume", "network", "image"):
            remove(kind, FOREIGN)


def remove(kind: str, *names: str) -> None:
    """Remove what may be gone already."""
    subprocess.run(["docker", kind, "rm", "--force", *names], capture_output=True)


def there(kind: str, name: str) -> bool:
    """Whether the engine knows it."""
    return subprocess.run(["docker", kind, "inspect", name], capture_output=True).returncode == 0


def build(folder: Path, destination: str, workdir: str) -> None:
    """Leave two records in the build cache, the second resting on the first, whose descriptions name the paths."""
    folder.mkdir()
    (folder / "file").write_text(destination)
    (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY file {destination}\nWORKDIR {workdir}\n")
    docker("buildx", "build", "--quiet", "--output", "type=cacheonly", str(folder))


def build_steps(word: str) -> list[str]:
    """The ids of the records in the build cache whose description has the word, and which no build uses now."""
    records = re.split(r"^ID:\s+", docker("buildx", "du", "--verbose"), flags=re.MULTILINE)[1:]
    unused = [record for record in records if not re.search(r"^Reclaimable:\s+false", record, re.MULTILINE)]
    return sorted(record.split()[0] for record in unused if word in record)


def test_clean(own: dict[str, str], foreign: dict[str, str], checkout: Path, tmp_path: Path) -> None:
    """A user who no longer wants pyrlab gets the disk back, and keeps the notebooks and everything else."""
    kept = {name: docker("image", "inspect", "--format", "{{.Id}}", f"{name}:{TAG}") for name in NAMES}
    build(tmp_path / "one", "/pyrlab/step", "/home/somebody")
    build(tmp_path / "two", f"/{FOREIGN}/step", f"/{FOREIGN}/home")
    foreign_steps = build_steps(f"/{FOREIGN}/")
    assert len(foreign_steps) == 2
    try:
        assert build_steps("/pyrlab/step") != []

        cleaned = run_make(checkout, "clean", **own)
        assert cleaned.returncode == 0, cleaned.stdout + cleaned.stderr

        containers = [f"{OWN}-pylab", f"{OWN}-rlab"]
        volumes = [f"{OWN}_pylab-home", f"{OWN}_rlab-home"]
        images = [f"{name}:{OWN_TAG}" for name in NAMES]
        assert [name for name in containers if there("container", name)] == []
        assert [name for name in volumes if there("volume", name)] == []
        assert not there("network", f"{OWN}_default")
        assert [name for name in images if there("image", name)] == []
        assert build_steps("pyrlab") == []
        assert not (checkout / ".cache").exists()
        for removed in (*containers, *volumes, *images, "the build cache"):
            assert removed in cleaned.stdout

        assert (tmp_path / "books" / "own.ipynb").read_text() == "a notebook"
        assert [kind for kind, name in foreign.items() if not there(kind, name)] == []
        assert build_steps(f"/{FOREIGN}/") == foreign_steps
        assert {name: docker("image", "inspect", "--format", "{{.Id}}", f"{name}:{TAG}") for name in NAMES} == kept
    finally:
        docker("buildx", "prune", "--all", "--force", "--filter", f"id=/{'|'.join(foreign_steps)}/")


def test_asked_first(checkout: Path) -> None:
    """At a terminal the user is asked before the labs' settings go, and may say no."""
    volume = docker("volume", "create", f"{OWN}_pylab-home")
    terminal, keyboard = pty.openpty()
    try:
        os.write(terminal, b"n\n")
        command = ["make", "--no-print-directory", "clean", f"PROJECT={OWN}", f"TAG={OWN_TAG}"]
        asked = subprocess.run(command, cwd=checkout, stdin=keyboard, capture_output=True, text=True)
        assert asked.returncode != 0
        assert f"(volumes {volume}); your notebooks stay." in asked.stdout
        assert "pyrlab: nothing was removed" in asked.stderr
        assert there("volume", volume)
    finally:
        os.close(terminal)
        os.close(keyboard)
        remove("volume", volume)
