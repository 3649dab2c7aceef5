"""What differs between two builds is told: packages, layers and bytes; and git is shown what each image has."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from checkout import CHANGED, CHECKOUT, NAMES, TINY, docker, git, layers, run_make

PARENTS = {name: image.parent for name, image in CHECKOUT.table.items()}


def manifest(name: str) -> dict[str, Any]:
    """The manifest in a changed image."""
    found: dict[str, Any] = json.loads(
        docker("run", "--rm", f"{name}:{CHANGED}", "cat", "/usr/share/pyrlab/manifest.json")
    )
    return found


@pytest.mark.parametrize("name", NAMES)
def test_lists_of_packages(name: str, changed: Path) -> None:
    """After a build, the checkout's lists say what each image has and its parent has not."""
    above = (
        {(p["ecosystem"], p["name"]): p["version"] for p in manifest(PARENTS[name])["packages"]}
        if PARENTS[name]
        else {}
    )
    own = [
        f"{p['ecosystem']} {p['name']} {p['version']}"
        for p in manifest(name)["packages"]
        if above.get((p["ecosystem"], p["name"])) != p["version"]
    ]
    assert (changed / f"installed/{name}.txt").read_text().splitlines() == own


def differences(checkout: Path, before: str, after: str) -> str:
    """What make diff says."""
    run = run_make(checkout, "diff", A=before, B=after)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_two_tags(changed: Path) -> None:
    """Between two builds, every image tells what came, went and changed, what it shares, and what it costs to pull."""
    said = differences(changed, TINY, CHANGED)
    parts = dict(re.findall(r"^([\w-]+): (.*(?:\n.+)*)", said, re.MULTILINE))
    assert [*parts] == [*NAMES]
    added = {"pyrlab-base": ("tree", "Debian"), "pylab": ("cowsay", "Python"), "rlab": ("docopt", "R")}
    for name, (package, ecosystem) in added.items():
        assert re.search(rf"^{package} +{ecosystem} +\(new\) → \S+ +\+\d+\.\d MB$", parts[name], re.MULTILINE)
    assert re.search(r"^duckdb +Python +\S+ → \S+ +[+-]", parts["pylab"], re.MULTILINE)
    assert parts["rlab-base"].splitlines()[1] == "the same packages as its parent's"
    for name, part in parts.items():
        [(shared, count, pulled)] = re.findall(r"(\d+) of (\d+) layers shared, ([\d.]+) MB to pull", part)
        before, after = layers(f"{name}:{TINY}"), layers(f"{name}:{CHANGED}")
        assert (int(shared), int(count)) == (sum(layer in before for layer in after), len(after))
        assert 0 < float(pulled) < 100


def test_an_archive(changed: Path, tmp_path: Path) -> None:
    """An archive of docker save is compared as the image that it was made of."""
    archive = tmp_path / "base.tar"
    docker("image", "save", "--output", str(archive), f"pyrlab-base:{CHANGED}")
    compared = differences(changed, f"pyrlab-base:{TINY}", str(archive))
    assert compared == differences(changed, f"pyrlab-base:{TINY}", f"pyrlab-base:{CHANGED}")
    assert "\ntree " in compared


def test_a_revision(changed: Path, tmp_path: Path) -> None:
    """A git revision stands for the lists of packages that it has, be they in the folder of before."""
    copy = tmp_path / "pyrlab"
    subprocess.run(["cp", "-r", str(changed), str(copy)], check=True)
    git(copy, "init")
    git(copy, "add", "installed")
    git(copy, "commit", "--message=After")
    lists = copy / "packages"
    git(copy, "mv", "installed", "packages")
    kept = [line for line in (lists / "pylab.txt").read_text().splitlines() if not line.startswith("Python cowsay")]
    (lists / "pylab.txt").write_text("\n".join([*kept, "Python mooing 1.0", ""]))
    git(copy, "commit", "--all", "--message=Before")
    said = differences(copy, "HEAD", "HEAD^")
    assert re.search(r"^pylab\ncowsay  Python  \(new\) → \S+\nmooing  Python +1.0 → \(gone\)\n", said, re.MULTILINE)
    assert differences(copy, "HEAD^", CHANGED).count("the same packages") == len(NAMES)


def test_what_is_nothing(checkout: Path) -> None:
    """What is neither build nor revision is named."""
    run = run_make(checkout, "diff", A="nonesuch", B=TINY)
    assert run.returncode != 0
    assert "pyrlab: nonesuch is no tag, image or archive here, nor a git revision that has installed/" in run.stderr
