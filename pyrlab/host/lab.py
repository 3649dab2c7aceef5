"""Start, stop and find the labs that compose.yaml defines (make start_pylab, url_rlab, list, tunnel …).

python3 -m pyrlab.host.lab VERB [LAB]
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrlab.host import idmap, machine, owner
from pyrlab.host.docker import COMPOSE, ROOT, docker, drop_image, inspect, last_words, parameter, run_main
from pyrlab.host.online import environment_of, lab_environment
from pyrlab.model.images import labs
from pyrlab.model.problem import Problem

LONGEST = 255  # bytes of a file's name
JOVYAN = (1000, 100)  # uid and gid of the images' own user


@dataclass(frozen=True)
class Running:
    """A lab that runs, here or on the server of a tunnel."""

    name: str
    lab: str
    port: int
    token: str
    files: str

    @classmethod
    def of(cls, container: dict[str, Any]) -> Running:
        """The lab that the engine's description of a container is about."""
        labels = container["Config"]["Labels"]
        settings = dict(entry.partition("=")[::2] for entry in container["Config"]["Env"])
        name = container["Name"].lstrip("/")
        token = settings.get("JUPYTER_TOKEN", "")
        return cls(name, labels["org.pyrlab.lab"], int(labels["org.pyrlab.port"]), token, labels["org.pyrlab.files"])

    def url(self, port: int = 0) -> str:
        """What to open in a browser, at this or another local port."""
        return f"http://127.0.0.1:{port or self.port}/lab?token={self.token}"


def container_name(lab: str) -> str:
    """The name of a lab's container, as in compose.yaml."""
    return f"{parameter('PROJECT', 'pyrlab')}-{lab}"


def running(lab: str) -> Running:
    """The running lab; raises Problem where it does not run."""
    container = owner.container(container_name(lab))
    if not container or not container["State"]["Running"]:
        raise Problem(f"{lab} does not run; start it with make start_{lab}")
    return Running.of(container)


def port_number(name: str) -> int:
    """The port that a parameter names; raises Problem where it has no value."""
    if not parameter(name):
        raise Problem(f"{name} says where a lab listens, and has no value; give it one, as in make {name}=8890 …")
    return int(parameter(name))


def has_service(lab: str) -> bool:
    """Whether compose.yaml has a service for this very lab; the others are its service lab."""
    return f"\n  {lab}:\n" in (ROOT / "compose.yaml").read_text()


def compose(lab: str) -> tuple[str, str]:
    """The project and the service of a lab, as Compose knows it."""
    project = parameter("PROJECT", "pyrlab")
    return (project, lab) if has_service(lab) else (f"{project}-{lab}", "lab")


def ports_of(lab: str) -> dict[str, int]:
    """The ports that a lab is to listen on, by their parameters; raises Problem where that cannot be."""
    if lab not in labs():
        raise Problem(f"{lab} is no lab; the labs are {', '.join(labs())}")
    name = labs()[lab]
    port, tensorboard = port_number(name), port_number("TBPORT")
    if port == tensorboard:
        raise Problem(
            f"{name}={port} is TensorBoard's port (TBPORT); choose another, as in make {name}=8889 start_{lab}"
        )
    return {name: port, "TBPORT": tensorboard} if lab == "pylab" else {name: port}


def check_port(port: int, name: str) -> None:
    """Raise Problem where something listens on `port` of 127.0.0.1 already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return  # the engine may bind what this user may not
        except OSError:
            raise Problem(f"port {port} is in use; choose another, as in make {name}={port + 1} …") from None


def checked_folder() -> Path:
    """The folder to mount at ~/work, whether it is there or not; raises Problem where it cannot be one."""
    path = Path(parameter("FILES")).absolute()
    if any(len(os.fsencode(part)) > LONGEST for part in path.parts):
        raise Problem(f"FILES={path} cannot be made: a name in it has more than {LONGEST} bytes")
    there = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if there == path:
        if path.is_symlink() and not path.exists():
            raise Problem(f"FILES={path} is a link that leads nowhere; name a folder for your notebooks")
        if not path.is_dir():
            raise Problem(f"FILES={path} is no folder; name one for your notebooks")
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise Problem(f"FILES={path} is not readable and writable for you; name another folder")
    elif not there.is_dir():
        raise Problem(f"FILES={path} cannot be made: a part of that path is a file")
    elif not os.access(there, os.W_OK | os.X_OK):
        raise Problem(f"FILES={path} cannot be made: you may not write in {there}")
    return path


def files_folder() -> Path:
    """The same, made if missing."""
    path = checked_folder()
    if not path.is_dir():
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise Problem(f"FILES={path} cannot be made: {error.strerror}") from None
        shutil.copytree(ROOT / "notebooks", path / "samples")
        print(f"made {path} for your notebooks, with pyrlab's samples in it")
    return path


def claim_homes(*names: str) -> None:
    """Make the volumes of labs: of those `names`, and as Compose does whatever it starts, of all that are services."""
    for lab in dict.fromkeys([*names, *filter(has_service, labs())]):
        project, service = compose(lab)
        owner.claim_volume(home_volume(lab), project, f"{service}-home")


def home_volume(lab: str) -> str:
    """The name of the volume with a lab's settings."""
    return f"{parameter('PROJECT', 'pyrlab')}_{lab}-home"


def mount_point(lab: str) -> Path:
    """Where root's notebooks are mounted for `lab` as its own user's."""
    return Path("/run/pyrlab") / container_name(lab)


def share(lab: str, files: Path) -> tuple[Path, str]:
    """The folder that compose mounts, and the UID:GID that the lab runs as.

    What the lab writes there belongs to whoever typed make. Root's folder is shown to jovyan as his own, so
    that the lab need not be root; where the system cannot do that, it is root without any capability.
    """
    if "name=rootless" in docker("info", "--format", "{{.SecurityOptions}}"):
        return files, "0:0"  # a rootless engine maps its user to root
    if os.getuid() == 0:
        idmap.unmount(mount_point(lab))
        try:
            idmap.mount(files, mount_point(lab), *JOVYAN)
        except OSError:
            idmap.unmount(mount_point(lab))
        else:
            return mount_point(lab), "{}:{}".format(*JOVYAN)
    return files, f"{os.getuid()}:{os.getgid()}"


def check(lab: str) -> tuple[int, Path]:
    """The port and the notebooks folder of `lab`; raises Problem where it could not start with its parameters."""
    machine.chosen()
    container = owner.container(container_name(lab))
    published = container["NetworkSettings"]["Ports"].values() if container else []
    own = {int(binding["HostPort"]) for bindings in published for binding in bindings or []}
    needed = ports_of(lab)
    for name, number in needed.items():
        if number not in own:
            check_port(number, name)
    return needed[labs()[lab]], files_folder()


def has_networks(container: dict[str, Any]) -> bool:
    """Whether the networks of a container are there, without which it cannot start; docker network prune takes them."""
    networks = container["NetworkSettings"]["Networks"].values()
    return all(inspect("network", each["NetworkID"]) for each in networks if each["NetworkID"])


def thaw(name: str) -> None:
    """Let a container go on that was frozen with docker pause, and wait until its next health check has seen that."""
    docker("unpause", name)
    deadline = time.monotonic() + 60
    while docker("inspect", "--format", "{{.State.Health.Status}}", name).strip() != "healthy":
        if time.monotonic() > deadline:
            return
        time.sleep(0.5)


def goes_on(container: dict[str, Any], files: Path) -> bool:
    """Whether a lab runs as it is to, over these notebooks and with what this checkout has mounted there."""
    same = Running.of(container).files == str(files) and container["Config"]["Labels"].get(owner.CHECKOUT) == str(ROOT)
    return same and bool(container["State"]["Running"])


def start(lab: str, browse: bool) -> None:
    """Start `lab`, wait until it is healthy, and print where it is."""
    port, files = check(lab)
    container = owner.container(container_name(lab))
    claim_homes(lab)
    token = Running.of(container).token if container else secrets.token_hex(24)
    if container and container["State"]["Paused"]:
        thaw(container_name(lab))
    if container and goes_on(container, files):
        # With what it was started with, it just goes on running.
        environment = environment_of(container) | machine.of(container)
        environment["WORK"], environment["LAB_USER"] = mounted_work(container), container["Config"]["User"]
    else:
        environment = lab_environment() | machine.own()
        if container:
            docker("stop", container_name(lab))
        work, environment["LAB_USER"] = share(lab, files)
        environment["WORK"] = str(work)
    project, service = compose(lab)
    environment |= {"LAB": lab, "LAB_PORT": str(port)}
    environment |= {"FILES": str(files), "JUPYTER_TOKEN": token, **machine.chosen(), **owner.environment()}
    up = ["--project-name", project, "up", "--detach", "--no-build", "--pull", "never", "--wait", "--wait-timeout"]
    command = [*COMPOSE, *up, "120", service]
    if container and not has_networks(container):
        command.append("--force-recreate")
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if container:
        drop_image(container["Image"])  # which a newer one may have replaced while this container held it
    if run.returncode:
        if "Error response from daemon" not in run.stderr:  # else its log is that of the time before
            last_words(container_name(lab))
        raise Problem(f"{lab} did not start: {(run.stderr.strip() or 'see its log above').splitlines()[-1]}")
    found = running(lab)
    print(f"{lab} is ready: {found.url()}")
    print(f"notebooks: {files}   stop: make stop_{lab}")
    if has_desktop():
        if browse:
            webbrowser.open(found.url())
    else:
        print(f"from your laptop: ssh -N -L {port}:127.0.0.1:{port} {ssh_name()}   then open the URL above there")


def mounted_work(container: dict[str, Any]) -> str:
    """The folder of the host that a container has at ~/work."""
    return str(next(mount["Source"] for mount in container["Mounts"] if mount["Destination"] == "/home/jovyan/work"))


def has_desktop() -> bool:
    """Whether a browser started here would be seen."""
    if sys.platform == "darwin":
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def ssh_name() -> str:
    """user@host of this machine, as a laptop would name it."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    return f"{getpass.getuser()}@{connection[2] if len(connection) == 4 else socket.gethostname()}"


def stop(names: list[str]) -> None:
    """Stop labs; their containers, settings and notebooks stay."""
    if not names:
        print("no lab runs")
    for lab in names:
        container = owner.container(container_name(lab))
        if container and container["State"]["Running"]:
            docker("stop", "--time", "15", container_name(lab))
            idmap.unmount(mount_point(lab))
            print(f"{lab} is stopped; make start_{lab} continues where you left")
        else:
            print(f"{lab} does not run")


def list_labs() -> None:
    """Print this user's running labs: name, URL, notebooks, memory."""
    names = docker("ps", *own_labs(owner.name()), "--format", "{{.Names}}").split()
    stats = dict(
        line.split("\t", 1)
        for line in docker("stats", "--no-stream", "--format", "{{.Name}}\t{{.MemUsage}}").splitlines()
    )
    found = [Running.of(container) for name in sorted(names) if (container := inspect("container", name))]
    if not found:
        print(f"no lab runs; start one with {' or '.join(f'make {lab}' for lab in labs())}")
    for lab in found:
        memory = stats.get(lab.name, "unknown").split(" / ")[0]
        print(f"{lab.name}\n  URL        {lab.url()}\n  notebooks  {lab.files}\n  memory     {memory}")


def own_labs(user: str) -> tuple[str, ...]:
    """The options of docker ps for the labs of a user: nobody is shown another's token."""
    return ("--filter", "label=org.pyrlab.lab", "--filter", f"label={owner.USER}={user}")


def tunnel(host: str) -> None:
    """Forward the ports of the labs that run on `host` to this machine, and print their local URLs."""
    if not host:
        raise Problem("make tunnel needs the server, as in make tunnel HOST=user@server")
    ps = " ".join(["docker ps -q", *own_labs("$(id -un)")])
    ids = f'ids=$({ps}) && {{ [ -z "$ids" ] || docker container inspect $ids; }}'
    ssh = ["ssh", *shlex.split(parameter("SSH_OPTIONS"))]
    run = subprocess.run([*ssh, host, ids], stdout=subprocess.PIPE, text=True)
    if run.returncode:
        raise Problem(f"{host} could not be asked for its labs; ssh's own words stand above")
    found = [Running.of(container) for container in json.loads(run.stdout or "[]")]
    if not found:
        raise Problem(f"no lab runs on {host}; start one there with make start_pylab or make start_rlab")
    forwards: list[str] = []
    local = 0
    for lab in sorted(found, key=lambda lab: lab.port):
        local = free_port(max(lab.port, local + 1))  # one that no other lab has been given
        forwards += ["-L", f"127.0.0.1:{local}:127.0.0.1:{lab.port}"]
        print(f"{lab.lab} on {host}: {lab.url(local)}", flush=True)
    print("Ctrl-C ends the tunnel", flush=True)
    command = [*ssh, "-N", "-o", "ExitOnForwardFailure=yes", *forwards, host]
    os.execvp(command[0], command)


def free_port(wanted: int) -> int:
    """`wanted`, or the next port above it that is free on 127.0.0.1."""
    for port in range(wanted, wanted + 100):
        try:
            check_port(port, "PORT")
        except Problem:
            continue
        return port
    raise Problem(f"none of the ports from {wanted} to {wanted + 99} is free on this machine")


def main() -> None:
    """Dispatch; see the module's docstring."""
    verb, names = sys.argv[1], sys.argv[2:]
    match verb:
        case "check":  # before the long work of a build
            for lab in names:
                check(lab)
        case "start" | "open":
            start(names[0], browse=verb == "open")
        case "stop":
            stop(names or [lab for lab in labs() if owner.container(container_name(lab))])
        case "url":
            print(running(names[0]).url())
        case "logs":
            running(names[0])
            os.execvp("docker", ["docker", "logs", "--follow", "--tail", "100", container_name(names[0])])
        case "bash":
            running(names[0])
            terminal = ["--tty"] if sys.stdin.isatty() else []
            os.execvp("docker", ["docker", "exec", "--interactive", *terminal, container_name(names[0]), "bash"])
        case "list":
            list_labs()
        case "tunnel":
            tunnel(parameter("HOST"))
        case _:
            raise Problem(f"there is no verb {verb}")


if __name__ == "__main__":
    run_main(main)
