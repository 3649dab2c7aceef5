"""What tests do with Debian packages in a build step.

debian_step.py OUT CACHE NAME …     make their layers
debian_step.py plain none NAME …    install them with apt
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, "/pyrlab/tools")

from pyrlab.model import events
from pyrlab.steps import debian, debs, network, pieces


def decompressed(frames: list[bytes]) -> bytes:
    """What frames hold."""
    return b"".join(pieces.decompress(frame) for frame in frames)


def main() -> None:
    """Write a layer for the packages and one for the state; see the module's docstring."""
    network.connect()
    debs.update()
    out, cache, *names = sys.argv[1:]
    if out == "plain":
        debs.install(names, "list.txt")
        return
    versions, removed = debs.plan(names, {}, "list.txt")
    order = debs.Order(names, debs.described(versions), "list.lock", removed)
    tree = debian.Tree(Path("/"))
    result = debian.pieces(order, Path(cache), "parent", tree)
    assert result.state
    Path(out).mkdir(parents=True)
    for number, group in enumerate(([*result.packages.values()], [result.state])):
        layer = decompressed([*pieces.frames(group, tree.folders_of(group) | result.folders)])
        (Path(out) / f"{number}.tar").write_bytes(layer)
    lacking = [piece.key for piece in result.lacking]
    told = {"installed": sorted(name for name, piece in result.packages.items() if piece.key not in lacking)}
    (Path(out) / "told.json").write_text(json.dumps(told))
    debian.unpack_missing(result, tree)


events.run(main)
