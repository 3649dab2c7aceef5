"""Put the Dockerfiles of docker/ together into one that BuildKit can build in one go.

A Dockerfile has neither includes nor loops, and every image needs many stages and layers that differ in a
number only. So the block below a line like

    # for NN in 00..11:

up to the next blank line stands once for each number, with the number in the place of NN.

    python3 -m pyrlab.dockerfile      prints the result
"""

from __future__ import annotations

import re

from pyrlab.docker import ROOT

IMAGES = ("pyrlab-base", "pylab", "rlab-base", "rlab")  # parents first
LOOP = re.compile(r"^# for (\w+) in (.+):\n((?:.+\n)+)", re.MULTILINE)


def expand(text: str) -> str:
    """Write out the loops of a Dockerfile."""

    def repeat(loop: re.Match[str]) -> str:
        name, ranges, block = loop.groups()
        values = [
            f"{prefix}{number:02d}"
            for prefix, first, last in re.findall(r"([\w-]*?)(\d+)\.\.(\d+)", ranges)
            for number in range(int(first), int(last) + 1)
        ]
        return "".join(block.replace(name, value) for value in values)

    return LOOP.sub(repeat, text)


def part(name: str) -> str:
    """The Dockerfile of one folder."""
    return expand((ROOT / "docker" / name / "Dockerfile").read_text())


def whole() -> str:
    """The one Dockerfile."""
    images = [part(name) + "\n" + part("manifest").replace("IMAGE", name) for name in IMAGES]
    return "\n".join([part("build"), *images, part("locks"), part("sbom")])


if __name__ == "__main__":
    print(whole(), end="")
