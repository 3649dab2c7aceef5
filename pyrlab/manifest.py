"""Say what is in the images (make manifest).

python3 -m pyrlab.manifest [PACKAGE …]      those packages only, and in which images they are
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pyrlab.build import INPUTS, PARENT, tag_of
from pyrlab.docker import Problem, docker, inspect, run_main

PATH = "/usr/share/pyrlab/manifest.json"


def of(image: str) -> dict[str, Any]:
    """The manifest of an image in the engine's store; raises Problem where there is none."""
    if not inspect("image", image):
        raise Problem(f"there is no image {image}; make build makes it")
    found: dict[str, Any] = json.loads(docker("run", "--rm", "--network=none", "--entrypoint=cat", image, PATH))
    return found


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:,.1f} MB"


def rows(packages: list[dict[str, Any]]) -> str:
    """A line for each package: name, ecosystem, version, size, licence, why."""
    cells = [
        (p["name"], p["ecosystem"], p["version"], megabytes(p["size"]), p["licence"][:40] or "?", why(p["why"]))
        for p in packages
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}  {e:<{widths[4]}}  {f}"
        for a, b, c, d, e, f in cells
    )


def why(reasons: list[str]) -> str:
    """The reasons for a package, the first few of many."""
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return f"{', '.join(reasons[:3])}{more}"


def title(image: str, manifest: dict[str, Any]) -> str:
    """What an image is, before its packages."""
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    digest = (inspect("image", image) or {})["Id"]
    share = manifest["nobodys"]["size"] / manifest["size"]
    return (
        f"{image} {digest}\n{versions}; on {manifest['base']}; {megabytes(manifest['size'])}, "
        f"of which {share:.1%} belong to no package"
    )


def main() -> None:
    """Print the manifests; of a child what its parent has not."""
    asked = sys.argv[1:]
    present = [name for name in INPUTS if inspect("image", tag_of(name))]
    if not present:
        raise Problem("there are no images yet; make build makes them")
    manifests = {name: of(tag_of(name)) for name in present}
    found = False
    for name, manifest in manifests.items():
        above = manifests.get(PARENT.get(name, ""), {"packages": []})["packages"]
        known = {(p["ecosystem"], p["name"], p["version"]) for p in above}
        packages = manifest["packages"]
        if asked:
            packages = [p for p in packages if p["name"] in asked]
        else:
            packages = [p for p in packages if (p["ecosystem"], p["name"], p["version"]) not in known]
        if packages:
            found = True
            print(f"{title(tag_of(name), manifest)}\n\n{rows(packages)}\n")
    if not found:
        raise Problem(f"no image has a package named {' or '.join(asked)}")


if __name__ == "__main__":
    run_main(main)
