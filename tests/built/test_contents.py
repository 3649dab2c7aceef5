"""What is in the images is known: manifests, lists of packages, standard documents, and what differs."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from checkout import NAMES, ROOT, TAG, copy_checkout, docker, run_make
from pyrlab.steps import manifest as contents_of

# What a package manager itself says is installed, a line each: name and version.
ASKED = {
    "Debian": ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\n"],
    "Python": ["python", "-m", "pip", "list", "--format=freeze"],
    "R": ["Rscript", "-e", "x <- installed.packages()[, c('Package', 'Version')]; writeLines(paste(x[, 1], x[, 2]))"],
}

# Of every file but folders once, however many names it has.
DISK_USAGE = "find / -xdev -not -type d -printf '%i %s\n' | sort -u | awk '{ sum += $2 } END { print sum }'"


def manifest(name: str, tag: str = TAG) -> dict[str, Any]:
    """The manifest in an image."""
    found: dict[str, Any] = json.loads(docker("run", "--rm", f"{name}:{tag}", "cat", "/usr/share/pyrlab/manifest.json"))
    return found


def versions(name: str, ecosystem: str) -> dict[str, str]:
    """The packages that a manifest has of an ecosystem."""
    return {p["name"]: p["version"] for p in manifest(name)["packages"] if p["ecosystem"] == ecosystem}


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("name", "ecosystem"),
    [("pyrlab-base", "Debian"), ("pylab", "Python"), ("rlab", "Debian"), ("rlab", "Python"), ("rlab", "R")],
)
def test_manifest_has_what_is_installed(name: str, ecosystem: str) -> None:
    """The manifest names exactly the packages that dpkg, pip or R name, in their versions."""
    said = docker("run", "--rm", f"{name}:{TAG}", *ASKED[ecosystem])
    installed = dict(re.split(r"==| ", line, maxsplit=1) for line in said.splitlines())
    if ecosystem == "Python":
        installed = {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in installed.items()}
    assert versions(name, ecosystem) == installed


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("name", NAMES)
def test_every_byte_is_accounted_for(name: str) -> None:
    """Nearly all of an image belongs to packages, and each of them is there for a reason."""
    found = manifest(name)
    assert found["nobodys"]["size"] < found["size"] / 100
    unpacked = int(docker("run", "--rm", "--user=0", "--entrypoint=sh", f"{name}:{TAG}", "-c", DISK_USAGE))
    assert abs(unpacked - found["size"]) < found["size"] / 300  # what no layer of ours keeps, as debconf's cache
    assert [package["name"] for package in found["packages"] if not package["why"]] == []


@pytest.mark.usefixtures("images")
def test_size_of_a_package() -> None:
    """The size of a package is that of its files with their bytecode, and of nobody else's."""
    count = "from importlib.metadata import files; print(sum(f.locate().stat().st_size for f in files('pandas')))"
    files = int(docker("run", "--rm", f"pylab:{TAG}", "python", "-c", count))
    [size] = [p["size"] for p in manifest("pylab")["packages"] if p["name"] == "pandas"]
    assert files < size < 2 * files


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("dask[complete]>=2", "dask[complete]"),
        ("own @ git+https://host.invalid/y.git", "own"),
        ("https://host.invalid/own_pkg-1.0-py3-none-any.whl", "own_pkg"),
        ("git+https://host.invalid/own.git@v1", "own"),
        ("ggplot2@3.5.2", "ggplot2"),
        ("bioc::limma", "limma"),
        ("github::somebody/own@feature/x", "own"),
        ("url::https://host.invalid/own_0.1.tar.gz", "own"),
    ],
)
def test_named_in_a_list(line: str, name: str) -> None:
    """Whatever way a list asks for a package, the manifest knows that it does."""
    assert contents_of.named(line) == name


def test_what_old_metadata_needs() -> None:
    """A requirement that no rule allows any more still names a package."""
    assert contents_of.requirement("pytz (>dev)").name == "pytz"


@pytest.mark.usefixtures("images")
def test_why() -> None:
    """A package is there because a list names it, because another needs it, or because the Python image has it."""
    why = {(p["ecosystem"], p["name"]): p["why"] for p in manifest("rlab")["packages"]}
    assert "r_packages.txt" in why["R", "ggplot2"]
    assert "needed by ggplot2" in why["R", "rlang"]
    assert "base_debs.txt" in why["Debian", "git"]
    assert "pyrlab-base/jupyter.txt" in why["Python", "jupyterlab"]
    assert "requirements.txt" in {p["name"]: p["why"] for p in manifest("pylab")["packages"]}["pandas"]


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_blamed_on_others(name: str, debian: Path) -> None:
    """Only what the Python image brings is said to come from it."""
    with tarfile.open(debian) as archive:
        file = archive.extractfile("./var/lib/dpkg/status")
        assert file is not None
        brought = re.findall(r"^Package: (\S+)$", file.read().decode(), re.MULTILINE)
    found = manifest(name)
    assert found["base"].startswith("Debian ")
    unexplained = {(p["ecosystem"], p["name"]) for p in found["packages"] if p["why"] == [found["base"]]}
    assert unexplained <= {("Debian", package) for package in brought}


@pytest.mark.usefixtures("images")
def test_asked_for_one_package() -> None:
    """With P, make manifest shows a package in every image that has it, and nothing else."""
    shown = run_make(ROOT, "manifest", P="JupyterLab pandas")
    assert shown.returncode == 0, shown.stderr
    images = re.findall(rf"^([\w-]+):{TAG} sha256:[0-9a-f]{{64}}$", shown.stdout, re.MULTILINE)
    assert images == [*NAMES]
    version = re.escape(versions("pylab", "Python")["pandas"])
    assert (
        len(re.findall(rf"^pandas +Python +{version} +[\d.]+ MB  BSD.*  requirements.txt", shown.stdout, re.MULTILINE))
        == 1
    )
    assert len(re.findall(r"^\S+ +Python ", shown.stdout, re.MULTILINE)) == len(NAMES) + 1


@pytest.mark.usefixtures("images")
def test_asked_for_nothing_there() -> None:
    """A package that no image has is not passed over."""
    shown = run_make(ROOT, "manifest", P="pandsa")
    assert shown.returncode != 0
    assert "pyrlab: no image has a package named pandsa" in shown.stderr


@pytest.mark.usefixtures("images")
def test_standard_formats(tmp_path: Path) -> None:
    """Other tools read what is in an image as CycloneDX and SPDX, which say the same as the manifest."""
    checkout = copy_checkout(tmp_path / "pyrlab")
    for made_by_builds in ("locks", "lists", "manifests"):
        shutil.rmtree(checkout / ".cache" / made_by_builds, ignore_errors=True)
    made = run_make(checkout, "sbom")
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == sorted(f"sbom/{name}.{kind}.json" for name in NAMES for kind in ("cdx", "spdx"))
    packages = {f"{p['name']} {p['version']}" for p in manifest("rlab")["packages"]}
    cyclonedx = json.loads((checkout / "sbom/rlab.cdx.json").read_text())
    assert {f"{component['name']} {component['version']}" for component in cyclonedx["components"]} == packages
    assert cyclonedx["metadata"]["component"]["version"] == docker(
        "image", "inspect", f"rlab:{TAG}", "--format={{.Id}}"
    )
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in cyclonedx["dependencies"]}
    [ggplot2] = [ref for ref in needs if ref.startswith("pkg:cran/ggplot2@")]
    assert [ref for ref in needs[ggplot2] if ref.startswith("pkg:cran/rlang@")]
    spdx = json.loads((checkout / "sbom/rlab.spdx.json").read_text())
    assert {f"{package['name']} {package['versionInfo']}" for package in spdx["packages"][1:]} == packages
