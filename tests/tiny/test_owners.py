"""Several people, or several checkouts, use one engine, and nobody gets another's lab or loses an image to another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import (
    PROJECT,
    TINY,
    TINY_LISTS,
    Lab,
    Make,
    Run,
    copy_checkout,
    docker,
    refusal,
    run_make,
    running_lab,
    state,
    succeeded,
    write_lists,
)
from pyrlab.host import owner
from pyrlab.host import state as state_of
from pyrlab.host.project import Project
from servers import free_ports

OWN = f"{PROJECT}-owners"  # prefix of the first one's containers and volumes


def make_in(checkout: Path, files: Path, **more: str | int) -> Make:
    """Run make in a checkout, with ports and a folder of its own."""
    ports = free_ports()

    def run(*targets: str, **parameters: str | int) -> Run:
        return run_make(checkout, *targets, **{"TAG": TINY, "FILES": str(files), **ports, **more, **parameters})

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both work."""
    return tmp_path_factory.mktemp("owners")


@pytest.fixture(scope="module")
def first(tiny: Path, place: Path) -> Iterator[Lab]:
    """The lab of whoever came first."""
    make = make_in(copy_checkout(place / "first", tiny), place / "first-books", PROJECT=OWN)
    with running_lab("pylab", make, OWN, place / "first-books", 0) as lab:
        yield lab


@pytest.fixture(scope="module")
def second(tiny: Path, place: Path) -> Make:
    """Make in the checkout of whoever came second, with the same names."""
    return make_in(copy_checkout(place / "second", tiny), place / "second-books", PROJECT=OWN)


@pytest.mark.parametrize("target", ["start_pylab", "stop_pylab", "url_pylab", "bash_pylab", "logs_pylab", "clean"])
def test_anothers_lab(target: str, first: Lab, second: Make, place: Path) -> None:
    """Whatever the second types, the first one's lab runs on over its own notebooks, and its token is not shown."""
    made = second(target)
    assert re.fullmatch(
        rf"pyrlab: the (container {first.container}|volume {OWN}_pylab-home) is of \S+, made in {place}/first; "
        "PROJECT names a set of labs of your own, as in make PROJECT=mine pylab",
        refusal(made),
    )
    assert first.token not in made.stdout + made.stderr
    assert docker("container", "inspect", first.container, "--format", "{{.State.Running}}") == "true"


@pytest.mark.parametrize("target", ["start_pylab", "url_pylab", "doctor", "clean"])
def test_a_container_of_that_name(target: str, second: Make) -> None:
    """A container that has the name of a lab, but was not started as one, is told and left alone."""
    name = f"{OWN}-by-hand"
    docker("create", f"--name={name}-pylab", f"pylab:{TINY}")
    try:
        made = second(target, PROJECT=name)
        assert f"the container {name}-pylab is no lab that make has started; PROJECT names a set" in (
            made.stdout if target == "doctor" else refusal(made)
        )
        assert made.returncode != 0
        assert docker("ps", "--all", "--quiet", f"--filter=name=^{name}-pylab$")
    finally:
        docker("rm", f"{name}-pylab")


def test_anothers_settings(first: Lab, second: Make, place: Path) -> None:
    """The home of a lab whose container is gone is still the first one's, which is said before anything is built."""
    write_lists(place / "second", {"requirements.txt": [*TINY_LISTS["requirements.txt"], "cowsay"]})
    docker("rename", first.container, f"{first.container}-away")
    try:
        assert refusal(second("start_pylab")).startswith(f"pyrlab: the volume {OWN}_pylab-home is of ")
    finally:
        docker("rename", f"{first.container}-away", first.container)


def test_another_user_is_shown_nothing(first: Lab, second: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one's own labs are listed, with their tokens."""
    assert first.token in succeeded(second("list"))  # the same user's, of another checkout
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert first.token not in succeeded(second("list"))


def test_two_sets(first: Lab, tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a PROJECT of their own, the second works beside the first, and what other projects tell Compose is nothing.

    A lab whose checkout was moved while it ran is still one's own, and starts again from there.
    """
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "elsewhere")
    monkeypatch.setenv("COMPOSE_FILE", "nowhere.yaml")
    project = f"{OWN}-beside"
    checkout = copy_checkout(place / "here", tiny)
    (checkout / ".env").write_text("LAB_USER=0:0\nPROJECT=elsewhere\n")

    def make(*targets: str) -> Run:
        return make_there(*targets, PROJECT=project)

    make_there = make_in(checkout, first.files)
    with running_lab("pylab", make, project, first.files, 0) as lab:
        assert lab.container == f"{project}-pylab"
        assert docker("volume", "ls", "--quiet", "--filter", "name=elsewhere") == ""
        assert lab.token != first.token
        make_there = make_in(checkout.rename(place / "there"), first.files)
        assert lab.token in succeeded(make("start_pylab"))
        for each in (first, lab):
            assert docker("container", "inspect", each.container, "--format", "{{.State.Running}}") == "true"


def test_anothers_image(tiny: Path, place: Path) -> None:
    """A tag that another checkout built keeps its image, and the one who would replace it reads of TAG."""
    checkout = copy_checkout(place / "images", tiny)
    write_lists(checkout, {"requirements.txt": [*TINY_LISTS["requirements.txt"], "cowsay"]})
    before = state(TINY)
    said = refusal(run_make(checkout, "build_pylab", TAG=TINY))
    assert said.startswith(f"pyrlab: pylab:{TINY} is of ")
    assert f"made in {tiny}, and would be replaced; TAG gives yours a place beside it" in said
    assert state(TINY) == before
    assert "cowsay" not in (checkout / "requirements.lock").read_text()


def test_anothers_image_stays(tiny: Path, place: Path) -> None:
    """Who works with a set of labs of their own on another's images can remove that set, and nothing else."""
    checkout, home = copy_checkout(place / "labs", tiny), f"{OWN}-labs_pylab-home"
    docker("volume", "create", home)
    before = state(TINY)
    said = succeeded(run_make(checkout, "clean", TAG=TINY, PROJECT=f"{OWN}-labs"))
    assert re.search(rf"^the images stay, which are of \S+, made in {tiny}$", said, re.MULTILINE)
    assert f"removed: {home}" in said
    assert state(TINY) == before
    assert owner.tag_volume(Project(tiny, {"TAG": TINY})) in docker("volume", "ls", "--quiet").split()


def test_anothers_unfinished_image(tiny: Path, place: Path) -> None:
    """What one checkout's build has not finished yet is not in the way of another's, which removes its own only."""
    builders = [copy_checkout(place / name, tiny) for name in ("one", "other")]
    for checkout in builders:
        project = Project(checkout, {"TAG": TINY})
        docker("tag", f"pylab:{TINY}", state_of.beside(project, "pylab") + state_of.NEW)
    for number, checkout in enumerate(builders, 1):
        succeeded(make_in(checkout, place / "books")("build"))
        left = docker("image", "ls", "--format", "{{.Tag}}", "--filter", f"reference=pylab:{TINY}.*").split()
        assert len(left) == 2 - number
