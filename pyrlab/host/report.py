"""What became of the images, as a table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pyrlab.host.engine import Engine
from pyrlab.host.state import Image
from pyrlab.host.text import aligned


def report(engine: Engine, images: list[Image]) -> str:
    """One line an image: name, unpacked size, layers, seconds, digest, what was rebuilt and why."""
    rows = [("image", "size", "layers", "seconds", "digest", "")]
    with ThreadPoolExecutor(len(images)) as pool:
        sizes = pool.map(lambda image: engine.run("history", "--human=false", "--format={{.Size}}", image.tag), images)
    for image, layer_sizes in zip(images, sizes, strict=True):
        assert image.stored
        size = f"{sum(map(int, layer_sizes.split())) / 1e6:,.0f} MB"
        seconds = f"{image.seconds:.0f}" if image.why else ""
        why = f"rebuilt: {', '.join(image.why)}" if image.why else "up to date"
        layers = str(len(image.stored["RootFS"]["Layers"]))
        rows.append((image.tag, size, layers, seconds, image.stored["Id"].removeprefix("sha256:")[:12], why))
    return aligned(rows, right=(1, 2, 3))
