"""Debian packages put together from pieces are what apt installs, whoever made the pieces and when."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from checkout import CHECKOUT, ROOT, TINY, docker
from pyrlab.host.online import build_environment

IMAGE = f"{TINY}-debian"  # in the names of the images that are made here
FORGED = "virtual-plain scripted configured watched guarded diverter diverted replaced replacing older changer meeting"
PACKAGES = f"less tini fonts-liberation openssh-client vim-tiny {FORGED}"


def build(context: Path, *options: str, packages: str = PACKAGES) -> subprocess.CompletedProcess[str]:
    """Build some of tests/make/debian.Dockerfile, online as pyrlab's steps are."""
    given = build_environment(CHECKOUT)
    secrets = ["--secret=id=network,env=NETWORK"]
    secrets += [f"--secret=id=ca,src={given['CACERT']}"] if given["CACERT"] else []
    command = ["docker", "buildx", "build", "--progress=plain", "--provenance=false", *secrets]
    command += [f"--build-context=tools={ROOT / 'pyrlab'}", f"--file={ROOT / 'tests/make/debian.Dockerfile'}"]
    command += [f"--build-arg=PACKAGES={packages}", *options, str(context)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **given})


def load(parent: str, layers: list[Path], name: str, folder: Path) -> None:
    """Load an image: a parent of the engine's store, and layers on top."""
    docker("save", "--output", str(folder / "parent.tar"), parent)
    (folder / "image").mkdir()
    subprocess.run(["tar", "--extract", f"--file={folder}/parent.tar", f"--directory={folder}/image"], check=True)
    manifest = json.loads((folder / "image/manifest.json").read_text())[0]
    config = json.loads((folder / "image" / manifest["Config"]).read_text())
    for layer in layers:
        content = layer.read_bytes()
        (folder / "image" / layer.name).write_bytes(content)
        manifest["Layers"].append(layer.name)
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(content).hexdigest()}")
    config.pop("history", None)
    (folder / "image/config.json").write_text(json.dumps(config))
    with tarfile.open(folder / "child.tar", "w") as archive:
        for path in manifest["Layers"]:
            archive.add(folder / "image" / path, path)
        archive.add(folder / "image/config.json", "config.json")
        told = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": manifest["Layers"]}]).encode()
        member = tarfile.TarInfo("manifest.json")
        member.size = len(told)
        archive.addfile(member, io.BytesIO(told))
    docker("load", "--input", str(folder / "child.tar"))
    shutil.rmtree(folder / "image")


@dataclass(frozen=True)
class Made:
    """What was made of the packages, in a folder: layers of the first and the second time, and what is where."""

    folder: Path
    context: Path

    @property
    def installed(self) -> list[str]:
        """The packages that apt had to install the first time."""
        found: list[str] = json.loads((self.folder / "first/told.json").read_text())["installed"]
        return found

    def seen(self, step: str) -> dict[str, Any]:
        """What debian_look.py has seen in a step."""
        found: dict[str, Any] = json.loads((self.folder / f"{step}.json").read_text())
        return found


@pytest.fixture(scope="module")
def context(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The context of the builds."""
    folder = tmp_path_factory.mktemp("context")
    (folder / debian.name).hardlink_to(debian)
    for name in ("debian.sh", "debian_step.py", "debian_look.py", "changer.postinst"):
        shutil.copy(ROOT / "tests/make" / name, folder)
    return folder


@pytest.fixture(scope="module")
def made(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """What was made, and an image of it, `pieces`."""
    folder = tmp_path_factory.mktemp("made")
    parent = f"{IMAGE}-parent"
    try:
        for target, output in (
            ("all", f"local,dest={folder}"),
            ("parent", f"image,name={parent},compression=uncompressed"),
        ):
            done = build(context, f"--target={target}", f"--output=type={output}")
            assert done.returncode == 0, done.stderr
        load(parent, sorted((folder / "first").glob("*.tar")), f"{IMAGE}-pieces", folder)
        look = f"--volume={context / 'debian_look.py'}:/pyrlab/look.py:ro"
        command = ["docker", "run", "--rm", look, f"{IMAGE}-pieces", "python3", "-B", "/pyrlab/look.py"]
        with (folder / "pieces.json").open("w") as told:
            subprocess.run(command, check=True, stdout=told)
        yield Made(folder, context)
    finally:
        subprocess.run(["docker", "image", "rm", "--force", parent, f"{IMAGE}-pieces"], capture_output=True)


def inside(*command: str) -> str:
    """What a command prints in the image."""
    return docker("run", "--rm", "--env=DEBIAN_FRONTEND=noninteractive", f"{IMAGE}-pieces", *command)


@pytest.mark.parametrize("step", ["first", "second"])
def test_a_step_can_be_completed(made: Made, step: str) -> None:
    """Whether apt has installed some of the packages there or none, compilers find all of them in the end."""
    assert made.seen(step)["files"] == made.seen("pieces")["files"]


def test_the_files_are_those_that_apt_installs(made: Made) -> None:
    """Paths, contents, modes, owners and links, dpkg's database included."""
    plain, pieces = made.seen("plain"), made.seen("pieces")
    every = plain["files"].keys() | pieces["files"].keys()
    different = {path for path in every if plain["files"].get(path) != pieces["files"].get(path)}
    # apt writes the packages that nobody asked for in no order, and what is asserted here of them is what it reads.
    assert different <= {"/var/lib/apt/extended_states"}
    assert pieces["marks"] == plain["marks"]


def test_dpkg_and_apt_find_nothing_wrong(made: Made) -> None:
    """The database is complete, and every file has the checksum that its package says."""
    assert inside("dpkg", "--audit") == ""
    assert inside("apt-get", "check", "--quiet=2") == ""
    assert made.seen("pieces")["wrong"] == made.seen("plain")["wrong"]


def test_only_what_must_be_is_installed(made: Made) -> None:
    """What has scripts, configuration or triggers, is upgraded, or meets other files; and what that depends on."""
    ours = {"scripted", "needed", "configured", "watched", "guarded", "diverter", "diverted", "replaced", "replacing"}
    assert {*made.installed} >= {*ours, "older", "less", "openssh-client", "vim-tiny"}
    assert not {*made.installed} & {"plain", "tini", "fonts-liberation"}


def test_a_full_cache_gives_the_same_bytes(made: Made) -> None:
    """And apt installs nothing."""
    for name in ("0.tar", "1.tar"):
        assert (made.folder / "first" / name).read_bytes() == (made.folder / "second" / name).read_bytes()
    assert json.loads((made.folder / "second/told.json").read_text())["installed"] == []


def test_other_packages_beside_change_no_piece(made: Made, tmp_path: Path) -> None:
    """A package that comes in as a dependency of one that is installed is the same as one that is streamed."""
    done = build(made.context, "--target=layers", f"--output=type=local,dest={tmp_path}", packages="plain")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "told.json").read_text())["installed"] == []
    alone, among = (files_of(folder / "0.tar") for folder in (tmp_path, made.folder / "first"))
    assert {"usr/share/needed/file", "usr/lib/plain-in-lib/file", "var/lib/dpkg/info/needed.list"} <= alone.keys()
    assert alone.items() <= among.items()


def files_of(layer: Path) -> dict[str, tuple[object, bytes]]:
    """The files of a layer with all that a tar file says of them."""
    with tarfile.open(layer) as tree:
        return {member.name: (member.get_info(), content_of(tree, member)) for member in tree if not member.isdir()}


def content_of(tree: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The content of a regular file."""
    file = tree.extractfile(member) if member.isreg() else None
    return file.read() if file else b""


def test_packages_come_and_go_afterwards(made: Made) -> None:
    """What was streamed is upgraded, removed and depended upon as if dpkg had unpacked it."""
    steps = [
        "set -e",
        "dpkg --install /srv/newer/plain_2_all.deb",
        "test ! -e /usr/share/plain/file",
        "test -e /usr/share/plain/newer",
        "dpkg --remove scripted",
        "dpkg --purge tini plain needed",
        "test ! -e /usr/bin/tini",
        "test ! -e /usr/share/needed",
        "dpkg --audit",
        "apt-get check -q=2",
        "echo fine",
    ]
    assert inside("sh", "-c", "\n".join(steps)).endswith("fine")


@pytest.mark.parametrize(
    ("packages", "sentence"),
    [
        (
            "clash-one clash-two",
            r'"clash-(one|two) and clash-(one|two) cannot be installed together, since both have the file '
            r'/usr/share/clash/file", "where": "list\.txt"}$',
        ),
        ("clash-one older", ""),
    ],
)
def test_what_two_packages_have_is_said(context: Path, packages: str, sentence: str) -> None:
    """One sentence, with both packages, the file and the list."""
    done = build(context, "--target=first", "--output=type=cacheonly", packages=packages)
    assert (done.returncode != 0) == bool(sentence)
    assert re.search(sentence, done.stderr, re.MULTILINE)


def test_what_gives_way_is_gone(context: Path, tmp_path: Path) -> None:
    """A package that another one is in conflict with leaves nothing behind, in dpkg's database neither."""
    done = build(context, "--target=layers", f"--output=type=local,dest={tmp_path}", packages="in-its-place")
    assert done.returncode == 0, done.stderr
    gone = {"usr/share/.wh.giving-way", "var/lib/dpkg/info/.wh.giving-way.list"}
    assert gone <= files_of(tmp_path / "1.tar").keys()
    status = files_of(tmp_path / "1.tar")["var/lib/dpkg/status"][1].decode()
    assert "Package: in-its-place\n" in status
    assert "Package: giving-way\n" not in status
