#!/usr/bin/env python3
"""Put the files of packages into an image, as one layer: what plain.py has made in another step.

The folder MADE has the frames of a tar file, and in `gone` what must go before it is unpacked.
"""

from __future__ import annotations

from pathlib import Path

from pyrlab.model import events
from pyrlab.steps.pieces import extract, remove

MADE = Path("/pyrlab/made")


def unpack(but: str = "") -> None:
    """Unpack it all, `but` for what is in one folder."""
    for name in (MADE / "gone").read_text(errors="surrogateescape").split("\0"):
        if not but or not Path(name).is_relative_to(but):
            remove(Path("/", name))
    options = ["--anchored", f"--exclude={but}"] if but else []
    extract((frame.read_bytes() for frame in sorted(MADE.glob("*.zst"))), Path("/"), *options)


if __name__ == "__main__":
    events.run(unpack)
