"""Whose a lab is, and that nobody's settings go unasked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from checkout import CHECKOUT
from pyrlab.host import clean, owner
from pyrlab.model.problem import Problem


def test_a_checkout_that_one_may_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made in a folder that is closed to this user is another checkout's, as is what root made after su."""

    def closed(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", closed)
    assert not owner.is_own(CHECKOUT, {owner.USER: owner.name(), owner.CHECKOUT: "/root/pyrlab"})


def test_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal of which make -j has kept the keyboard, the settings of labs stay; in a script they go."""
    monkeypatch.setenv("MAKEFLAGS", " -j2 --jobserver-auth=3,4")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(Problem, match=r"^make -j lets nobody be asked .*; type make clean alone$"):
        clean.ask(["pyrlab_pylab-home"])
    clean.ask([])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    clean.ask(["pyrlab_pylab-home"])
