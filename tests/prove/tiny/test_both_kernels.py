"""The image that has Python and R."""

from __future__ import annotations

import json
from pathlib import Path

from checkout import CHECKOUT, TINY, docker, layers, run_make, succeeded, tagged
from pyrlab.host import contents

OWN = f"{TINY}-both"  # the tag of the images of this module


def test_both_kernels(checkout: Path) -> None:
    """One lab has Python's packages and R's, in the layers of pylab and rlab: who has those fetches no more."""
    with tagged(OWN):
        succeeded(run_make(checkout, "build_pyrlab", TAG=OWN))
        try:
            image = f"pyrlab:{OWN}"
            new = {*layers(image)} - {*layers(f"pylab:{OWN}"), *layers(f"rlab:{OWN}")}
            sizes = contents.layer_sizes(CHECKOUT.engine, image)
            assert sum(sizes[layer] for layer in new) < 1_000_000
            run = ("run", "--rm", "--network=none", image)
            assert docker(*run, "python", "-c", "import duckdb; print(1)") == "1"
            assert docker(*run, "Rscript", "-e", "library(IRkernel); cat(1)") == "1"
            kernels = json.loads(docker(*run, "jupyter", "kernelspec", "list", "--json"))["kernelspecs"]
            assert {*kernels} == {"python3", "ir"}
        finally:
            docker("image", "rm", "--force", image)
