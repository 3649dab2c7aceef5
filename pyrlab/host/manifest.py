"""Say what is in the images (make manifest), also in the standard formats (make sbom).

python3 -m pyrlab.host.manifest show [PACKAGE …]    those packages only, and in which images they are
python3 -m pyrlab.host.manifest sbom
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

from pyrlab.host import locks
from pyrlab.host.bake import bake
from pyrlab.host.base import choose_python
from pyrlab.host.build import alone, session
from pyrlab.host.contents import Manifest, manifest_of, own_packages, spellings
from pyrlab.host.docker import CACHE, ROOT, inspect, run_main, tag_of
from pyrlab.host.text import aligned, megabytes
from pyrlab.model.images import table
from pyrlab.model.problem import Problem

MANIFESTS = CACHE / "manifests"  # what the documents are made from
SBOM = ROOT / "sbom"


def manifests() -> dict[str, Manifest]:
    """The manifests of the images that there are, parents first; raises Problem where there is none."""
    present = [name for name in table() if inspect("image", tag_of(name))]
    if not present:
        raise Problem("there are no images yet; make build makes them")
    return {name: manifest_of(tag_of(name)) for name in present}


def rows(packages: list[dict[str, Any]]) -> str:
    """A line for each package: name, ecosystem, version, size, licence, why."""
    cells = [
        (p["name"], p["ecosystem"], p["version"], megabytes(p["size"]), p["licence"][:40] or "?", why(p["why"]))
        for p in packages
    ]
    return aligned(cells, right=(3,))


def why(reasons: list[str]) -> str:
    """The reasons for a package, the first few of many."""
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return f"{', '.join(reasons[:3])}{more}"


def title(image: str, manifest: Manifest) -> str:
    """What an image is, before its packages."""
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    share = manifest["nobodys"]["size"] / manifest["size"]
    size = f"{megabytes(manifest['size'])}, of which {share:.1%} belong to no package"
    return f"{image} {manifest['digest']}\n{versions}; on {manifest['base']}; {size}"


def show(asked: list[str]) -> None:
    """Print what is in the images, of a child what its parent has not; or where the packages `asked` for are."""
    found = manifests()
    names = {name for package in asked for name in spellings(package)}
    shown = False
    for name, manifest in found.items():
        packages = own_packages(manifest, found.get(table()[name].parent))
        if asked:
            packages = [p for p in manifest["packages"] if p["name"] in names]
        if packages:
            shown = True
            print(f"{title(tag_of(name), manifest)}\n\n{rows(packages)}\n")
    if not shown:
        raise Problem(f"no image has a package named {' or '.join(asked)}")


def sbom() -> None:
    """Write what is in the images as CycloneDX and as SPDX."""
    shutil.rmtree(MANIFESTS, ignore_errors=True)
    MANIFESTS.mkdir(parents=True)
    for name, manifest in manifests().items():
        (MANIFESTS / f"{name}.json").write_text(json.dumps(manifest))
    locks.stage()
    with session(*choose_python()) as now:
        bake(["sbom"], now.progress, now.environment)
    print("\n".join(str(path.relative_to(ROOT)) for path in sorted(SBOM.glob("*.json"))))


def main() -> None:
    """Dispatch; see the module's docstring."""
    verb, *packages = sys.argv[1:]
    if verb == "show":
        show(packages)
    else:
        with alone():
            sbom()


if __name__ == "__main__":
    run_main(main)
