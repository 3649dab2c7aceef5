"""Builds and labs whose network leads to a proxy only: a company's, this machine's caches, or nowhere."""

from __future__ import annotations

import functools
import json
import re
import ssl
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from caches import Caches
from checkout import CHANGED, NAMES, ROOT, TINY, docker, refusal, succeeded
from conftest import Clean
from host import HOME, Host
from pyrlab.steps import network
from servers import Squid, serve_files

COMPANY = "company"  # the tag of images that are built here


def identity(host: Host, image: str) -> str:
    """The digest of an image on the engine in the cut network."""
    return host.docker("image", "inspect", image, "--format", "{{.Id}}")


@pytest.mark.usefixtures("clean")
def test_caches_serve_everything(caches: Caches, squid: Squid) -> None:
    """All that a clean build needs came from the two caches, and they had it through the company's proxy."""
    for which, parts in {
        "apt": ["/InRelease", "/apt_", "/less_", "/r-base-core_", "/r-cran-irkernel_"],
        "pip": ["/+simple/uv/", "/+simple/jupyterlab/", "/+simple/cowsay/"],
    }.items():
        served = caches.log(which)
        assert [part for part in parts if part not in served] == []
    fetched = squid.log.read_text()
    assert [part for part in ("/r-base-core_", "/simple/cowsay/") if part not in fetched] == []


def test_other_proxies(clean: Clean, company: dict[str, str]) -> None:
    """With other proxies nothing that is kept is made anew, and the image is the same."""
    succeeded(clean.host.make(clean.checkout, "build_base", TAG=COMPANY, **company))
    log = (clean.checkout / ".cache/build.log").read_text()
    assert re.findall(r"^--- [\d.]+ s from .* uv \d/\d\] RUN.*", log, re.MULTILINE) == []
    assert identity(clean.host, f"pyrlab-base:{COMPANY}") == identity(clean.host, f"pyrlab-base:{CHANGED}")


def test_company(squid: Squid, company: dict[str, str], tiny: Path, tmp_path: Path) -> None:
    """In a build step apt, pip and uv get through a proxy that has a password and looks into TLS; none is told."""
    assert tiny.exists()
    before = len(squid.log.read_text())
    (tmp_path / "network").write_text(json.dumps({name: url for name, url in company.items() if name != "CACERT"}))
    mounts = {
        tmp_path / "network": "/run/secrets/network",
        squid.authority: "/run/secrets/ca",
        ROOT / "pyrlab": "/tools/pyrlab",
        Path(sys.executable).parent / "uv": "/uv",
    }
    script = """
    apt-get update --error-on=any
    pip install --no-deps --target /tmp/pip pyjokes
    /uv pip install --no-deps --target /tmp/uv cowsay
    """
    volumes = [f"--volume={path}:{inside}:ro" for path, inside in mounts.items()]
    command = ["-m", "pyrlab.steps.network", "run", "bash", "-exc", script]
    run = [
        "docker",
        "run",
        "--rm",
        "--user=0",
        "--env=PYTHONPATH=/tools",
        "--entrypoint=python3",
        *volumes,
        f"pyrlab-base:{TINY}",
        *command,
    ]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    served = squid.log.read_text()[before:]
    assert [part for part in ("/trixie/InRelease", "/pyjokes-", "/cowsay-") if part not in served] == []
    assert squid.password not in done.stdout + done.stderr


def test_lax_authority(gateway: str, tiny: Path, tmp_path: Path) -> None:
    """R packages come through a proxy whose authority does not say what it is for: Python 3.13 alone refuses it."""
    assert tiny.exists()
    (tmp_path / "page").write_text("R's")
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    signed = ["-CA", "ca", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE"]
    signed += ["-addext", f"subjectAltName=IP:{gateway}"]
    for name, options in (("ca", []), ("proxy", signed)):
        command = [*request, "-subj", f"/CN={name}", "-out", name, "-keyout", f"{name}.key", *options]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(tmp_path / "proxy", tmp_path / "proxy.key")
    mounts = [f"--volume={tmp_path}/ca:/run/secrets/ca:ro", f"--volume={ROOT}/pyrlab:/tools/pyrlab:ro"]
    run = ["run", "--rm", "--env=PYTHONPATH=/tools", "--entrypoint=python3", *mounts, f"pyrlab-base:{TINY}"]
    with serve_files(tmp_path, gateway, trust=trust) as server:
        code = f"from pyrlab.steps import r; print(r.Web('R').get('{server.url}/page').decode())"
        assert docker(*run, "-Bc", code) == "R's"
        assert server.agents == {"R"}


def blobs(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of an image archive by name, layers unpacked."""
    with tarfile.open(archive) as saved:
        for member in saved:
            if file := saved.extractfile(member):
                content = file.read()
                if content.startswith(b"\x28\xb5\x2f\xfd"):
                    reader = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True)
                    content = reader.read()
                yield member.name, content


def test_nothing_stays_behind(clean: Clean, squid: Squid, caches: Caches) -> None:
    """No layer, history, label or setting of an image, nor the log, has a trace of proxy, password or authority."""
    certificate = squid.authority.read_text().splitlines()[1]
    addresses = [url.removeprefix("http://") for url in (squid.url, *caches.parameters.values()) if "://" in url]
    canaries = [squid.user, squid.password, *addresses, "canary authority", certificate]
    images = [f"{name}:{CHANGED}" for name in NAMES]
    found: list[tuple[str, str]] = []
    searched = 0

    def search(where: str, content: bytes) -> None:
        nonlocal searched
        searched += len(content)
        found.extend((where, canary) for canary in canaries if canary.encode() in content)

    archive = clean.host.home / "images.tar"
    clean.host.docker("save", "--output", str(HOME / archive.name), *images)
    for name, content in blobs(archive):
        search(name, content)
    assert searched > 700_000_000, "the layers were not unpacked"
    search("make and its log", clean.said.encode())
    for image in images:
        search(f"history of {image}", clean.host.docker("history", "--no-trunc", image).encode())
        search(f"settings of {image}", clean.host.docker("image", "inspect", image).encode())
    assert found == []


def test_wrong_password(clean: Clean, squid: Squid, company: dict[str, str]) -> None:
    """Of a proxy that does not know the password the user hears at once, by the parameter's name."""
    requirements = clean.checkout / "requirements.txt"
    before = requirements.read_text()
    requirements.write_text(before + "pyjokes\n")
    built = clean.host.make(clean.checkout, "build", TAG=CHANGED, **{**company, "https_proxy": squid.url})
    requirements.write_text(before)
    said = re.findall("^pyrlab: (.*)", built.stderr, re.MULTILINE)
    assert said == [network.DENIED.format("https_proxy")]


def test_no_network(clean: Clean) -> None:
    """Without a network an unchanged checkout builds and starts, and a changed list says what is missing."""
    make = functools.partial(clean.host.make, clean.checkout, TAG=CHANGED)
    debs = clean.checkout / "base_debs.txt"
    before = debs.read_text()
    try:
        with clean.host.cut_off():
            assert succeeded(make("build")).count("up to date") == len(NAMES)
            succeeded(make("start_rlab"))
            debs.write_text(f"{before}nano-tiny\n")
            said = refusal(make("build"))
        assert re.match(
            r"pyrlab: \S+ cannot be reached \(.*\); behind a proxy, set http_proxy and https_proxy, or", said
        )
    finally:
        debs.write_text(before)
        make("stop")


def test_apt_over_tls(caches: Caches, tiny: Path) -> None:
    """Sources that apt would fetch over TLS come through apt-cacher-ng, too."""
    assert tiny.exists()
    script = """
    mkdir -p /run/secrets
    echo '{"APTPROXY": "%s"}' >/run/secrets/network
    sed -i s,http://,https://, /etc/apt/sources.list
    PYTHONPATH=/tools python3 -B -m pyrlab.steps.network run apt-get update --error-on=any
    """
    before = len(caches.log("apt"))
    tools = f"{ROOT / 'pyrlab'}:/tools/pyrlab:ro"
    docker(
        "run",
        "--rm",
        "--user=0",
        "--entrypoint=bash",
        f"--volume={tools}",
        f"pyrlab-base:{TINY}",
        "-ec",
        script % caches.parameters["APTPROXY"],
    )
    assert "InRelease" in caches.log("apt")[before:]  # of what it only lets through, it knows no names
