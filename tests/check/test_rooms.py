"""The rooms of the code: who may import whom, and who may start what."""

from __future__ import annotations

import ast

import pytest

from checkout import ROOT

ALLOWED = {"pyrlab/model": ("pyrlab.model",), "docker/run": ()}
ALLOWED |= {f"pyrlab/{room}": ("pyrlab.model", f"pyrlab.{room}") for room in ("host", "steps")}
OUTSIDE = {"subprocess", "socket", "urllib", "http"}  # what the model has nothing to do with


@pytest.mark.parametrize("room", ALLOWED)
def test_imports(room: str) -> None:
    """A module imports nothing of a room that it is not to know of."""
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith("pyrlab.") or name.startswith(ALLOWED[room]), f"{path}: {name}"
                assert room != "pyrlab/model" or name.partition(".")[0] not in OUTSIDE, f"{path}: {name}"


def test_one_caller_of_docker() -> None:
    """Whatever make wants of docker, Engine runs."""
    callers = {
        path.name
        for path in (ROOT / "pyrlab").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) == "'docker'"
    }
    assert callers == {"engine.py"}
