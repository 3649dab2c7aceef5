"""Say what is in the images (make manifest), also in the standard formats (make sbom).

python3 -m pyrlab.host.manifest show [PACKAGE …]    those packages only, and in which images they are
python3 -m pyrlab.host.manifest sbom
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

from pyrlab.host.bake import bake
from pyrlab.host.base import choose_python
from pyrlab.host.contents import Manifest, manifest_of, own_packages, spellings
from pyrlab.host.project import Project, run_main
from pyrlab.host.session import alone, session
from pyrlab.host.text import aligned, megabytes
from pyrlab.model.problem import Problem


def manifests(project: Project) -> dict[str, Manifest]:
    """The manifests of the images that there are, parents first; raises Problem where there is none."""
    there = project.images()
    if not there:
        raise Problem("there are no images yet; make build makes them")
    return {name: manifest_of(project.engine, tag) for name in project.table if (tag := project.tag_of(name)) in there}


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


def show(project: Project, asked: list[str]) -> None:
    """Print what is in the images, of a child what its parent has not; or where the packages `asked` for are."""
    found = manifests(project)
    names = {name for package in asked for name in spellings(package)}
    seen: set[str] = set()
    for name, manifest in found.items():
        packages = own_packages(manifest, found.get(project.table[name].parent))
        if asked:
            packages = [p for p in manifest["packages"] if p["name"] in names]
        if packages:
            seen.update(p["name"] for p in packages)
            print(f"{title(project.tag_of(name), manifest)}\n\n{rows(packages)}\n")
    if lacking := [package for package in asked if not seen.intersection(spellings(package))]:
        raise Problem(f"no image has a package named {' or '.join(lacking)}")


def sbom(project: Project) -> None:
    """Write what is in the images as CycloneDX and as SPDX."""
    folder = project.cache / "manifests"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, manifest in manifests(project).items():
        (folder / f"{name}.json").write_text(json.dumps(manifest))
    with session(project, *choose_python(project)) as now:
        bake(project, "sbom", now.progress, now.environment)
    print("\n".join(str(path.relative_to(project.root)) for path in sorted(project.root.glob("sbom/*.json"))))


def main(project: Project) -> None:
    """Dispatch; see the module's docstring."""
    verb, *packages = sys.argv[1:]
    if verb == "show":
        show(project, packages)
    else:
        with alone(project):
            sbom(project)


if __name__ == "__main__":
    run_main(main)
