"""The ways into an image that docker-stacks' users know, each with who one then is and what the log says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from checkout import TAG, complaints, log
from containers import cell, health, started

LIMITS = ("--cap-drop=ALL", "--security-opt=no-new-privileges:true")
AS_ROOT = ("--user=root", "--env=CHOWN_HOME=yes")
READ_ONLY = ("--read-only",)
HOST_HOME = ("--volume={empty}:/home/ada", "--env=HOME=/home/ada", "--workdir=/home/ada")
EMPTY_VOLUME = "--mount=type=volume,destination=/home/jovyan,volume-nocopy"  # root's
UNUSABLE = "no write access to /home/jovyan. "

PIP_INSTALL = """
import getpass, os, subprocess, sys
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "{}"], check=True)
import colleague
print(colleague.greeting, os.getuid(), os.getgid(), getpass.getuser(), os.environ["HOME"])
"""


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
    "OpenShift": Way(  # which has an address in JUPYTER_PORT where a service is called jupyter
        ("--user=1000680000:0", *LIMITS, "--env=JUPYTER_PORT=tcp://10.0.0.1:80"),
        user="1000680000 0 jovyan /home/jovyan",
    ),
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

# Those that most users meet; the others are tried in tests/prove/built.
COMMON = [
    *("as it is", "OpenShift", "a home that is read only", "read only, root", "an empty volume at home, CHOWN_HOME"),
    *("options in the environment", "TLS, port and base URL", "another command", "no entry point"),
    *("Kubeflow", "Apptainer", "root, a user"),
]


def come_in(way: Way, package: Path, tmp_path: Path) -> None:
    """Whichever way somebody starts the lab: it gets healthy, a kernel runs, pip installs, and the log says no more."""
    empty, passwd = tmp_path / "empty", tmp_path / "passwd"
    empty.mkdir()
    empty.chmod(0o777)
    passwd.write_text("root:x:0:0:root:/root:/bin/bash\nada:x:4321:4321::/home/ada:/bin/bash\n")
    options = [option.format(empty=empty, passwd=passwd) for option in way.options]
    with started(*options, f"--volume={package}:/opt/{package.name}:ro", f"pylab:{TAG}", *way.command) as container:
        assert health(container) == "healthy", log(container)
        assert cell(container, "python3", PIP_INSTALL.format(f"/opt/{package.name}")) == f"hello {way.user}"
        wrong = complaints(container)
        assert [line for line in wrong if not way.says or way.says not in line] == []
        assert bool(wrong) == bool(way.says)
