"""Which Python image is started from, as far as that takes no engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrlab.host import base
from pyrlab.model.problem import Problem


def test_neither_registry_nor_debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing is to be had to start from, one sentence says what to set."""
    monkeypatch.setattr(base, "KEYS", tmp_path / "none")
    monkeypatch.setattr(base, "pin", lambda name: "")
    monkeypatch.setenv("PYTHONBASE", "registry.invalid/python:3")
    with pytest.raises(Problem) as refused:
        base.first(tmp_path)
    said = str(refused.value)
    assert said.startswith("no registry answers for registry.invalid/python:3, and this machine is no Debian")
    assert "as in make pylab PYTHONBASE=" in said


def test_debian_from_a_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that is no Debian bootstraps in a registry's Python image, which has apt."""
    monkeypatch.setattr(base, "KEYS", tmp_path / "none")
    monkeypatch.setattr(base, "pin", lambda name: f"{name}@sha256:12")
    monkeypatch.setenv("PYTHONBASE", "registry.invalid/python:3")
    assert base.first(tmp_path) == "docker-image://registry.invalid/python:3@sha256:12"


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
