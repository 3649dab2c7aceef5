"""What users copy works: the examples, the Binder image, and what devcontainers and child images rely on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import colleague
from checkout import (
    MINE,
    NAMES,
    PROJECT,
    ROOT,
    TAG,
    Run,
    copy_checkout,
    docker,
    run_make,
    running_lab,
    tagged,
)
from pyrlab.host.online import BUNDLE, BUNDLES
from servers import free_port

DEVCONTAINER_USER = 4321
# What the devcontainer CLI does to an image whose user has another number than the host's.
NEW_NUMBERS = (
    "sed -i -E 's/^(jovyan:[^:]*:)[^:]*:[^:]*/\\1{0}:{0}/' /etc/passwd && "
    "sed -i -E 's/([^:]*:[^:]*:)100:/\\1{0}:/' /etc/group && chown -R {0}:{0} /home/jovyan"
)
INSTALL = "pip install --no-cache-dir --no-index /tmp/*.whl"
RECIPES = {
    "as root": ["USER root", f"RUN {INSTALL}", "USER ${NB_UID}"],
    "as root, fix-permissions": ["USER root", f"RUN {INSTALL} && fix-permissions ${{CONDA_DIR}}", "USER ${NB_UID}"],
    "as the user": [f'RUN {INSTALL} && fix-permissions "${{CONDA_DIR}}" && fix-permissions "/home/${{NB_USER}}"'],
}


@contextmanager
def built(name: str, folder: Path, *options: str, steps: list[str] | None = None) -> Iterator[str]:
    """An image of a folder, by its Dockerfile or by these steps."""
    tag = f"example-{name}:{MINE}"
    if steps:
        (folder / "Dockerfile").write_text("\n".join(steps))
    run = subprocess.run(
        ["docker", "build", "--quiet", f"--tag={tag}", *options, str(folder)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    try:
        yield tag
    finally:
        docker("image", "rm", "--force", tag)


def said(*arguments: str) -> str:
    """What a container prints that runs to its end."""
    run = subprocess.run(["docker", "run", "--rm", *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def online(images: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pylab that trusts whom this machine trusts, as pip has to where a company looks into TLS."""
    folder = tmp_path_factory.mktemp("online")
    shutil.copy(next(bundle for bundle in BUNDLES if Path(bundle).is_file()), folder / "bundle.crt")
    steps = [f"FROM pylab:{TAG}", f"COPY --chmod=644 bundle.crt {BUNDLE}"]
    with built("online", folder, steps=steps) as tag:
        yield tag


class Compose:
    """A copy of an example, and Compose as a user types it there."""

    def __init__(self, example: str, folder: Path, image: str, **environment: str) -> None:
        self.folder = shutil.copytree(ROOT / "examples" / example, folder / example)
        self.environment = {**os.environ, "LAB_USER": str(os.getuid() or 1000), "IMAGE": image, **environment}
        self.project = f"example-{example}-{MINE}"
        if os.getuid() == 0:  # as the example says
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, 1000, -1)

    def __call__(self, *words: str) -> str:
        """What `docker compose WORD …` prints, which must succeed."""
        run = subprocess.run(
            ["docker", "compose", f"--project-name={self.project}", *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return str(run.stdout)

    def __enter__(self) -> Compose:
        """Begin without what a run that was killed has left."""
        self.__exit__()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove containers, volumes and images."""
        self("--profile=*", "down", "--volumes", "--rmi=local", "--remove-orphans", "--timeout=2")


def answer(url: str) -> bytes:
    """What a server answers to GET."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        content: bytes = reply.read()
        return content


def lab_url(log: str) -> str:
    """The URL that a lab's log tells last."""
    return str(re.findall(r"http://127\.0\.0\.1:\S+/lab\?token=\w+", log)[-1])


def test_extend(online: str, tmp_path: Path) -> None:
    """The class builds and starts its lab with one command; its notebook runs, and its packages can be replaced."""
    with Compose("extend", tmp_path, online, PORT=str(free_port())) as compose:
        compose("up", "--build", "--detach", "--wait")
        assert b"jupyter" in answer(lab_url(compose("logs")))
        notebook = "jupyter nbconvert --to markdown --execute --stdout work/explain.ipynb && touch work/mine"
        assert "petal width (cm)" in compose("exec", "-T", "lab", "sh", "-c", notebook)
        assert (tmp_path / "extend/notebooks/mine").exists()
        compose("exec", "-T", "lab", "pip", "uninstall", "--quiet", "--yes", "eli5")


def test_extend_as_an_image(images: str, tmp_path: Path) -> None:
    """As an entry of images.toml the class is built upon pylab, locked, and its notebook runs in its lab."""
    checkout = copy_checkout(tmp_path / "pyrlab")
    shutil.copy(checkout / "examples/extend/requirements.txt", checkout / "course.txt")
    with (checkout / "images.toml").open("a") as table:
        table.write((checkout / "examples/extend/images.toml").read_text())
    port, books, tag, project = free_port(), tmp_path / "books", f"extend-{MINE}", f"{PROJECT}-extend"
    shutil.copytree(checkout / "examples/extend/notebooks", books)

    def make(*targets: str) -> Run:
        return run_make(checkout, *targets, TAG=tag, PROJECT=project, COURSEPORT=port, FILES=str(books))

    with tagged(tag, TAG):
        try:
            with running_lab("course", make, project, books, port) as lab:
                notebook = "jupyter nbconvert --to markdown --execute --stdout work/explain.ipynb"
                assert "petal width (cm)" in docker("exec", lab.container, "sh", "-c", notebook)
            assert "\neli5 = { version = " in (checkout / "course.lock").read_text()
        finally:
            subprocess.run(["docker", "image", "rm", "--force", f"course:{tag}"], capture_output=True)


def test_project_at_work(online: str, tmp_path: Path) -> None:
    """In the lab the code is the one on the user's disk: a change shows at once."""
    with Compose("project", tmp_path, online, PORT=str(free_port())) as compose:
        compose("up", "--build", "--detach", "--wait", "dev")
        assert b"jupyter" in answer(lab_url(compose("logs", "dev")))
        report = ["exec", "-T", "dev", "python", "-m", "apps.report", "1000"]
        assert "at the end of the 5th year: 1,159.27" in compose(*report)
        code = tmp_path / "project/apps/report.py"
        code.write_text(code.read_text().replace("at the end of", "after"))
        assert "after the 5th year: 1,159.27" in compose(*report)


def test_project_in_production(online: str, tmp_path: Path) -> None:
    """Both apps run on one environment, with their settings and the code of the build, which they cannot change."""
    port = str(free_port())
    with Compose("project", tmp_path, online, SERVICE_PORT=port) as compose:
        compose("up", "--build", "--detach", "--wait")
        shutil.rmtree(tmp_path / "project/apps")
        [*_, last] = json.loads(answer(f"http://127.0.0.1:{port}/savings?start=100"))["plan"]
        assert last == {"year": 5, "balance": 115.93}
        with pytest.raises(urllib.error.HTTPError, match="400"):
            answer(f"http://127.0.0.1:{port}/savings?start=much")
        may_write = compose("exec", "-T", "service", "sh", "-c", "test -w /srv/apps/report.py || echo no")
        assert may_write == "no\n"
        compose("down", "--timeout=2")
    with Compose("project", tmp_path / "again", online) as compose:
        (compose.folder / "settings.env").write_text("YEARS=1\nGROWTH=0.5\n")
        compose("build", "report")
        assert compose("run", "--rm", "report") == "at the end of the 1st year: 1,500.00\n"


@pytest.mark.parametrize("steps", RECIPES.values(), ids=RECIPES)
def test_installed_packages_stay_the_users(steps: list[str], images: str, tmp_path: Path) -> None:
    """Whoever a child image's Dockerfile installs a package as, the user in the lab may remove it again."""
    package = colleague.wheel(tmp_path)
    with built("child", tmp_path, steps=[f"FROM pylab:{TAG}", f"COPY {package.name} /tmp/", *steps]) as tag:
        assert docker("image", "inspect", "--format={{.Config.User}}", tag) == "1000"
        for user in ("1000", "12345:100"):
            run = "python -c 'import colleague; print(colleague.greeting)' && pip uninstall --quiet --yes colleague"
            assert said(f"--user={user}", tag, "sh", "-c", run) == "hello\n"


def test_binder(images: str, tmp_path: Path) -> None:
    """Who opens this repository in Binder finds its notebooks in the lab, as files of one's own."""
    notebooks = sorted(str(path.relative_to(ROOT / "notebooks")) for path in ROOT.glob("notebooks/*/*.ipynb"))
    with built("binder", ROOT, f"--file={ROOT}/binder/Dockerfile", f"--build-arg=IMAGE=pylab:{TAG}") as tag:
        found = said(tag, "sh", "-c", "cd work && find . -name '*.ipynb' -user jovyan -writable -printf '%P\\n'")
        assert sorted(found.splitlines()) == notebooks


@pytest.mark.parametrize("name", NAMES)
def test_devcontainer_label(name: str, images: str) -> None:
    """Every image tells a devcontainer whom and what to start."""
    form = '--format={{index .Config.Labels "devcontainer.metadata"}}'
    [metadata] = json.loads(docker("image", "inspect", form, f"{name}:{TAG}"))
    assert metadata["remoteUser"] == metadata["containerUser"] == "jovyan"
    assert metadata["overrideCommand"] is False
    assert metadata["forwardPorts"] == [8888]


def test_user_of_another_number(images: str, tmp_path: Path) -> None:
    """A jovyan to whom a devcontainer gives the numbers of the host's user may still change home and environment."""
    steps = [f"FROM pylab:{TAG}", "USER root", f"RUN {NEW_NUMBERS.format(DEVCONTAINER_USER)}", "USER 1000"]
    may = "id -u; for place in ~ /opt/venv /opt/venv/lib/python3*/site-packages; do test -w $place || echo $place; done"
    with built("numbers", tmp_path, steps=steps) as tag:
        assert said("--user=jovyan", tag, "sh", "-c", may) == f"{DEVCONTAINER_USER}\n"
