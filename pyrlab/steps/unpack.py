#!/usr/bin/env python3
"""Put the files of packages into an image, as one layer: what plain.py has made in another step.

The folder MADE has the frames of a tar file, and in `gone` what must go before it is unpacked.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pyrlab.model import events
from pyrlab.model.problem import Problem
from pyrlab.steps.pieces import decompress

MADE = Path("/pyrlab/made")


def unpack(but: str = "") -> None:
    """Unpack it all, `but` for what is in one folder."""
    for name in (MADE / "gone").read_text(errors="surrogateescape").split("\0"):
        path = Path("/", name)
        if but and path.is_relative_to(f"/{but}"):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    options = ["--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*", "--exclude=.wh.*"]
    options += ["--anchored", f"--exclude={but}"] if but else []
    with subprocess.Popen(["tar", "--extract", "--directory=/", *options], stdin=subprocess.PIPE) as tar:
        assert tar.stdin
        for frame in sorted(MADE.glob("*.zst")):
            tar.stdin.write(decompress(frame.read_bytes()))
    if tar.returncode:
        raise Problem("the packages cannot be unpacked", words="tar")


if __name__ == "__main__":
    events.run(unpack)
