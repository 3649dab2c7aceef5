"""Whatever runs an image of docker-stacks runs pylab and rlab: each way in leads to a lab, or says what to do."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import colleague
from checkout import PROJECT, ROOT, TAG, complaints, docker

CELL = (ROOT / "tests/make/cell.py").read_text()
HEALTHY_WITHIN = 60  # seconds
PROBE = 10  # milliseconds of CPU
LIMITS = ("--cap-drop=ALL", "--security-opt=no-new-privileges:true")

PIP_INSTALL = """
import getpass, os, subprocess, sys
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "{}"], check=True)
import colleague
print(colleague.greeting, os.getuid(), os.getgid(), getpass.getuser(), os.environ["HOME"])
"""
INSTALL_PACKAGES = """
invisible(capture.output(suppressMessages(install.packages("{}", repos = NULL, quiet = TRUE))))
library(colleague)
cat(greeting, system("id -u", intern = TRUE))
"""

AS_ROOT = ("--user=root", "--env=CHOWN_HOME=yes")
READ_ONLY = ("--read-only",)
HOST_HOME = ("--volume={empty}:/home/ada", "--env=HOME=/home/ada", "--workdir=/home/ada")
EMPTY_VOLUME = "--mount=type=volume,destination=/home/jovyan,volume-nocopy"  # root's
UNUSABLE = "no write access to /home/jovyan. "


@dataclass(frozen=True)
class Way:
    """A way in, who the user in a notebook then is, and what the log says besides that all is well."""

    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = "1000 100 jovyan /home/jovyan"
    says: str = ""


WAYS = {
    "as it is": Way(),
    "any user of group 0": Way(("--user=12345:0",), user="12345 0 jovyan /home/jovyan"),
    "OpenShift": Way(("--user=1000680000:0", *LIMITS), user="1000680000 0 jovyan /home/jovyan"),
    "any user of group 100": Way(("--user=12345:100", *LIMITS), user="12345 100 jovyan /home/jovyan"),
    "a group without a name": Way(("--user=12345:54321",), user="12345 54321 jovyan /home/jovyan"),
    "no groups but --group-add": Way(("--user=5000", "--group-add=users"), user="5000 0 jovyan /home/jovyan"),
    "a user's name of one's own": Way(
        ("--user=5000", "--env=NB_USER=ada"),
        user="5000 0 ada /home/jovyan",
        says="user is ada but home is /home/jovyan",
    ),
    "a home elsewhere": Way(("--env=HOME=/tmp/elsewhere",), user="1000 100 jovyan /tmp/elsewhere"),
    "a home that is read only": Way(
        ("--tmpfs=/home/jovyan:ro",), user="1000 100 jovyan /tmp/home-1000", says=f"{UNUSABLE}Mount something writable"
    ),
    "read only": Way(READ_ONLY, user="1000 100 jovyan /dev/shm/home-1000", says=f"{UNUSABLE}Mount something writable"),
    "read only, a tmpfs at home": Way((*READ_ONLY, "--tmpfs=/home/jovyan")),
    "read only, a tmpfs at home, any user": Way(
        (*READ_ONLY, "--tmpfs=/home/jovyan:mode=1777", "--user=12345:54321"), user="12345 54321 jovyan /home/jovyan"
    ),
    "read only, the user's tmpfs": Way((*READ_ONLY, "--tmpfs=/home/jovyan:uid=1000,gid=100,mode=700")),
    "read only, root": Way(
        (*AS_ROOT, *READ_ONLY, "--env=NB_UID=4321", "--tmpfs=/home/jovyan"),
        user="4321 100 jovyan /home/jovyan",
        says="/etc/passwd cannot be changed (Read-only file system), so 4321 has no name of its own",
    ),
    "an empty volume at home": Way(
        (EMPTY_VOLUME,), user="1000 100 jovyan /tmp/home-1000", says=f"{UNUSABLE}It belongs to 0:0; chown it to 1000"
    ),
    "an empty volume at home, CHOWN_HOME": Way((*AS_ROOT, EMPTY_VOLUME)),
    "an empty folder at home": Way(("--volume={empty}:/home/jovyan",)),
    "a root folder elsewhere": Way(command=("start-notebook.py", "--ServerApp.root_dir=/srv")),
    "a notebook folder elsewhere": Way(command=("start-notebook.sh", "--notebook-dir=/tmp")),
    "a working folder elsewhere": Way(("--workdir=/srv",)),
    "no network": Way(("--network=none",)),
    "an engine's init": Way(("--init",)),
    "options alone": Way(command=("--ServerApp.base_url=/x/",)),
    "options in the environment": Way(("--env=NOTEBOOK_ARGS=--ServerApp.base_url='/x/' --no-browser",)),
    "TLS, port and base URL": Way(
        ("--env=GEN_CERT=yes", "--env=JUPYTER_PORT=7891"), command=("start-notebook.py", "--ServerApp.base_url=/test")
    ),
    "a company's proxy": Way(("--env=HTTP_PROXY=http://proxy.invalid", "--env=https_proxy=http://proxy.invalid")),
    "a server without JupyterLab": Way(("--env=DOCKER_STACKS_JUPYTER_CMD=server",)),
    "a server that comes again": Way(("--env=RESTARTABLE=yes",)),
    "start.sh once more": Way(command=("start.sh", "jupyter", "lab"), says="do not include it in CMD"),
    "another command": Way(command=("bash", "-c", "cd work && exec jupyter lab")),
    "no entry point": Way(("--entrypoint=start-notebook.sh",)),
    "Kubeflow": Way(
        ("--env=NB_PREFIX=/notebook/ns/ada", "--tmpfs=/home/jovyan:uid=1000,mode=755"),
        says="All authentication is disabled",
    ),
    "Apptainer": Way(
        (*READ_ONLY, *LIMITS, "--user=4321:4321", "--volume={passwd}:/etc/passwd:ro", *HOST_HOME, "--tmpfs=/tmp"),
        user="4321 4321 ada /home/ada",
    ),
    "root": Way(("--user=root",)),
    "root, a user id": Way((*AS_ROOT, "--env=NB_UID=1234"), user="1234 100 jovyan /home/jovyan"),
    "root, a user": Way(
        (*AS_ROOT, "--env=NB_USER=ada", "--env=NB_UID=1234", "--env=NB_GID=4321", "--env=NB_GROUP=engines"),
        user="1234 4321 ada /home/ada",
    ),
    "root, a user, a base URL": Way(
        (*AS_ROOT, "--env=NB_USER=ada", "--env=JUPYTER_PORT=8123"),
        ("start-notebook.py", "--ServerApp.base_url=/test"),
        "1000 100 ada /home/ada",
    ),
    "root by name": Way(
        ("--user=root", "--env=NB_USER=root", "--env=NB_UID=0", "--env=NB_GID=0"), user="0 0 root /home/root"
    ),
    "root, sudo": Way(("--user=root", "--env=GRANT_SUDO=yes"), says="add a line with sudo to base_debs.txt"),
}


@pytest.fixture(scope="module")
def handed_over(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The packages that a colleague hands over, by the kernel that they are for."""
    folder = tmp_path_factory.mktemp("colleague")
    return {"python3": colleague.wheel(folder), "ir": colleague.r_package(folder)}


@contextmanager
def started(*arguments: str) -> Iterator[str]:
    """A container with these arguments of docker run."""
    name = docker("run", "--detach", "--health-start-interval=200ms", *arguments)
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def health(container: str) -> str:
    """What the engine thinks of a container, once it has made up its mind."""
    end = time.monotonic() + HEALTHY_WITHIN
    while time.monotonic() < end:
        state = json.loads(docker("inspect", "--format={{json .State}}", container))
        if state["Health"]["Status"] != "starting" or not state["Running"]:
            break
        time.sleep(0.1)
    return str(state["Health"]["Status"])


def log(container: str) -> str:
    """What a container has logged."""
    return subprocess.run(
        ["docker", "logs", container], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout


def said(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a container to its end."""
    return subprocess.run(["docker", "run", "--rm", *arguments], capture_output=True, text=True)


def run_cell(container: str, kernel: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run a cell in a new kernel of a container's server."""
    command = ["docker", "exec", container, "/opt/venv/bin/python", "-I", "-c", CELL, kernel, code]
    return subprocess.run(command, capture_output=True, text=True)


def cell(container: str, kernel: str, code: str) -> str:
    """What a cell prints that must succeed."""
    run = run_cell(container, kernel, code)
    assert run.returncode == 0, run.stderr + log(container)
    return run.stdout.strip()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_ways_in(way: Way, images: str, handed_over: dict[str, Path], tmp_path: Path) -> None:
    """Whichever way somebody starts the lab: it gets healthy, a kernel runs, pip installs, and the log says no more."""
    empty, passwd = tmp_path / "empty", tmp_path / "passwd"
    empty.mkdir()
    empty.chmod(0o777)
    passwd.write_text("root:x:0:0:root:/root:/bin/bash\nada:x:4321:4321::/home/ada:/bin/bash\n")
    package = handed_over["python3"]
    options = [option.format(empty=empty, passwd=passwd) for option in way.options]
    with started(*options, f"--volume={package}:/opt/{package.name}:ro", f"pylab:{TAG}", *way.command) as container:
        assert health(container) == "healthy", log(container)
        assert cell(container, "python3", PIP_INSTALL.format(f"/opt/{package.name}")) == f"hello {way.user}"
        wrong = complaints(container)
        assert [line for line in wrong if not way.says or way.says not in line] == []
        assert bool(wrong) == bool(way.says)


R_WAYS = ["any user of group 0", "read only, the user's tmpfs", "root, a user id"]


@pytest.mark.parametrize("way", [WAYS[name] for name in R_WAYS], ids=R_WAYS)
def test_ways_into_r(way: Way, images: str, handed_over: dict[str, Path]) -> None:
    """install.packages() works for whoever starts rlab."""
    package = handed_over["ir"]
    with started(*way.options, f"--volume={package}:/opt/{package.name}:ro", f"rlab:{TAG}") as container:
        assert health(container) == "healthy", log(container)
        uid = way.user.split()[0]
        assert cell(container, "ir", INSTALL_PACKAGES.format(f"/opt/{package.name}")) == f"hello {uid}"


REFUSED = {
    "root that may not": (["--user=root", "--cap-drop=ALL"], "without the capabilities to become another user"),
    "root by number alone": (["--user=root", "--env=NB_UID=0"], "Only NB_USER=root NB_UID=0 NB_GID=0, all three"),
    "root by name alone": (["--user=root", "--env=NB_USER=root"], "Only NB_USER=root NB_UID=0 NB_GID=0, all three"),
    "no name": (["--user=root", "--env=NB_USER=a:b"], "NB_USER=a:b is no name"),
    "no number": (["--user=root", "--env=NB_GID=users"], "NB_GID=users is no number of a user or group"),
    "a frontend that is not there": (
        ["--env=DOCKER_STACKS_JUPYTER_CMD=nbclassic"],
        "DOCKER_STACKS_JUPYTER_CMD=nbclassic: not in this image; add nbclassic to requirements.txt",
    ),
}


@pytest.mark.parametrize(("options", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refused(options: list[str], sentence: str, images: str) -> None:
    """What cannot be had ends the start with one sentence, and nothing runs."""
    run = said(*options, f"pylab:{TAG}")
    assert run.returncode == 1
    [error] = [line for line in run.stderr.splitlines() if line.startswith("ERROR[")]
    assert sentence in error


NEEDS_ROOT = {
    "NB_USER=ada": 'change the desired user\'s name with NB_USER="ada"',
    "NB_UID=1234": 'change the desired user\'s id with NB_UID="1234"',
    "NB_GID=4321": 'change the desired user\'s group id with NB_GID="4321"',
    "GRANT_SUDO=yes": "grant sudo permissions",
    "CHOWN_HOME=yes": "change owners with CHOWN_HOME",
    "CHOWN_EXTRA=/srv": "change owners with CHOWN_EXTRA",
}


@pytest.mark.parametrize("option", NEEDS_ROOT)
def test_needs_root(option: str, images: str) -> None:
    """Whoever asks for what only root can do reads so once, also where the rest of the log is silenced."""
    quiet = "--env=JUPYTER_DOCKER_STACKS_QUIET=1"
    run = said(f"--env={option}", quiet, f"pylab:{TAG}", "id", "-un")
    assert run.stdout == "jovyan\n"
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    sentence = f"container must be started as root to {NEEDS_ROOT[option]}!"
    assert re.fullmatch(rf"WARNING\[{date}\] {re.escape(sentence)}\n", run.stderr)


def test_user_that_is_not_to_be_had(images: str) -> None:
    """A lab that could not become who was asked for is not healthy, as it is not in docker-stacks."""
    with started("--env=NB_USER=ada", "--health-start-period=1s", "--health-interval=1s", f"pylab:{TAG}") as container:
        assert health(container) == "unhealthy"
        probes = json.loads(docker("inspect", "--format={{json .State.Health.Log}}", container))
        assert probes[-1]["Output"] == "NB_USER=ada needs a container that is started as root\n"


def test_ipv6(images: str) -> None:
    """A network of IPv6 leads to the lab, too."""
    network = f"{PROJECT}-ipv6"
    docker("network", "create", "--ipv6", "--subnet=fd5c:7079:726c::/64", network)
    try:
        with started(f"--network={network}", f"pylab:{TAG}") as container:
            assert health(container) == "healthy", log(container)
            found = json.loads(docker("inspect", "--format={{json .NetworkSettings.Networks}}", container))
            for address in (found[network]["IPAddress"], f"[{found[network]['GlobalIPv6Address']}]"):
                asked = subprocess.run(
                    ["curl", "--silent", "--noproxy", "*", f"http://{address}:8888/api"], capture_output=True
                )
                assert b"version" in asked.stdout
    finally:
        docker("network", "rm", network)


LIMIT = 600 * 2**20
GREEDY = {
    "python3": ("pylab", "[b'x' * 2**24 for _ in range(100)]"),
    "ir": ("rlab", "lapply(1:100, function(n) rep(n, 2^21))"),
}


@pytest.mark.parametrize("kernel", GREEDY)
def test_memory(kernel: str, images: str) -> None:
    """The status bar knows how much memory the lab may use; a kernel that is killed for want of it says so."""
    lab, code = GREEDY[kernel]
    options = (f"--memory={LIMIT}", f"--memory-swap={LIMIT}", "--env=JUPYTER_TOKEN=token")
    with started(*options, f"{lab}:{TAG}") as container:
        assert health(container) == "healthy", log(container)
        shown = json.loads(ask(container, "http://127.0.0.1:8888/api/metrics/v1", "token")[1])
        assert shown["limits"]["memory"]["rss"] == LIMIT
        run = run_cell(container, kernel, code)
        assert "killed for want of memory: the lab may use 0.6 GiB (peak 0.6 GiB)." in run.stdout, run.stderr
        assert run.stderr.endswith("the kernel has died\n")
        assert cell(container, "python3", "print(1)") == "1"


def test_without_a_limit(images: str) -> None:
    """A kernel that is killed for another reason says nothing of memory."""
    with started(f"pylab:{TAG}") as container:
        assert health(container) == "healthy", log(container)
        assert run_cell(container, "python3", "import os; os.kill(os.getpid(), 9)").stdout == ""


PAUSE = """
import psutil, time
def used(): return sum(psutil.Process().parent().cpu_times()[:2])
before = used(); time.sleep(31); print(used() - before)
"""


def test_pause(images: str) -> None:
    """While a cell is silent the notebook stays connected, longer than pings are apart, and the server hardly works."""
    with started(f"pylab:{TAG}") as container:
        assert health(container) == "healthy", log(container)
        assert float(cell(container, "python3", PAUSE)) < 0.3  # seconds of CPU
        assert complaints(container) == []


SERVER = ["python", "-m", "http.server", "--directory=/usr/share/pyrlab"]
NAMED = f"--ServerProxy.servers={json.dumps({'named': {'command': [*SERVER, '{port}']}})}"


@pytest.mark.parametrize("lab", ["pylab", "rlab"])
def test_proxy(lab: str, images: str) -> None:
    """What listens in a lab, or what it is told to start, is at the lab's own URL, for whoever has its token."""
    with started("--env=JUPYTER_TOKEN=token", f"{lab}:{TAG}", NAMED) as container:
        assert health(container) == "healthy", log(container)
        docker("exec", "--detach", container, *SERVER, "9000")
        until(lambda: ask(container, "http://127.0.0.1:9000/")[0] == 200)
        for address in ("proxy/9000/", "named/"):
            status, page = ask(container, f"http://127.0.0.1:8888/{address}", "token")
            assert (status, "manifest.json" in page) == (200, True)
            assert ask(container, f"http://127.0.0.1:8888/{address}", "another")[0] == 302  # to the login
        assert complaints(container) == []


COURSE = (
    "git init --quiet --initial-branch=main course && cd course && echo 1 >lesson && git add lesson && "
    "git -c user.name=Ada -c user.email=ada@example.invalid commit --quiet --message=Lesson"
)


def test_nbgitpuller(images: str) -> None:
    """A link to a lab brings the files of a course's repository."""
    with started("--env=JUPYTER_TOKEN=token", "--workdir=/tmp", f"pylab:{TAG}") as container:
        assert health(container) == "healthy", log(container)
        docker("exec", container, "sh", "-c", COURSE)
        link = "http://127.0.0.1:8888/git-pull/api?repo=file:///tmp/course&branch=main&targetpath=mine"
        assert '"phase": "finished"' in ask(container, link, "token")[1]
        assert docker("exec", container, "cat", "mine/lesson") == "1"
        assert complaints(container) == []


HUB_API = "http://hub:8081/hub/api"
HUB_TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def hub(images: str) -> Iterator[str]:
    """A JupyterHub in a network of its own name, which it shares with labs."""
    name = f"{PROJECT}-hub"
    docker("network", "create", name)
    try:
        settings = f"--volume={ROOT}/tests/make/hub.py:/srv/hub.py:ro"
        options = [f"--name={name}", f"--network={name}", "--network-alias=hub", settings]
        with started(*options, f"pylab:{TAG}", "jupyterhub", "--config=/srv/hub.py"):
            until(lambda: ask(name, f"{HUB_API}/", HUB_TOKEN)[0] == 200)
            assert ask(name, f"{HUB_API}/users/ada", HUB_TOKEN, "POST")[0] == 201
            yield name
    finally:
        docker("network", "rm", name)


def ask(container: str, url: str, token: str = "none", method: str = "GET") -> tuple[int, str]:
    """The status and the text of what is asked from within a container."""
    curl = ["curl", "-s", "-m", "20", "-X", method, "-H", f"Authorization: token {token}", "-w", "\n%{http_code}", url]
    text = subprocess.run(["docker", "exec", container, *curl], capture_output=True, text=True).stdout
    return int(text.rpartition("\n")[2] or 0), text.rpartition("\n")[0]


HUB_WAYS = {
    "the image's own command": Way(),
    "the name of old charts": Way(command=("start-singleuser.sh", "--debug")),
    "a notebook folder": Way(("--env=JUPYTERHUB_ROOT_DIR=/srv",)),
    "any user, another home": Way(("--user=12345:0", "--env=HOME=/tmp/elsewhere")),
}


@pytest.mark.parametrize("way", HUB_WAYS.values(), ids=HUB_WAYS)
def test_hub(way: Way, hub: str) -> None:
    """A hub's user gets JupyterLab at the hub's address for it, whoever has no token of the hub's nothing."""
    docker("exec", hub, "rm", "--force", "/tmp/environment.json")
    asked = ["curl", "-s", "-X", "POST", "-H", f"Authorization: token {HUB_TOKEN}", f"{HUB_API}/users/ada/server"]
    docker("exec", "--detach", hub, *asked)  # answered when the lab answers
    until(lambda: subprocess.run(["docker", "exec", hub, "test", "-s", "/tmp/environment.json"]).returncode == 0)
    given = json.loads(docker("exec", hub, "cat", "/tmp/environment.json"))
    environment = [f"--env={name}={value}" for name, value in given.items() if name.startswith("JUPYTER")]
    options = [f"--network={hub}", "--network-alias=lab", *environment, *way.options]
    try:
        with started(*options, f"pylab:{TAG}", *way.command) as container:
            assert health(container) == "healthy", log(container)
            until(lambda: '"ready": true' in ask(hub, f"{HUB_API}/users/ada", HUB_TOKEN)[1])
            token = json.loads(ask(hub, f"{HUB_API}/users/ada/tokens", HUB_TOKEN, "POST")[1])["token"]
            status, page = ask(hub, "http://lab:8888/user/ada/lab", token)
            assert (status, "<title>JupyterLab</title>" in page) == (200, True)
            assert ask(hub, "http://lab:8888/user/ada/lab")[0] == 302  # to the hub, to log in
            assert ask(hub, "http://lab:8888/user/ada/api/contents")[0] == 403
    finally:
        ask(hub, f"{HUB_API}/users/ada/server", HUB_TOKEN, "DELETE")


def test_chown(images: str) -> None:
    """Root's container gives away what was asked for, and writes in the environment of whom it has become."""
    options = ["--env=NB_UID=1010", "--env=NB_GID=101", "--env=CHOWN_EXTRA=/home/jovyan,/opt/conda/bin"]
    script = "stat -c %n:%u:%g ~/.bashrc /opt/conda/bin/jupyter; touch $CONDA_DIR/new && id -G"
    run = said("--user=root", *options, "--env=CHOWN_EXTRA_OPTS=-R", f"pylab:{TAG}", "bash", "-c", script)
    assert run.stdout == "/home/jovyan/.bashrc:1010:101\n/opt/conda/bin/jupyter:1010:101\n101 100\n", run.stderr


def test_mounted_work_of_another_user(images: str, tmp_path: Path) -> None:
    """Who gets a home of another name works in the folder that is mounted, not in a copy of it."""
    (tmp_path / "note").write_text("kept")
    tmp_path.chmod(0o777)
    options = ["--user=root", "--env=NB_USER=ada", f"--volume={tmp_path}:/home/jovyan/work"]
    run = said(*options, f"pylab:{TAG}", "bash", "-c", "id -un; cat ~/work/note; echo new >~/work/new")
    assert run.stdout == "ada\nkept", run.stderr
    assert (tmp_path / "new").read_text() == "new\n"


@pytest.mark.parametrize("user", [["--user=1000"], ["--user=root", "--env=NB_UID=1234", "--env=NB_GID=4321"]])
def test_empty_home_is_populated(user: list[str], images: str, tmp_path: Path) -> None:
    """A new volume over the home gets the files of the image's, as the user's, and keeps what it has."""
    (tmp_path / ".bashrc").write_text("echo mine")
    tmp_path.chmod(0o777)
    run = said(*user, f"--volume={tmp_path}:/home/jovyan", f"pylab:{TAG}", "sh", "-c", "id -u; stat -c %u ~/.profile")
    uid, owner = run.stdout.split()
    assert uid == owner
    assert (tmp_path / ".bashrc").read_text() == "echo mine"


def test_folder_mounted_in_another_home(images: str, tmp_path: Path) -> None:
    """Who mounts a folder in the home of another name has that home all the same, though the engine has made it."""
    (tmp_path / "note").write_text("kept")
    tmp_path.chmod(0o777)
    options = ["--user=root", "--env=NB_USER=ada", f"--volume={tmp_path}:/home/ada/data"]
    run = said(*options, f"pylab:{TAG}", "sh", "-c", "touch ~/new; stat -c '%n %U' ~/new ~/.bashrc; cat ~/data/note")
    assert run.stdout == "/home/ada/new ada\n/home/ada/.bashrc ada\nkept", run.stderr
    assert "WARNING" not in run.stderr


def test_settings_mounted_at_home(images: str, tmp_path: Path) -> None:
    """A file that is mounted in ~/.jupyter leaves that folder to the user, who may change settings there."""
    (tmp_path / "settings.py").write_text("")
    mount = f"--volume={tmp_path}/settings.py:/home/jovyan/.jupyter/jupyter_lab_config.py"
    assert said(mount, f"pylab:{TAG}", "sh", "-c", "touch ~/.jupyter/new && stat -c %U ~/.jupyter").stdout == "jovyan\n"


def test_home_that_root_cannot_write(images: str, tmp_path: Path) -> None:
    """A home that is read only is one warning, also where root has started the lab."""
    run = said("--user=root", f"--volume={tmp_path}:/home/jovyan:ro", f"pylab:{TAG}", "id", "-un")
    [warning] = [line for line in run.stderr.splitlines() if line.startswith("WARNING")]
    assert (run.stdout, UNUSABLE in warning) == ("jovyan\n", True)


def test_prompt(images: str) -> None:
    """A terminal's prompt has its colours, as docker-stacks' has."""
    run = said("--tty", f"pylab:{TAG}", "bash", "-i", "-c", "echo ${PS1@Q}")
    assert r"\[\033[01;32m\]\u@\h\[\033[00m\]" in run.stdout


HOOKS = {
    "10-settings.sh": "declare -x FIRST=1\numask 002\necho $UNDEFINED\nfalse\n",
    "20-failing": "#!/bin/sh\necho ran >&2\nexit 3\n",
    "30-more.sh": "export SECOND=$FIRST$FIRST\n",
    "40-text.txt": "no hook\n",
}


@pytest.mark.parametrize("user", ["1000", "root"])
@pytest.mark.parametrize("folder", ["start-notebook.d", "before-notebook.d"])
def test_hooks(folder: str, user: str, images: str, tmp_path: Path) -> None:
    """Hooks change the lab's environment, whoever starts it; one that fails is named and passed over."""
    for name, text in HOOKS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755 if text.startswith("#!") else 0o644)
    tmp_path.chmod(0o755)
    inside = f"/usr/local/bin/{folder}"
    run = said(
        f"--user={user}", f"--volume={tmp_path}:{inside}:ro", f"pylab:{TAG}", "sh", "-c", "echo $SECOND; umask; id -un"
    )
    assert run.stdout.split() == ["11", "0002", "jovyan"]
    lines = [re.sub(r"\[.*?\]", "", line) for line in run.stderr.splitlines()]
    assert [line for line in lines if "hooks" not in line and inside in line] == [
        f"INFO Sourcing shell script: {inside}/10-settings.sh",
        f"ERROR {inside}/10-settings.sh has failed, continuing execution",
        f"INFO Running executable: {inside}/20-failing",
        f"ERROR {inside}/20-failing has failed, continuing execution",
        f"INFO Sourcing shell script: {inside}/30-more.sh",
        f"INFO Ignoring non-executable: {inside}/40-text.txt",
    ]


@pytest.mark.parametrize("user", ["1000", "root"])
def test_secrets_are_unset(user: str, images: str) -> None:
    """What only the start is to know is gone in the lab."""
    options = ["--env=JUPYTER_ENV_VARS_TO_UNSET=SECRET,NOT_THERE", "--env=SECRET=1", "--env=OPEN=2"]
    run = said(f"--user={user}", *options, f"pylab:{TAG}", "sh", "-c", "echo ${SECRET-gone} $OPEN")
    assert run.stdout == "gone 2\n"


def test_umask(images: str) -> None:
    """NB_UMASK holds in notebooks."""
    with started("--env=NB_UMASK=007", f"pylab:{TAG}") as container:
        assert health(container) == "healthy"
        assert cell(container, "python3", "import os; print(oct(os.umask(0)))") == "0o7"


def test_child_image(images: str) -> None:
    """What docker-stacks' recipes say in a Dockerfile works: USER ${NB_UID}, pip install, and fix-permissions."""
    tag = f"{PROJECT}-child"
    steps = [
        f"FROM pylab:{TAG}",
        "USER root",
        "RUN mkdir -p /opt/conda/mine/sub && touch /opt/conda/mine/sub/file && fix-permissions ${CONDA_DIR}/mine",
        "USER ${NB_UID}",
        'RUN fix-permissions "/home/${NB_USER}"',
    ]
    build = ["docker", "build", "--quiet", "--tag", tag, "-"]
    subprocess.run(build, input="\n".join(steps), text=True, check=True, capture_output=True)
    try:
        run = said(
            "--user=12345:100", tag, "sh", "-c", "stat -c '%a %g' $CONDA_DIR/mine/sub; echo x >$CONDA_DIR/mine/sub/file"
        )
        assert (run.returncode, run.stdout) == (0, "2775 100\n"), run.stderr
        assert docker("image", "inspect", "--format={{.Config.User}}", tag) == "1000"
    finally:
        docker("image", "rm", tag)


@pytest.mark.parametrize("scheme", [[], ["--env=GEN_CERT=yes"]], ids=["http", "https"])
def test_health_of_a_server_that_hangs(scheme: list[str], images: str) -> None:
    """A server that answers no more is unhealthy, until it goes on."""
    options = [*scheme, "--health-start-period=1s", "--health-interval=1s", "--health-retries=1"]
    with started(*options, f"pylab:{TAG}") as container:
        until(lambda: health(container) == "healthy")
        docker("exec", container, "pkill", "-STOP", "-f", "start-notebook|jupyter")
        until(lambda: health(container) == "unhealthy")
        docker("exec", container, "pkill", "-CONT", "-f", "start-notebook|jupyter")
        until(lambda: health(container) == "healthy")


def test_health_is_cheap(images: str) -> None:
    """A hundred labs on one machine do not keep it busy with their probes."""
    probes = "for _ in {1..50}; do /etc/jupyter/healthcheck.sh || exit; done; times"
    with started(f"pylab:{TAG}") as container:
        assert health(container) == "healthy"
        children = docker("exec", container, "bash", "-c", probes).splitlines()[1]
    seconds = [60 * float(m) + float(s) for m, s in re.findall(r"(\d+)m([\d.]+)s", children)]
    assert 1000 * sum(seconds) / 50 < PROBE


def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition comes true."""
    end = time.monotonic() + HEALTHY_WITHIN
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)
