"""Each image holds what its lists ask for and nothing of its build, and starts for whoever runs it.

An image inherits the checks of the images it starts from: what was there must still be there.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import testinfra
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from testinfra.host import Host

from checkout import ROOT, TAG, docker, log
from containers import health, started
from pyrlab.model import lists

# Every image with all that it is made of, its parents' part first.
IMAGES = {
    "pyrlab-base": ["pyrlab-base"],
    "pylab": ["pyrlab-base", "pylab"],
    "rlab-base": ["pyrlab-base", "rlab-base"],
    "rlab": ["pyrlab-base", "rlab-base", "rlab"],
}
WITH_R = {"rlab-base", "rlab"}

DEBIAN_LISTS = {"pyrlab-base": ["docker/pyrlab-base/debs.txt", "base_debs.txt"], "rlab-base": ["r_debs.txt"]}
PYTHON_LISTS = {"pyrlab-base": ["docker/pyrlab-base/jupyter.txt"], "pylab": ["requirements.txt"]}
R_LISTS = {"rlab": ["r_packages.txt"]}
KERNELS = {"pyrlab-base": {"python3"}, "rlab": {"ir"}}

USERS = ["1000:100", "12345:100"]  # jovyan, and any other that an engine or a cluster may choose
LIMITS = ["--cap-drop=ALL", "--security-opt=no-new-privileges:true"]  # as make starts a lab

SMALLEST_FIGURE = 2048  # bytes; an empty picture is smaller

BUILD_TOOL = re.compile(r"([\w-]+-)?(gcc|cc|g\+\+|c\+\+|gfortran|make|uv)(-\d+)?")
BUILD_FOLDERS = [
    "/pyrlab",
    "/run/secrets",
    "/tmp",
    "/var/tmp",
    "/var/cache/apt",
    "/var/lib/apt/lists",
    "/root/.cache",
    "/home/jovyan/.cache",
]
PRIVATE = re.compile(r"proxy|token|secret|passw(?!d\b)|api_?key|://[^/\s]*@", re.IGNORECASE)
TROUBLE = re.compile(r"^\[[WE] |warning|error|traceback", re.IGNORECASE)

# Modules that need a package which nobody asked for.
OPTIONAL_MODULES = {"adbc_driver_duckdb"}

IMPORT_MODULES = """
import importlib, json, sys
from importlib.metadata import packages_distributions

wanted, optional = map(set, json.loads(sys.argv[1]))
for module, distributions in sorted(packages_distributions().items()):
    names = {name.lower().replace("_", "-").replace(".", "-") for name in distributions}
    if names & wanted and module not in optional:
        wanted -= names
        try:
            importlib.import_module(module)
        except BaseException as error:
            print(f"{module}: {error!r}")
print(*(f"{name}: has no module" for name in wanted), sep="\\n", end="")
"""

LOAD_R_PACKAGES = """
for (name in commandArgs(TRUE))
  tryCatch(
    suppressPackageStartupMessages(library(name, character.only = TRUE)),
    error = function(e) cat(name, ": ", conditionMessage(e), "\\n", sep = "")
  )
"""

MISSING_FILES = '''
import re
from importlib.metadata import distributions
from pathlib import Path

unpacked = [line for listing in Path("/var/lib/dpkg/info").glob("*.list") for line in listing.read_text().splitlines()]
files = [Path(line) for line in unpacked]
files += [Path(file.locate()).resolve() for distribution in distributions() for file in distribution.files or []]
missing = [str(file) for file in files if not file.exists() and not file.is_symlink()]
left_out = re.compile(r"""
    /usr/share/(doc|info|lintian|locale|man|javascript/mathjax/unpacked)/ | .*[.](js|css)[.]map$
    | /usr/lib/R/library/translations/.*/LC_MESSAGES/ | /usr/lib/R/(site-)?library/[^/]+/po/
    | /opt/venv/share/jupyterhub/static/components/
""", re.VERBOSE)
print(*(file for file in missing if not left_out.match(file)), sep="\\n", end="")
'''

# Files with a private key, or closed to others, that no package brings; the last ones are every system's.
PRIVATE_FILES = """
import subprocess
from importlib.metadata import distributions
from pathlib import Path

owned = {line for listing in Path("/var/lib/dpkg/info").glob("*.list") for line in listing.read_text().splitlines()}
owned |= {str(file.locate()) for distribution in distributions() for file in distribution.files or []}
owned |= {"/etc/shadow", "/etc/gshadow", "/etc/passwd-"}
key = "^-----BEGIN ([A-Z]+ )*PRIVATE KEY-----"
for look in (f"-size -9000k -exec grep -lIE '{key}' {{}} +", "! -perm -o=r -size +15c -print"):
    found = subprocess.run(f"find / -xdev -type f {look}", shell=True, capture_output=True, text=True).stdout
    print(*(path for path in found.splitlines() if path not in owned), sep="\\n", end="")
"""

LISTENING = """
import psutil
for connection in psutil.net_connections("inet"):
    if connection.status == psutil.CONN_LISTEN:
        process = psutil.Process(connection.pid)
        print(process.username(), process.ppid(), connection.laddr.ip, connection.laddr.port)
"""

MATPLOTLIB_FIGURE = """
import matplotlib.pyplot as plt
plt.plot([1, 4, 9])
plt.title("é")
plt.savefig("/tmp/python.png")
"""

R_FIGURE = 'png("/tmp/r.png"); plot(1:10, main = "\\u00e9"); invisible(dev.off())'
GGPLOT_FIGURE = 'library(ggplot2); ggsave("/tmp/ggplot.png", qplot(1:10, main = "\\u00e9"), width = 4, height = 4)'


@pytest.fixture(scope="module", params=list(IMAGES))
def image(request: pytest.FixtureRequest, images: str) -> str:
    """The name of each image, once all are built."""
    return str(request.param)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[str]:
    """A container of the image whose server has had time to start."""
    with started(f"{image}:{TAG}") as name:
        health(name)
        yield name


@pytest.fixture(scope="module")
def host(container: str) -> Host:
    """The inside of that container, for its own user."""
    return testinfra.get_host(f"docker://{container}")


@pytest.fixture(scope="module")
def root(container: str) -> Host:
    """The inside of that container, for root."""
    return testinfra.get_host(f"docker://root@{container}")


def test_server_is_healthy(container: str) -> None:
    """Whoever starts the image sees it become healthy."""
    assert health(container) == "healthy", docker("logs", container)


def test_log_is_clean(container: str) -> None:
    """Who reads the log after a start finds no warning and no error in it."""
    lines = log(container).splitlines()
    assert any("is running at" in line for line in lines)
    assert [line for line in lines if TROUBLE.search(line)] == []


def test_user(host: Host) -> None:
    """The user is jovyan with a home and a work folder of his own, as in every Jupyter image."""
    user = host.user()
    assert (user.name, user.uid, user.gid, user.home) == ("jovyan", 1000, 100, "/home/jovyan")
    assert host.check_output("pwd") == "/home/jovyan"
    work = host.file("/home/jovyan/work")
    assert work.is_directory
    assert (work.user, work.group) == ("jovyan", "users")


def test_processes(host: Host) -> None:
    """The server alone listens, on one port, for jovyan and directly below tini, which reaps and passes signals on."""
    assert host.file("/proc/1/comm").content_string.strip() == "tini"
    assert python(host, LISTENING) == "jovyan 1 0.0.0.0 8888"


def test_text_is_utf8(image: str, host: Host) -> None:
    """Letters with accents come out right in the shell, in Python and in R."""
    assert host.check_output("locale charmap") == "UTF-8"
    assert python(host, "print('\\u00e9')") == "é"
    if image in WITH_R:
        assert host.check_output("Rscript -e %s", "cat('\\u00e9', nchar('é'))") == "é 1"


def test_debian_packages(image: str, host: Host) -> None:
    """Every Debian package that a list asks for is installed."""
    names = [entry.split("=")[0] for entry in wanted(DEBIAN_LISTS, image)]
    assert names
    assert [name for name in names if not host.package(name).is_installed] == []


def test_debian_is_consistent(root: Host) -> None:
    """Who installs a further Debian package finds nothing half done."""
    audit = root.run("dpkg --audit")
    assert (audit.rc, audit.stdout) == (0, "")
    check = root.run("apt-get check")
    assert check.rc == 0, check.stderr


# The Python packages of R's images are the layers of pyrlab-base, which are looked at there.
with_own_wheels = pytest.mark.parametrize("image", ["pyrlab-base", "pylab"], indirect=True)


@with_own_wheels
def test_python_packages(image: str, host: Host) -> None:
    """Every requirement of a list is met as pip understands it, versions and extras included."""
    requirements = wanted(PYTHON_LISTS, image)
    names = " ".join(f"'{requirement}'" for requirement in requirements)
    install = host.run(f"pip install --dry-run --no-index {names}")
    assert install.rc == 0, install.stderr
    assert "Would install" not in install.stdout
    assert host.check_output("pip check") == "No broken requirements found."


@with_own_wheels
def test_python_imports(image: str, host: Host) -> None:
    """Every Python package of a list can be imported."""
    names = [canonicalize_name(Requirement(text).name) for text in wanted(PYTHON_LISTS, image)]
    argument = json.dumps([names, sorted(OPTIONAL_MODULES)])
    assert host.check_output("python -c %s %s", IMPORT_MODULES, argument) == ""


@pytest.mark.parametrize("image", [*R_LISTS], indirect=True)
def test_r_packages(image: str, host: Host) -> None:
    """Every R package of a list can be loaded."""
    names = wanted(R_LISTS, image)
    assert host.check_output(f"Rscript -e %s {' '.join(names)}", LOAD_R_PACKAGES) == ""


def test_no_file_is_missing(root: Host) -> None:
    """No file of a Debian package or of a wheel got lost between the layers."""
    assert python(root, MISSING_FILES) == ""


def test_kernels(image: str, host: Host) -> None:
    """The launcher offers Python everywhere and R in rlab."""
    found = json.loads(host.check_output("jupyter kernelspec list --json"))
    assert set(found["kernelspecs"]) == set().union(*(KERNELS.get(part, set()) for part in IMAGES[image]))


@with_own_wheels
def test_singleuser(host: Host) -> None:
    """A JupyterHub finds the program that it starts for its users."""
    assert re.match(r"\d+\.\d+", host.check_output("jupyterhub-singleuser --version"))


def test_terminal(host: Host) -> None:
    """A terminal of the lab, which is a login shell, has the same Python as a notebook."""
    assert host.check_output("bash -lc 'command -v python pip jupyter'").split() == [
        "/opt/venv/bin/python",
        "/opt/venv/bin/pip",
        "/opt/venv/bin/jupyter",
    ]


def test_fonts(host: Host) -> None:
    """Figures and exports have fonts to choose from."""
    assert host.check_output("fc-list")


def test_figures(image: str, host: Host) -> None:
    """Scripts without a screen draw figures."""
    if "pylab" in IMAGES[image]:
        python(host, MATPLOTLIB_FIGURE)
        assert_figure(host, "/tmp/python.png")
    if "rlab-base" in IMAGES[image]:
        host.check_output("Rscript -e %s", R_FIGURE)
        assert_figure(host, "/tmp/r.png")
    if "rlab" in IMAGES[image]:
        host.check_output("Rscript -e %s", GGPLOT_FIGURE)
        assert_figure(host, "/tmp/ggplot.png")


def test_no_build_tools(image: str, host: Host) -> None:
    """Nobody downloads compilers and other tools of the build, nor a CUDA that few can use."""
    commands = {
        command for command in host.check_output("bash -c 'compgen -c'").split() if BUILD_TOOL.fullmatch(command)
    }
    assert commands == ({"make"} if image in WITH_R else set())  # install.packages() wants it
    assert [name for name in host.pip.get_packages(pip_path="pip") if name.startswith("nvidia")] == []


def test_nothing_remains_of_the_build(image: str) -> None:
    """Nobody downloads what only the build needed: a fresh container has no such file."""
    folders = " ".join(BUILD_FOLDERS)
    find = f"ls -d /pyrlab; find {folders} ! -type d ! -empty; find /opt /usr -name '*.whl' -not -path '*/ensurepip/*'"
    command = ["run", "--rm", "--user=root", "--entrypoint=sh", f"{image}:{TAG}", "-c", f"{find}; true"]
    assert docker(*command).splitlines() == []


@pytest.mark.parametrize("image", ["pylab", "rlab"], indirect=True)  # which have all that the others have
def test_no_private_key(image: str) -> None:
    """Who pulls the image shares no secret with all others who do: no private key, and nothing closed, is in it."""
    assert docker("run", "--rm", "--user=0", "--entrypoint=python", f"{image}:{TAG}", "-c", PRIVATE_FILES) == ""


def test_nothing_private_remains(image: str, host: Host) -> None:
    """Who gets the image learns nothing of the network it was built in, and is not bound to it."""
    config = json.loads(docker("image", "inspect", f"{image}:{TAG}"))[0]["Config"]
    history = docker("history", "--no-trunc", "--format={{.CreatedBy}} {{.Comment}}", f"{image}:{TAG}")
    steps = [
        line for line in history.splitlines() if not re.match("(Debian|Python|R): ", line)
    ]  # but names of packages
    assert PRIVATE.findall(json.dumps([config, steps])) == []
    assert host.check_output("pip config list") == ""
    assert PRIVATE.findall(host.check_output("apt-config dump")) == []


def test_other_command(image: str) -> None:
    """Who gives the image another command gets this one, in place of the start script, and its exit status."""
    assert docker("run", "--rm", f"{image}:{TAG}", "python", "--version").startswith("Python 3.")
    container = docker("run", "--detach", f"{image}:{TAG}", "sh", "-c", "echo $PPID; exit 7")
    try:
        assert (docker("wait", container), docker("logs", container)) == ("7", "1")
    finally:
        docker("rm", "--force", container)


@pytest.mark.parametrize("image", ["pylab", "rlab"], indirect=True)  # which have all that the others have
@pytest.mark.parametrize("user", USERS)
def test_any_user(user: str, image: str, handed_over: dict[str, Path]) -> None:
    """Whatever uid runs the lab has a name, may write at home and may install a package."""
    wheel = handed_over["python3"]
    mounted = f"/srv/{wheel.name}"
    script = (
        "id -un && touch ~/new ~/work/new && "
        f"pip install --quiet --no-index --disable-pip-version-check {mounted} && "
        "python -c 'import colleague; print(colleague.greeting, colleague.__file__)'"
    )
    options = [f"--user={user}", *LIMITS, f"--volume={wheel}:{mounted}:ro"]
    command = ["docker", "run", "--rm", *options, f"{image}:{TAG}", "bash", "-c", script]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert [line for line in run.stderr.splitlines() if not line.startswith("INFO[")] == []
    assert re.fullmatch(r"jovyan\nhello /opt/venv/lib/python3\.\d+/site-packages/colleague\.py\n", run.stdout)


def wanted(sources: dict[str, list[str]], image: str) -> list[str]:
    """What the lists of an image and of its parents ask for."""
    paths = [ROOT / path for part in IMAGES[image] for path in sources.get(part, [])]
    return [line.text for path in paths for line in lists.read(path)]


def python(host: Host, script: str) -> str:
    """What a Python script prints in the container."""
    return str(host.check_output("python -c %s", script))


def assert_figure(host: Host, path: str) -> None:
    """Fail unless the file in the container is a picture with something on it."""
    figure = host.file(path)
    assert figure.content.startswith(b"\x89PNG")
    assert figure.size > SMALLEST_FIGURE
