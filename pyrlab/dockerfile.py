"""Put the Dockerfiles of docker/ together into one that BuildKit can build in one go.

A Dockerfile has neither includes nor loops, and every image needs many stages and layers that differ in a
number only. So the block below a line like

    # for NN in 00..11:

up to the next blank line stands once for each number, with the number in the place of NN. And every image has a
manifest, for which all the layers that it copies must be in sight.

    python3 -m pyrlab.dockerfile      prints the result
"""

from __future__ import annotations

import re

from pyrlab.docker import ROOT

IMAGES = ("pyrlab-base", "pylab", "rlab-base", "rlab")  # parents first
PARENT = {"pylab": "pyrlab-base", "rlab-base": "pyrlab-base", "rlab": "rlab-base"}
COPY = re.compile(r"^COPY --link --from=(\S+) (\S+)/ /$", re.MULTILINE)
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


def lineage(image: str) -> list[str]:
    """The images that `image` starts from, and itself, parents first."""
    return [*(lineage(PARENT[image]) if image in PARENT else []), image]


def manifest(image: str) -> str:
    """The stages that write the manifest of `image`, where its Debian packages are, with its other layers in sight."""
    copies = [copy for name in lineage(image) for copy in COPY.findall(part(name))]
    debs = [stage for stage, _ in copies if stage.endswith("-debs")]
    mounts = (
        f"--mount=type=bind,from={stage},source={folder},target=/pyrlab/layers/{number:03d} \\\n"
        for number, (stage, folder) in enumerate(copies)
        if stage not in debs
    )
    stages = part("manifest").replace("IMAGE-debs", debs[-1]).replace("LAYERS\n", "    ".join(mounts))
    return stages.replace("IMAGE", image)


def whole() -> str:
    """The one Dockerfile."""
    images = [part(name) + "\n" + manifest(name) for name in IMAGES]
    return "\n".join([part("build"), *images, part("locks"), part("sbom")])


if __name__ == "__main__":
    print(whole(), end="")
