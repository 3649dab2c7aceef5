"""Which Python image is started from, as far as that takes no engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyrlab.host import base, locks
from pyrlab.host.project import Project
from pyrlab.model.locked import Made
from pyrlab.model.problem import Problem


@pytest.fixture
def elsewhere(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A checkout on a machine that is no Debian."""
    monkeypatch.setattr(base, "KEYS", project.root / "none")
    return replace(project, environment={"PYTHONBASE": "registry.invalid/python:3"})


def test_neither_registry_nor_debian(elsewhere: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is to be had to start from, one sentence says what to set."""
    monkeypatch.setattr(base, "pin", lambda engine, name: "")
    with pytest.raises(Problem) as refused:
        base.first(elsewhere, elsewhere.cache)
    said = str(refused.value)
    assert said.startswith("no registry answers for registry.invalid/python:3, and this machine is no Debian")
    assert "as in make pylab PYTHONBASE=" in said


def test_debian_from_a_registry(elsewhere: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is no Debian bootstraps in a registry's Python image, which has apt."""
    monkeypatch.setattr(base, "pin", lambda engine, name: f"{name}@sha256:12")
    assert base.first(elsewhere, elsewhere.cache) == "docker-image://registry.invalid/python:3@sha256:12"


@pytest.mark.parametrize(
    ("stored", "known"),
    [
        ({"Config": {"Labels": {"org.pyrlab.python": "python:3@sha256:12"}}}, "python:3@sha256:12"),
        ({"Config": {"Labels": None}}, ""),
        (None, ""),
    ],
)
def test_what_an_image_starts_from(stored: dict[str, object] | None, known: str) -> None:
    """An image tells by its label; one of before there was any, or none, tells nothing."""
    assert base.started_from(stored) == known


def test_whatever_lists_are_called(project: Project) -> None:
    """The Python image is known that the lowest list is locked for, whatever that is called in images.toml."""
    (project.root / "base_debs.txt").rename(project.root / "own_debs.txt")
    table = project.root / "images.toml"
    table.write_text(table.read_text().replace("base_debs", "own_debs"))
    project = replace(project)  # which has read the table of before
    assert base.locked_python(project, "python:3") == ""
    locks.Lock(project.table.locks["own_debs"], Made("1", "2", "python:3@sha256:12"), "").write(project.root)
    assert base.locked_python(project, "python:3") == "python:3@sha256:12"
