#!/usr/bin/env python3
"""Give every build tool a folder of its own: bundle.py SOURCE TOOLS.

TOOLS/NAME/ has the module NAME of the folder SOURCE and those that it imports, without their comments. A step that
mounts the folder runs again only if something that it reads has changed.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path


def imported(tree: ast.Module) -> set[str]:
    """The names of the modules that a module imports."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    froms = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name for node in nodes for alias in node.names} | {*froms}


def closure(name: str, trees: dict[str, ast.Module]) -> set[str]:
    """The module `name` and all of `trees` that it needs."""
    found: set[str] = set()
    pending = {name}
    while pending:
        found |= pending
        pending = {other for module in pending for other in imported(trees[module]) & trees.keys()} - found
    return found


def main() -> None:
    """Write the folders; see the module's docstring."""
    source, tools = map(Path, sys.argv[1:])
    trees = {path.stem: ast.parse(path.read_text()) for path in source.glob("*.py")}
    for name in trees:
        (tools / name).mkdir(parents=True)
        for module in closure(name, trees):
            (tools / name / f"{module}.py").write_text(f"{ast.unparse(trees[module])}\n")


if __name__ == "__main__":
    main()
