"""An engine is installed and started only where there is none, and where it may be."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bare import make_path, write_script
from checkout import ROOT
from pyrlab.host import faults
from pyrlab.host.engine import Engine

BOTH = [{"Name": "buildx", "Version": "v0.13.1"}, {"Name": "compose", "Version": "v2.26.1"}]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PATH of a machine without an engine, and without its socket."""
    folder = make_path(tmp_path / "bin", "cat", "sleep", "test", "timeout", "true", "uname")
    monkeypatch.setattr(faults, "SOCKET", str(tmp_path / "docker.sock"))
    return folder


def fault(path: Path, **environment: str) -> faults.Finding:
    """What is wrong with the engine of that machine."""
    found = Engine(path, {"PATH": str(path), **environment}).fault()
    assert found
    return found


def illness(info: dict[str, Any], **environment: str) -> faults.Finding | None:
    """What is wrong with an engine that answers, in the environment of whoever asks."""
    return faults.illness(Engine(Path(), environment), info)


def test_nothing_there(path: Path) -> None:
    """Where there is nothing at all, an engine may be installed."""
    found = fault(path)
    assert found.absent
    assert str(found) == "there is no docker command; make engine installs and starts one on Debian and Ubuntu"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ENGINE", "external", "ENGINE=external forbids to install or start one here: check DOCKER_HOST and "),
        ("DOCKER_HOST", "ssh://server", "DOCKER_HOST names an engine elsewhere: install its client, see "),
    ],
)
def test_not_to_be_installed(path: Path, name: str, value: str, said: str) -> None:
    """Where an engine is elsewhere, none is installed here."""
    found = fault(path, **{name: value})
    assert not found.absent
    assert found.mend.startswith(said)


def test_another_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS nothing is installed, and what people have there is named."""
    monkeypatch.setattr("sys.platform", "darwin")
    found = fault(path)
    assert not found.absent
    assert found.mend.startswith("start Docker Desktop or what else you have, or install one, see https://")


def test_nobody_is_asked_of_nothing(path: Path) -> None:
    """Where images.toml has no lab, there is nothing to be said of labs."""
    assert Engine(path, {"PATH": str(path)}).described("container", []) == []


def test_own_rootless_engine(path: Path, tmp_path: Path) -> None:
    """Where docker looks for root's engine, a user whose own runs is told its address, and none is installed."""
    script = f"""#!/bin/sh\nif [ "$1" = context ]; then echo default unix://{tmp_path}/docker.sock; fi\n"""
    write_script(path / "docker", script)
    (tmp_path / "run").mkdir()
    own = f"{tmp_path}/run/docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(own)
        listener.listen()
        found = fault(path, XDG_RUNTIME_DIR=f"{tmp_path}/run")
    assert not found.absent
    assert found.mend == f"docker context create rootless --docker host=unix://{own}; docker context use rootless"


def test_podman(path: Path) -> None:
    """Where docker is another name of Podman's, nothing is started, and what is missing is named."""
    write_script(path / "docker", """#!/bin/sh\necho '{"host": {"os": "linux"}, "version": {"Version": "5.4.2"}}'\n""")
    found = fault(path)
    assert not found.absent
    assert str(found).startswith(
        "the docker command is Podman's, which has no Buildx to build with; install Docker as "
    )


@pytest.mark.parametrize(
    ("plugins", "said"),
    [
        (BOTH[1:], "docker has no Buildx; install docker-buildx, or of Docker's own packages docker-buildx-plugin"),
        (BOTH[:1], "docker has no Compose; install docker-compose, on Ubuntu docker-compose-v2, or of Docker's own "),
        ([], "docker has no Buildx; "),
    ],
)
def test_parts_missing(plugins: list[dict[str, str]], said: str) -> None:
    """A client without Buildx or Compose is told which package has it."""
    info = {"ServerVersion": "28.5.2", "ClientInfo": {"Plugins": plugins}}
    assert str(illness(info)).startswith(said)


def test_old_buildx() -> None:
    """A Buildx that could build nothing is told before one tries."""
    plugins = [{"Name": "buildx", "Version": "v0.10.4"}, BOTH[1]]
    info = {"ServerVersion": "28.5.2", "ClientInfo": {"Plugins": plugins}}
    assert str(illness(info)) == "Buildx 0.10.4 is too old; upgrade to 0.13 or later"


def test_nowhere_for_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home in which Buildx cannot write is told, with what Buildx takes instead."""
    info = {"ServerVersion": "28.5.2", "ClientInfo": {"Plugins": BOTH}}
    (tmp_path / "home").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    said = f"Buildx keeps its settings in {tmp_path}/home/.docker/buildx, where you may not write; BUILDX_CONFIG names "
    assert str(illness(info)).startswith(said)
    assert illness(info, BUILDX_CONFIG=str(tmp_path / "buildx")) is None


def test_engine_elsewhere() -> None:
    """An engine on another machine is not blamed for what this one lacks."""
    info = {"ServerVersion": "28.5.2", "Name": "elsewhere", "DockerRootDir": "/", "ClientInfo": {"Plugins": BOTH}}
    assert illness(info) is None


def run_script(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the script that installs, as make does."""
    environment = {"PATH": str(path)}
    return subprocess.run(
        [ROOT / "pyrlab/host/engine.sh"], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def test_no_root(path: Path) -> None:
    """Who has neither root nor sudo reads how to get an engine elsewhere, and nothing is tried."""
    write_script(path / "id", "#!/bin/sh\necho 1000\n")
    run = run_script(path)
    said = "no container engine answers; install or start one as https://docs.docker.com/engine/install/ says"
    assert (run.returncode, run.stderr) == (1, f"pyrlab: {said}, then try again\n")


BUILD_CACHE = (
    "pyrlab: the engine gives up looking through its build cache, which engines before 27.4 do where it has many "
    "layers (moby/moby#48569); the cache is removed, the images stay\n"
)
LEASES = ("06y3rdtwyr4k3zxxhdlz17g5r", "06y3rdtwyr4k3zxxhdlz17g5r-variants")  # as BuildKit names its own


@pytest.fixture
def ending(path: Path, tmp_path: Path) -> Path:
    """PATH of a machine whose engine is absent, and ends when it is started; what root would do there is written."""
    write_script(path / "id", "#!/bin/sh\necho 0\n")
    write_script(path / "docker", f"#!/bin/sh\ntest -e {tmp_path}/started\n")
    write_script(path / "setsid", f'#!/bin/sh\necho start >>{tmp_path}/done\nexec "$@"\n')
    (path / "sh").unlink()  # which writes, as tail reads, the log of this machine's engine
    write_script(path / "sh", f'#!/bin/sh\nexec /bin/sh "$1" "$2" {tmp_path}/log\n')
    write_script(path / "tail", f"#!/bin/sh\nexec /usr/bin/tail -n 1 {tmp_path}/log\n")
    write_script(path / "rm", f"#!/bin/sh\necho rm $* >>{tmp_path}/done; : >{tmp_path}/removed\n")
    names = "\\n".join([*LEASES, "a-pull-under-way"])
    release = f"shift 6; echo release $* >>{tmp_path}/done"
    write_script(path / "ctr", f"#!/bin/sh\ncase $* in *list*) printf '{names}\\n' ;; *) {release} ;; esac\n")
    for tool in ("awk", "sed", "xargs"):
        (path / tool).symlink_to(f"/usr/bin/{tool}")
    return path


def ends_of(path: Path, words: str, *, for_good: bool) -> None:
    """Let an engine end with these words; unless it is for good, until its build cache is gone."""
    folder = path.parent
    healthy = "false" if for_good else f"test -e {folder}/removed"
    script = f"if {healthy}; then : >{folder}/started; exec sleep 10; fi; echo {words} >&2; exit 1"
    write_script(path / "dockerd", f"#!/bin/sh\n{script}\n")


without_systemd = pytest.mark.skipif(
    not Path("/etc/debian_version").exists() or Path("/run/systemd/system").exists(),
    reason="this needs Debian or Ubuntu without systemd",
)


@without_systemd
def test_engine_that_ends(ending: Path, tmp_path: Path) -> None:
    """An engine that ends is not started again, and what it ends of is said."""
    ends_of(ending, "failed to start daemon: no such thing", for_good=True)
    run = run_script(ending)
    said = "pyrlab: the engine ends as soon as it is started: failed to start daemon: no such thing\n"
    assert (run.returncode, said in run.stderr) == (1, True)
    assert (tmp_path / "done").read_text() == "start\n"


@without_systemd
def test_engine_that_ends_of_its_cache(ending: Path, tmp_path: Path) -> None:
    """One whose build cache has too much to look through is started without it, and what that held is let go."""
    ends_of(ending, "context deadline exceeded", for_good=False)
    run = run_script(ending)
    assert (run.returncode, BUILD_CACHE in run.stderr, "ready" in run.stderr) == (0, True, True), run.stderr
    removed = ["rm -r /var/lib/docker/buildkit", "start", f"release {' '.join(LEASES)}"]
    assert (tmp_path / "done").read_text().splitlines() == ["start"] * 3 + removed


@without_systemd
def test_engine_that_always_ends(ending: Path, tmp_path: Path) -> None:
    """Where that does not help either, it is given up."""
    ends_of(ending, "context deadline exceeded", for_good=True)
    run = run_script(ending)
    assert run.returncode == 1
    assert (tmp_path / "done").read_text().count("start") == 4
