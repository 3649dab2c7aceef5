"""What is wrong with a machine or a checkout is said by make doctor, and stops every other target with one sentence."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bare import copy_parts, files_of, make_path, type_make, write_script
from checkout import ROOT, git
from pyrlab.host import doctor
from pyrlab.host.project import Project
from pyrlab.host.ready import checkout_fault
from servers import free_port

NOWHERE = "tcp://127.0.0.1:1"
CLIENT = pytest.mark.skipif(shutil.which("docker") is None, reason="these need a docker client, but no engine")
TARGETS = ("start_pylab", "lock", "engine", "list", "stop_rlab", "clean", "stop_proxies")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that a test may spoil."""
    return copy_parts(tmp_path / "pyrlab")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[str]:
    """A PATH on which an engine waits to be started by mistake, and is not."""
    (tmp_path / "bin").mkdir()
    write_script(tmp_path / "bin/dockerd", f"#!/bin/sh\ntouch {tmp_path}/started\n")
    yield f"{tmp_path}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert not (tmp_path / "started").exists()


def check(checkout: Path, sentence: str, *targets: str, **environment: str) -> None:
    """Make doctor says what is wrong and what mends it; each of the targets says the same, and nothing is made."""
    before = files_of(checkout)
    ports = {name: str(free_port()) for name in ("PORT", "RPORT", "PYRPORT", "TBPORT")}
    doctor = type_make(checkout, "doctor", **ports, **environment)
    found, _, mend = sentence.partition("; ")
    assert re.search(rf"^--  \S+ +{re.escape(found)}\n +mend: {re.escape(mend)}$", doctor.stdout, re.MULTILINE), (
        doctor.stdout + doctor.stderr
    )
    assert doctor.returncode != 0
    for target in targets:
        run = type_make(checkout, target, **environment)
        assert run.stderr.splitlines()[0] == f"pyrlab: {sentence}", target
        assert run.returncode != 0, target
    assert files_of(checkout) == before


@CLIENT
def test_wrong_address(checkout: Path, started: str) -> None:
    """Where DOCKER_HOST leads nowhere, it is named, and no engine is started beside the one that it should name."""
    mend = "correct it, or for this machine's own engine type: unset DOCKER_HOST"
    sentence = f"no engine answers at DOCKER_HOST={NOWHERE}; {mend}"
    check(checkout, sentence, *TARGETS, DOCKER_HOST=NOWHERE, PATH=started)


@CLIENT
def test_context_without_an_engine(
    checkout: Path, started: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Docker Desktop was removed, or does not run, its context is named with the way back."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    address = f"unix://{tmp_path}/desktop.sock"
    create = ["docker", "context", "create", "desktop-linux", f"--docker=host={address}"]
    subprocess.run(create, check=True, capture_output=True)
    subprocess.run(["docker", "context", "use", "desktop-linux"], check=True, capture_output=True)
    mend = "start that one, or for this machine's own engine type: docker context use default"
    sentence = f"no engine answers in the docker context desktop-linux ({address}); {mend}"
    check(checkout, sentence, "build", "list", PATH=started)


@CLIENT
def test_context_that_is_gone(checkout: Path, started: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context that is in use but is there no more is named, wherever it was chosen."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "desktop-linux"}))
    sentence = "docker uses the context desktop-linux, which does not exist; for this machine's own engine type: {}"
    check(checkout, sentence.format("docker context use default"), "engine-ready", "url_pylab", PATH=started)
    typed = "unset DOCKER_CONTEXT; docker context use default"
    check(checkout, sentence.format(typed), "engine-ready", "stop", DOCKER_CONTEXT="desktop-linux", PATH=started)


def test_no_docker_command(checkout: Path, tmp_path: Path) -> None:
    """A machine without docker is told what gets it, by what only looks, too."""
    path = str(make_path(tmp_path / "bin"))
    for target in ("list", "stop_pylab", "url_pylab", "clean"):
        said = type_make(checkout, target, PATH=path).stderr
        assert "there is no docker command; " in said, target
    doctor = type_make(checkout, "doctor", PATH=path).stdout
    assert re.search(
        r"^--  engine +.*there is no docker command\n +mend: (make engine |install docker-cli)", doctor, re.MULTILINE
    )


def test_windows_line_ends(checkout: Path) -> None:
    """A checkout from Windows is known as such, though none of its scripts run; what is said mends it."""
    git(checkout, "init", "--quiet")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message=all")
    for path in files_of(checkout):
        if (checkout / path).is_file() and not path.startswith(".git"):
            content = (checkout / path).read_bytes()
            (checkout / path).write_bytes(content.replace(b"\n", b"\r\n"))
    found = r"docker/\S+ has Windows' line ends \(CRLF\), with which nothing runs in a container"
    for target in ("engine-ready", ".venv/ready"):
        said = type_make(checkout, target).stderr
        assert re.match(rf"pyrlab: {found}; git grep ", said), target
    said = type_make(checkout, "doctor", DOCKER_HOST=NOWHERE).stdout
    doctor = re.search(rf"^--  checkout +{found}\n +mend: (.*) gives every file", said, re.MULTILINE)
    assert doctor
    subprocess.run(doctor[1], shell=True, cwd=checkout, check=True)
    assert "CRLF" not in type_make(checkout, "doctor", DOCKER_HOST=NOWHERE).stdout
    assert git(checkout, "status", "--porcelain") == ""


def test_data_of_an_own_image(project: Project) -> None:
    """What an image of one's own brings along may have any line ends, and bytes that look like them."""
    (project.root / "docker/course/data").mkdir(parents=True)
    (project.root / "docker/course/Dockerfile").write_text("FROM packages\nCOPY docker/course/data /srv/data\n")
    for name, content in {"logo.png": b"\x89PNG\r\n\x1a\n", "marks.csv": b"name,mark\r\nada,1\r\n"}.items():
        (project.root / "docker/course/data" / name).write_bytes(content)
    assert checkout_fault(project) is None


def test_checkout_on_windows(tmp_path: Path) -> None:
    """Git of Windows, which turns line ends round by itself, leaves those of a checkout alone."""
    for name in ("Makefile", "requirements.txt", ".gitattributes", "pyrlab/host/engine.sh"):
        (tmp_path / "origin" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / "origin" / name)
    git(tmp_path / "origin", "init", "--quiet")
    git(tmp_path / "origin", "add", ".")
    git(tmp_path / "origin", "commit", "--quiet", "--message=all")
    git(tmp_path, "clone", "--quiet", "--config=core.autocrlf=true", "origin", "copy")
    assert (
        b"\r" not in (tmp_path / "copy/pyrlab/host/engine.sh").read_bytes() + (tmp_path / "copy/Makefile").read_bytes()
    )


@pytest.fixture
def powerless(tmp_path: Path) -> str:
    """A PATH whose make is stopped by the modes of files, as root is not."""
    (tmp_path / "bin").mkdir()
    less = "" if os.getuid() else "setpriv --bounding-set=-dac_override,-dac_read_search "
    write_script(tmp_path / "bin/make", f'#!/bin/sh\nexec {less}{shutil.which("make")} "$@"\n')
    return f"{tmp_path}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write in a folder."""
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


def test_read_only(checkout: Path, powerless: str) -> None:
    """Who may not write in a checkout is told before anything is tried."""
    with read_only(checkout):
        sentence = f"{checkout} is read-only, or not yours to write in; clone pyrlab where you may write"
        check(checkout, sentence, "engine-ready", ".venv/ready", DOCKER_HOST=NOWHERE, PATH=powerless)


def test_folder(checkout: Path, tmp_path: Path, powerless: str) -> None:
    """A folder that could not be that of the notebooks is told before a lab is started."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "closed").mkdir()
    wrong = {
        "file": "is no folder; name one for your notebooks",
        "file/notes": "cannot be made: a part of that path is a file",
        "link": "is a link that leads nowhere; name a folder for your notebooks",
        "long" * 64: "cannot be made: a name in it has more than 255 bytes",
        "closed": "is not readable and writable for you; name another folder",
        "closed/notes": f"cannot be made: you may not write in {tmp_path}/closed",
    }

    def doctor(name: str) -> str:
        given = {"FILES": f"{tmp_path}/{name}", "DOCKER_HOST": NOWHERE, "PATH": powerless}
        return type_make(checkout, "doctor", **given).stdout

    with read_only(tmp_path / "closed"):
        for name, said in wrong.items():
            assert f"mend: FILES={tmp_path}/{name} {said}\n" in doctor(name), name
    assert f"ok  FILES        {tmp_path}/new/notes (will be made)\n" in doctor("new/notes")


def test_ports(checkout: Path, started: str) -> None:
    """A port that something has is told, of TensorBoard, too; where no engine can be asked, nobody is accused."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        doctor = type_make(checkout, "doctor", TBPORT=str(port), DOCKER_HOST=NOWHERE, PATH=started).stdout
        assert f"ok  TBPORT       {port} is in use, perhaps by pylab\n" in doctor


def test_settings(checkout: Path, tmp_path: Path) -> None:
    """What a lab could not be given is told before one is started, with what mends it; and what it can, is shown."""
    (tmp_path / "certificate").write_text("DER")
    correct = "correct it where it comes from: make, local.mk or the environment"
    given = {"CACERT": f"{tmp_path}/certificate", "TZ": "berlin", "SHM": "2g", "DOCKER_HOST": NOWHERE}
    said = type_make(checkout, "doctor", **given).stdout
    assert re.search(
        rf"^--  CACERT +CACERT=\S+/certificate has no certificate in PEM .*\n +mend: {correct}$", said, re.MULTILINE
    )
    assert re.search(r"^--  TZ +TZ=berlin is no name .*\n +mend: did you mean Europe/Berlin\?$", said, re.MULTILINE)
    said = type_make(checkout, "doctor", **{**given, "CACERT": f"{tmp_path}/nothing", "TZ": "UTC"}).stdout
    assert re.search(
        rf"^--  CACERT +CACERT=\S+/nothing cannot be read: No such file .*\n +mend: {correct}$", said, re.MULTILINE
    )
    assert "ok  TZ           UTC\nok  SHM          2g\n" in said


def test_old_python(checkout: Path) -> None:
    """Whatever is typed, a Python that is too old is named with what it should be."""
    first = (checkout / "pyrlab/__init__.py").read_text()
    ast.parse(first, feature_version=(3, 3))
    (checkout / "pyrlab/__init__.py").write_text(
        first.replace("import sys\n", "import sys\n\nsys.version_info = (3, 9, 6)\n")
    )
    sentence = f"pyrlab: pyrlab needs Python 3.11 or later; this is 3.9.6 ({sys.executable}); "
    for target in ("help", "doctor", "list", "build_pylab", ".venv/ready"):
        run = type_make(checkout, target)
        assert run.stderr.startswith(sentence), target
        assert run.returncode != 0
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        ("open('/nowhere/at/all', 'w')", "/nowhere/at/all cannot be used: No such file or directory"),
        ("Path('/dev/full').write_text('much')", "No space left on device; df -h shows which disk is full"),
        ("shutil.copytree('pyrlab', '/dev/null/x')", "/dev/null/x cannot be used: Not a directory"),
        ("subprocess.run(['ssh-of-no-kind'])", "ssh-of-no-kind cannot be used: No such file or directory"),
        ("raise EOFError", ""),
    ],
)
def test_no_traceback(work: str, sentence: str) -> None:
    """What the system refuses is one sentence with the file and the reason."""
    imports = "import shutil, subprocess\nfrom pathlib import Path\nfrom pyrlab.host.project import run_main"
    program = f"{imports}\ndef work(project):\n    {work}\nrun_main(work)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.stderr == (f"pyrlab: {sentence}\n" if sentence else "")
    assert run.returncode != 0


def test_a_proxy_that_no_container_finds(project: Project) -> None:
    """A proxy that answers here alone is named as what every build refuses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        [found] = doctor.proxies(replace(project, environment={"https_proxy": address}))
    assert found.found == f"{address} answers"
    assert found.mend.endswith("in a container localhost is the container")
