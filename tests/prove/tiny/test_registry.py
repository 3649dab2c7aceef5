"""Images from a registry's Python, which is made in other ways than the one from Debian's archive."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from checkout import (
    NAMES,
    PROJECT,
    ROOT,
    TINY,
    TINY_LISTS,
    copy_checkout,
    docker,
    git,
    remove_images,
    run_make,
    running_lab,
    succeeded,
    write_lists,
)
from host import build_online
from pyrlab.host import base
from pyrlab.host.project import Project
from pyrlab.model.problem import Problem
from remote import execute
from servers import free_ports, serve_registry

OWN = f"{TINY}-registry"  # the tag of the images that are built here


@pytest.fixture(scope="module")
def python_image(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Python image in a real registry on this machine, and nowhere in the engine's store."""
    folder = tmp_path_factory.mktemp("python")
    (folder / debian.name).hardlink_to(debian)
    for script in ("python.sh", "changer.postinst"):
        shutil.copy(ROOT / "tests/make" / script, folder)
    with serve_registry(folder / "registry") as (address, _):
        name = f"{address}/python:3-slim-trixie"
        build_online("python.Dockerfile", folder, f"name={name},push=true,compression=zstd")
        docker("image", "rm", name)
        yield name


@pytest.fixture(scope="module")
def checkout(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose locks, of other lists than the default ones, were committed with Debian's Python as the base."""
    checkout = copy_checkout(tmp_path_factory.mktemp("registry") / "pyrlab", tiny)
    for path in (checkout / ".cache").iterdir():
        if path != base.archive(Project(checkout, {})):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    git(checkout, "init")
    git(checkout, "add", ".")
    git(checkout, "commit", "--message=As it was")
    return checkout


@pytest.fixture(scope="module")
def said(checkout: Path, python_image: str) -> Iterator[str]:
    """All four images, built upon the registry's Python; what make said on standard error."""
    built = run_make(checkout, "build", TAG=OWN, PYTHONBASE=python_image)
    try:
        succeeded(built)
        yield built.stderr
    finally:
        remove_images(OWN)


def test_the_checkout_stays_clean(said: str, checkout: Path) -> None:
    """A build from committed locks changes no file that git has, and names what it has otherwise in one line."""
    assert git(checkout, "status", "--short") == ""
    [sentence] = [line for line in said.splitlines() if "moved on" in line]
    what = "pyrlab: .* or the Python image is another: .*python3 is gone.*; make lock writes that down"
    assert re.fullmatch(what, sentence)
    assert "no registry answers" not in said


def test_nothing_to_do(said: str, checkout: Path, python_image: str) -> None:
    """The next build starts from the same image, and does nothing."""
    assert said
    label = json.loads(docker("image", "inspect", f"pyrlab-base:{OWN}", "--format", "{{json .Config.Labels}}"))
    assert re.fullmatch(rf"{re.escape(python_image)}@sha256:[0-9a-f]{{64}}", label["org.pyrlab.python"])
    again = run_make(checkout, "build", TAG=OWN, PYTHONBASE=python_image)
    assert succeeded(again).count("up to date") == len(NAMES)
    assert again.stderr == ""


def test_what_installing_removes(said: str) -> None:
    """The manual page of a pager that another pager takes over is gone, as after any installation."""
    assert said
    assert docker("run", "--rm", f"rlab:{OWN}", "readlink", "/etc/alternatives/pager") == "/usr/bin/less"
    assert docker("run", "--rm", f"rlab:{OWN}", "sh", "-c", "ls /etc/alternatives | grep -c ^pager") == "1"


def test_python_is_the_registrys(said: str) -> None:
    """Labs and kernels run on the Python that was asked for, with bytecode, and it is accounted for."""
    assert said
    run = ["run", "--rm", f"pylab:{OWN}", "python", "-c"]
    assert docker(*run, "import sys; print(sys.base_prefix)") == "/usr/local"
    assert docker(*run, "import duckdb, simplejson, json; print(json.__cached__)").startswith("/usr/local/")
    assert docker(*run, "import json, os; print(os.path.exists(json.__cached__))") == "True"
    manifest = json.loads(docker("run", "--rm", f"pylab:{OWN}", "cat", "/usr/share/pyrlab/manifest.json"))
    [python] = [package for package in manifest["packages"] if package["ecosystem"] == "base"]
    assert (python["name"], python["version"]) == ("python", manifest["versions"]["Python"])
    assert python["size"] > 20_000_000
    assert manifest["nobodys"]["size"] < manifest["size"] / 100


CELLS = {"pylab": ("python3", "print(6 * 7)"), "rlab": ("ir", "cat(6 * 7)")}


@pytest.mark.parametrize("lab", list(CELLS))
def test_a_lab_runs_a_cell(lab: str, said: str, checkout: Path, python_image: str, tmp_path: Path) -> None:
    """A user works in a lab from that base as in any other."""
    assert said
    project, files = f"{PROJECT}-registry", tmp_path / "books"
    ports = free_ports()
    settings: dict[str, str | int] = {
        "TAG": OWN,
        "PROJECT": project,
        "FILES": str(files),
        "PYTHONBASE": python_image,
        **ports,
    }
    kernel, code = CELLS[lab]

    def make(target: str) -> subprocess.CompletedProcess[str]:
        return run_make(checkout, target, **settings)

    with running_lab(lab, make, project, files, ports["PORT"]) as running:
        cell = new_code_cell(code)  # type: ignore[no-untyped-call]
        done = execute(new_notebook(cells=[cell]), running.url, running.token, kernel=kernel)  # type: ignore[no-untyped-call]
        assert [output["text"].strip() for output in done.cells[0].outputs] == ["42"]


CACHED = """
FROM pyrlab-base:{}
USER 0
ARG NOW
RUN --mount=type=cache,id=pyrlab,target=/opt,sharing=locked ls /opt/archives >/names
FROM scratch
COPY --from=0 /names /
"""


def test_packages_stay_in_the_cache(said: str, tmp_path: Path) -> None:
    """One Debian package more downloads one package: what was fetched for the others is there still."""
    assert said
    # With --no-cache, BuildKit would empty the mount first.
    command = ["docker", "buildx", "build", "--quiet", f"--build-arg=NOW={time.time()}", f"--output={tmp_path}", "-"]
    subprocess.run(command, input=CACHED.format(OWN), check=True, text=True, capture_output=True)
    names = {line.split("_")[0] for line in (tmp_path / "names").read_text().splitlines()}
    assert {"less", "git", "tini"} <= names


GIVEN = """
cd /srv/given
find . -mindepth 1 ! -path ./mode ! -path ./owner ! -path ./time -printf '%p %y %l\\n' | sort
stat --format '%n %u:%g' owner
stat --format '%n %a' mode
stat --format '%n %Y' time
python3 -c 'import os; print("attribute", os.getxattr("attribute", "security.capability").hex())'
cat folder link-to-file link-to-folder/file file-to-folder/file
"""
CHANGED = """\
./attribute f
./emptied d
./file-to-folder d
./file-to-folder/file f
./file-to-link l mode
./folder f
./folder-to-link l emptied
./link-to-file f
./link-to-folder d
./link-to-folder/file f
owner 1000:100
mode 2711
time 1500000000
attribute 0100000200200000000000000000000000000000
new
new
new
new"""


def test_whatever_installing_does(checkout: Path, python_image: str, tmp_path: Path, said: str) -> None:
    """What a package deletes, replaces by something of another kind, or gives other rights, is so in the image."""
    assert said
    changing = copy_checkout(tmp_path / "pyrlab", checkout)
    write_lists(changing, {"base_debs.txt": [*TINY_LISTS["base_debs.txt"], "changer"]})
    try:
        succeeded(run_make(changing, "build_base", TAG=f"{OWN}-changed", PYTHONBASE=python_image))
        seen = docker("run", "--rm", f"pyrlab-base:{OWN}-changed", "sh", "-c", GIVEN)
        assert [line.rstrip() for line in seen.splitlines()] == CHANGED.splitlines()
    finally:
        remove_images(f"{OWN}-changed")


def test_no_registry(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no registry answers, one line says so, and Debian's archive serves instead."""
    settings = {"TAG": "none", "PYTHONBASE": "127.0.0.1:1/python:none"}  # no image of this tag exists
    assert base.choose_python(Project(checkout, {**os.environ, **settings}))[0] == "target:debian"
    notice = "pyrlab: no registry answers for 127.0.0.1:1/python:none; starting from Debian's archive instead"
    assert notice in capsys.readouterr().err.splitlines()


def test_what_the_registry_has_not(checkout: Path, python_image: str) -> None:
    """A Python that the registry has not is said to be missing: no other takes its place."""
    name = f"{python_image.rpartition(':')[0]}:none"
    with pytest.raises(Problem, match=f"^PYTHONBASE={re.escape(name)} cannot be had: .*not found$"):
        base.choose_python(Project(checkout, {**os.environ, "TAG": "none", "PYTHONBASE": name}))


def test_a_python_by_its_digest(said: str, checkout: Path, python_image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names a digest goes on with what is built from it, without the registry."""
    assert said
    label = json.loads(docker("image", "inspect", f"pyrlab-base:{OWN}", "--format", "{{json .Config.Labels}}"))
    pinned = label["org.pyrlab.python"]
    monkeypatch.setattr(base, "pin", lambda engine, name: "")
    chosen = base.choose_python(Project(checkout, {**os.environ, "TAG": OWN, "PYTHONBASE": pinned}))
    assert chosen == (f"docker-image://{pinned}", pinned)
