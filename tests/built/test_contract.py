"""Whatever runs an image of docker-stacks runs pylab and rlab: each way in leads to a lab, or says what to do."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from checkout import PROJECT, TAG, complaints, docker, log
from containers import HEALTHY_WITHIN, ask, cell, health, run_cell, said, started, until
from ways import COMMON, UNUSABLE, WAYS, Way, come_in

PROBE = 10  # milliseconds of CPU

INSTALL_PACKAGES = """
invisible(capture.output(suppressMessages(install.packages("{}", repos = NULL, quiet = TRUE))))
library(colleague)
cat(greeting, system("id -u", intern = TRUE))
"""


@pytest.mark.parametrize("way", COMMON)
def test_ways_in(way: str, images: str, handed_over: dict[str, Path], tmp_path: Path) -> None:
    """Whichever way somebody starts the lab, it works, and the log says no more than it must."""
    come_in(WAYS[way], handed_over["python3"], tmp_path)


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


SERVER = ["python", "-m", "http.server", "--directory=/usr/share/pyrlab"]
NAMED = f"--ServerProxy.servers={json.dumps({'named': {'command': [*SERVER, '{port}'], 'timeout': 60}})}"


@pytest.mark.parametrize("lab", ["pylab", "rlab"])
def test_proxy(lab: str, images: str) -> None:
    """What listens in a lab, or what it is told to start, is at the lab's own URL, for whoever has its token."""
    with started("--env=JUPYTER_TOKEN=token", f"{lab}:{TAG}", NAMED) as container:
        assert health(container) == "healthy", log(container)
        docker("exec", "--detach", container, *SERVER, "9000")
        assert until(lambda: ask(container, "http://127.0.0.1:9000/")[0] == 200, HEALTHY_WITHIN)
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


def test_chown(images: str) -> None:
    """Root's container gives away what was asked for, and writes in the environment of whom it has become."""
    options = ["--env=NB_UID=1010", "--env=NB_GID=101", "--env=CHOWN_EXTRA=/home/jovyan,/opt/conda/bin"]
    script = "stat -c %n:%u:%g ~/.bashrc /opt/conda/bin/jupyter; touch $CONDA_DIR/new && id -G"
    run = said("--user=root", *options, "--env=CHOWN_EXTRA_OPTS=-R", f"pylab:{TAG}", "bash", "-c", script)
    assert run.stdout == "/home/jovyan/.bashrc:1010:101\n/opt/conda/bin/jupyter:1010:101\n101 100\n", run.stderr


@pytest.mark.parametrize("place", ["work", "work/course"])
def test_mounted_work_of_another_user(place: str, images: str, tmp_path: Path) -> None:
    """Who gets a home of another name works in the folder that is mounted, not in a copy of it."""
    (tmp_path / "note").write_text("kept")
    tmp_path.chmod(0o777)
    options = ["--user=root", "--env=NB_USER=ada", f"--volume={tmp_path}:/home/jovyan/{place}"]
    run = said(*options, f"pylab:{TAG}", "bash", "-c", f"id -un; cat ~/{place}/note; echo new >~/{place}/new")
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


def test_settings_that_are_none(images: str) -> None:
    """A variable that a Compose file hands on though nobody has set it, or that is wrong, costs nothing else."""
    with started("--env=NB_UMASK=", "--env=NB_PREFIX=", "--env=JUPYTER_TOKEN=token", f"pylab:{TAG}") as container:
        assert health(container) == "healthy"
        address = docker("inspect", "--format={{.NetworkSettings.IPAddress}}", container)
        assert ask(container, f"http://{address}:8888/api/kernels", "token")[0] == 200
        assert ask(container, f"http://{address}:8888/api/kernels")[0] == 403
    with started("--env=NB_UMASK=octal", f"pylab:{TAG}") as container:
        assert health(container) == "healthy"
        assert "NB_UMASK=octal is no umask" in log(container)


def test_root_runs_nothing_of_the_users(images: str) -> None:
    """The health check of a container of root's runs no program that the user of the lab may have put in its way."""
    with started("--user=root", "--env=GEN_CERT=yes", f"pylab:{TAG}") as container:
        assert health(container) == "healthy"
        plant = "for each in openssl curl; do printf '#!/bin/sh\\ntouch /tmp/ran\\n' >$each; chmod 755 $each; done"
        docker("exec", "--user=1000:100", "--workdir=/opt/venv/bin", container, "sh", "-c", plant)
        docker("exec", container, "/etc/jupyter/healthcheck.sh")
        assert docker("exec", container, "sh", "-c", "ls /tmp/ran 2>/dev/null || echo none") == "none"


def test_root_in_a_folder_of_its_own(images: str) -> None:
    """Who is given up root in a folder that is closed to the user begins at home."""
    run = said("--user=root", "--workdir=/root", f"pylab:{TAG}", "pwd")
    assert (run.stdout, "working in /home/jovyan instead" in run.stderr) == ("/home/jovyan\n", True)


def test_pip_into_a_folder(images: str, handed_over: dict[str, Path]) -> None:
    """Pip installs into a folder that is asked for, whoever runs the container."""
    wheel = handed_over["python3"]
    install = f"pip install --quiet --no-index --disable-pip-version-check --target /tmp/own /srv/{wheel.name}"
    run = said(
        "--user=5000", f"--volume={wheel}:/srv/{wheel.name}:ro", f"pylab:{TAG}", "sh", "-c", f"{install}; ls /tmp/own"
    )
    assert "colleague.py" in run.stdout.split(), run.stderr


def test_r_of_root(images: str) -> None:
    """R that root runs in a container leaves the user's own library to the user."""
    with started(f"rlab:{TAG}") as container:
        assert health(container) == "healthy"
        docker("exec", "--user=0", container, "Rscript", "-e", "1")
        code = "dir.create(Sys.getenv('R_LIBS_USER'), FALSE, TRUE); cat(file.access(.libPaths()[1], 2))"
        assert cell(container, "ir", code) == "0"


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


def test_health_is_cheap(images: str) -> None:
    """A hundred labs on one machine do not keep it busy with their probes."""
    probes = "for _ in {1..50}; do /etc/jupyter/healthcheck.sh || exit; done; times"
    with started(f"pylab:{TAG}") as container:
        assert health(container) == "healthy"
        children = docker("exec", container, "bash", "-c", probes).splitlines()[1]
    user, system = (60 * float(m) + float(s) for m, s in re.findall(r"(\d+)m([\d.]+)s", children))
    assert 1000 * (user + system) / 50 < PROBE
