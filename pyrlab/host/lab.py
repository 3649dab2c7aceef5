"""Start, stop and find the labs that compose.yaml defines (make start_pylab, url_rlab, list, tunnel …).

python3 -m pyrlab.host.lab VERB [LAB]
"""

from __future__ import annotations

import json
import os
import platform
import re
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
from urllib.parse import urlsplit

from pyrlab.host import idmap, machine, owner, parameters
from pyrlab.host.engine import Engine
from pyrlab.host.online import HANDED_ON, environment_of, lab_environment
from pyrlab.host.project import Project, run_main
from pyrlab.model.problem import Problem

LONGEST = 255  # bytes of a file's name
# The images' own user, but with a group that no user of this machine has: one with both could read the lab's /proc.
JOVYAN = (1000, 0)
WORK = "/home/jovyan/work"  # where his notebooks are


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
        return cls(name, labels[owner.LAB], int(labels["org.pyrlab.port"]), token, labels["org.pyrlab.files"])

    def url(self, port: int = 0) -> str:
        """What to open in a browser, at this or another local port."""
        return f"http://127.0.0.1:{port or self.port}/lab?token={self.token}"


@dataclass(frozen=True)
class Lab:
    """A lab of images.toml, be it started or not."""

    project: Project
    name: str

    @property
    def container_name(self) -> str:
        """The name of its container, as in compose.yaml."""
        return f"{self.project.parameter('PROJECT')}-{self.name}"

    @property
    def container(self) -> dict[str, Any] | None:
        """What the engine knows of that, None where there is none."""
        return owner.inspect(self.project, "container", self.container_name)

    @property
    def home(self) -> str:
        """The name of the volume with its settings."""
        return f"{self.project.parameter('PROJECT')}_{self.name}-home"

    @property
    def mount_point(self) -> Path:
        """Where root's notebooks are mounted as its own user's."""
        return idmap.PLACE / self.container_name

    @property
    def is_service(self) -> bool:
        """Whether compose.yaml has a service for this very lab; the others are its service lab."""
        return f"container_name: ${{PROJECT:-pyrlab}}-{self.name}\n" in (self.project.root / "compose.yaml").read_text()

    @property
    def compose(self) -> tuple[str, str]:
        """The project and the service, as Compose knows it."""
        return (self.project.parameter("PROJECT"), self.name) if self.is_service else (self.container_name, "lab")

    def running(self) -> Running:
        """How it runs; raises Problem where it does not."""
        container = self.container
        if not container or not container["State"]["Running"]:
            raise Problem(f"{self.name} does not run; start it with make start_{self.name}")
        return Running.of(container)

    def ports(self) -> dict[str, int]:
        """The ports that it is to listen on, its own first, by their parameters; raises Problem where it cannot."""
        own, found = self.project.table.labs[self.name], {}
        for name in (own, "TBPORT"):
            if not (port := parameters.unquoted(self.project.parameter(name))):
                given = f"give it one, as in make {name}=8890 … or, in local.mk, export {name} = 8890"
                raise Problem(f"{name} says where a lab listens, and has no value; {given}")
            if problem := parameters.wrong_with_port(name, port):
                raise Problem(problem)
            found[name] = int(port)
        if found[own] == found["TBPORT"]:
            other = f"choose another, as in make {own}=8889 start_{self.name}"
            raise Problem(f"{own}={found[own]} is TensorBoard's port (TBPORT); {other}")
        return found if self.name == "pylab" else {own: found[own]}

    def check(self) -> tuple[int, Path]:
        """The port and the notebooks folder; raises Problem where it could not start with its parameters."""
        machine.chosen(self.project)
        if (address := self.project.engine.context[1]).startswith("ssh:"):
            place = urlsplit(address)
            host = f"ssh://{place.netloc}" if place.port else place.netloc
            there = f"the engine is on another machine ({address}), which has neither your notebooks nor this port"
            raise Problem(f"{there}; type make there, and here make tunnel HOST={host}")
        unclaimed(self.project, self)
        container = self.container
        published = container["NetworkSettings"]["Ports"].values() if container else []
        own = {int(binding["HostPort"]) for bindings in published for binding in bindings or []}
        needed = self.ports()
        for name, number in needed.items():
            if number not in own:
                check_port(self.project.engine, number, name)
        return next(iter(needed.values())), files_folder(self.project)

    def share(self, files: Path) -> tuple[Path, str]:
        """The folder that compose mounts, and the UID:GID that the lab runs as.

        What the lab writes there belongs to whoever typed make. Root's folder is shown to jovyan as his own, so
        that the lab need not be root; where the system cannot do that, it is root without any capability.
        """
        if self.project.engine.rootless:
            return files, "0:0"
        if os.getuid() == 0:
            idmap.unmount(self.mount_point)
            try:
                idmap.mount(files, self.mount_point, *JOVYAN)
            except OSError:
                idmap.unmount(self.mount_point)
            else:
                return self.mount_point, "{}:{}".format(*JOVYAN)
        return files, f"{os.getuid()}:{os.getgid()}"

    def surroundings(self, container: dict[str, Any] | None, files: Path) -> dict[str, str]:
        """What Compose is told of machine and user; a lab that runs with something else is stopped."""
        project = self.project
        labels = container["Config"]["Labels"] if container else {}
        same = labels.get("org.pyrlab.files") == str(files) and labels.get(owner.CHECKOUT) == str(project.root)
        if container and container["State"]["Running"] and same:
            # With what it was started with, it just goes on running.
            work = next(mount["Source"] for mount in container["Mounts"] if mount["Destination"] == WORK)
            own = {"WORK": work, "LAB_USER": container["Config"]["User"]}
            before, now = environment_of(project, container), lab_environment(project)
            if any(before.get(name) != now.get(name) for name in HANDED_ON):
                others = f"make stop_{self.name} start_{self.name} gives it those of now"
                print(f"{self.name} runs on with the proxies and certificates that it was started with; {others}")
            return before | machine.of(container) | own
        found = lab_environment(project) | machine.own(project.engine)
        if container:
            project.engine.run("stop", self.container_name)
        folder, user = self.share(files)
        return found | {"WORK": str(folder), "LAB_USER": user}

    def start(self, browse: bool) -> None:
        """Start it, wait until it is healthy, and print where it is."""
        project, engine, name = self.project, self.project.engine, self.container_name
        port, files = self.check()
        container = self.container
        since = container["State"]["StartedAt"] if container and container["State"]["Running"] else ""
        claim_homes(project, self)
        token = Running.of(container).token if container else secrets.token_hex(24)
        if container and container["State"]["Paused"]:
            thaw(engine, name)
        environment = self.surroundings(container, files) | machine.chosen(project)
        environment |= {"LAB": self.name, "LAB_PORT": str(port), "FILES": str(files), "JUPYTER_TOKEN": token}
        environment |= {"OWNER_USER": owner.name(), "OWNER_CHECKOUT": str(project.root)}
        prefix, service = self.compose
        up = f"up --detach --no-deps --no-build --pull never --wait --wait-timeout 120 {service}"
        networks = container["NetworkSettings"]["Networks"].values() if container else ()
        if not all(engine.inspect("network", each["NetworkID"]) for each in networks if each["NetworkID"]):
            up += " --force-recreate"  # docker network prune has taken one, without which it cannot start
        run = engine.compose(prefix, up, environment)
        if container:
            engine.drop_image(container["Image"])  # which a newer one may have replaced while this container held it
        if run.returncode:
            if "Error response from daemon" not in run.stderr:  # else its log is that of the time before
                engine.last_words(name)
            raise Problem(f"{self.name} did not start: {(run.stderr.strip() or 'see its log above').splitlines()[-1]}")
        url = self.running().url()
        if since and engine.run("inspect", "--format", "{{.State.StartedAt}}", name).strip() != since:
            print(f"{self.name} ran, and was started anew with what has changed; its kernels have ended")
        print(f"{self.name} is ready: {url}")
        print(f"notebooks: {files}   stop: make stop_{self.name}")
        if has_desktop():
            if browse:
                open_page(project.cache / "open.html", url)
        else:
            print(f"from your laptop: ssh -N -L {port}:127.0.0.1:{port} {ssh_name()}   then open the URL above there")

    def stop(self) -> None:
        """Stop it; its container, settings and notebooks stay."""
        container = self.container
        if container and container["State"]["Running"]:
            self.project.engine.run("stop", self.container_name)
            idmap.unmount(self.mount_point)
            print(f"{self.name} is stopped; make start_{self.name} continues where you left")
        else:
            print(f"{self.name} does not run")


def labs(project: Project) -> list[Lab]:
    """The labs that there are."""
    return [Lab(project, name) for name in project.table.labs]


def tell_of_old(project: Project, *started: str) -> None:
    """Say which labs run on with an image that has been replaced, but for those that are about to be `started`."""
    there = project.images()
    running = project.engine.described("container", [lab.container_name for lab in labs(project)])
    for container in (each for each in running if each["State"]["Running"]):
        about, name = container["Config"], container["Config"]["Labels"].get(owner.LAB, "")
        new = there.get(project.tag_of(name))
        replaced = new and about["Image"] == project.tag_of(name) and container["Image"] != new["Id"]
        if replaced and name not in started and owner.is_own(project, about["Labels"]):
            print(f"{name} runs on as it was; make start_{name} goes over to the new image")


def unclaimed(project: Project, *started: Lab) -> list[Lab]:
    """Those of the labs `started`, and as Compose makes all at once, of those that are services, without a volume yet.

    Raises Problem where the volume of one is somebody else's.
    """
    needed = dict.fromkeys([*started, *(lab for lab in labs(project) if lab.is_service)])
    return [lab for lab in needed if not owner.inspect(project, "volume", lab.home)]


def claim_homes(project: Project, *started: Lab) -> None:
    """Make the volumes of labs before Compose does, which knows nothing of owners."""
    for lab in unclaimed(project, *started):
        prefix, service = lab.compose  # by which Compose knows it
        known = (f"com.docker.compose.project={prefix}", f"com.docker.compose.volume={service}-home")
        owner.claim_volume(project, lab.home, *known)


def check_port(engine: Engine, port: int, name: str) -> None:
    """Raise Problem where something listens on `port` of 127.0.0.1 already."""
    if not is_free(port):
        container = engine.ask("ps", f"--filter=publish={port}", "--format={{.Names}}")
        by = f" by the container {container}" if container else ""
        raise Problem(f"port {port} is in use{by}; choose another, as in make {name}={port + 1} …")


def is_free(port: int) -> bool:
    """Whether nothing listens on `port` of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return True  # the engine may bind what this user may not
        except (OSError, OverflowError):  # there are 65535
            return False
    return True


def checked_folder(project: Project) -> Path:
    """The folder to mount at ~/work, whether it is there or not; raises Problem where it cannot be one."""
    path = Path(project.parameter("FILES")).absolute()
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


def files_folder(project: Project) -> Path:
    """The same, made if missing."""
    path = checked_folder(project)
    if not path.is_dir():
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise Problem(f"FILES={path} cannot be made: {error.strerror}") from None
        shutil.copytree(project.root / "notebooks", path / "samples")
        print(f"made {path} for your notebooks, with pyrlab's samples in it")
    return path


def thaw(engine: Engine, name: str) -> None:
    """Let a container go on that was frozen with docker pause, and wait until its next health check has seen that."""
    engine.run("unpause", name)
    deadline = time.monotonic() + 60
    while engine.run("inspect", "--format", "{{.State.Health.Status}}", name).strip() != "healthy":
        if time.monotonic() > deadline:
            return
        time.sleep(0.5)


def has_desktop() -> bool:
    """Whether a browser started here would be seen."""
    if os.environ.get("SSH_CONNECTION"):  # which may forward X, and a browser would be slow through that
        return False
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_page(page: Path, url: str) -> None:
    """Open a URL in the browser, by a page that leads there: others see in the list of processes what a browser opens.

    The browser of Windows, which WSL has, finds no such page.
    """
    if "microsoft" in platform.release().lower():
        webbrowser.open(url)
        return
    page.unlink(missing_ok=True)
    page.touch(0o600)
    page.write_text(f'<meta http-equiv="refresh" content="0;url={url}">\n')
    webbrowser.open(page.as_uri())


def ssh_name() -> str:
    """user@host of this machine, as a laptop would name it."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) != 4:
        return f"{owner.name()}@{socket.gethostname()}"
    *_, address, port = connection
    option = "" if port == "22" else f"-p {port} "
    return f"{option}{owner.name()}@{address}"


def list_labs(project: Project) -> None:
    """Print this user's running labs: name, URL, notebooks, memory."""
    engine = project.engine
    names = engine.run("ps", *own_labs(owner.name()), "--format", "{{.Names}}").split()
    memories = {}
    if engine.about["CgroupDriver"] != "none":  # with which they are the machine's
        stats = engine.run("stats", "--no-stream", "--format", "{{.Name}}\t{{.MemUsage}}").splitlines()
        memories = dict(line.split("\t", 1) for line in stats)
    found = [Running.of(container) for container in engine.described("container", sorted(names))]
    if not found:
        print(f"no lab runs; start one with {' or '.join(f'make {lab}' for lab in project.table.labs)}")
    for lab in found:
        memory = memories.get(lab.name, "unknown").split(" / ")[0]
        print(f"{lab.name}\n  URL        {lab.url()}\n  notebooks  {lab.files}\n  memory     {memory}")


def own_labs(user: str) -> tuple[str, ...]:
    """The options of docker ps for the labs of a user: nobody is shown another's token."""
    return ("--filter", f"label={owner.LAB}", "--filter", f"label={owner.USER}={user}")


def tunnel(project: Project) -> None:
    """Forward the ports of the labs that run on HOST to this machine, and print their local URLs."""
    if not (host := project.parameter("HOST")):
        raise Problem("make tunnel needs the server, as in make tunnel HOST=user@server")
    ps = " ".join(["docker ps -q", *(f'"{each}"' for each in own_labs("$(id -un)"))])  # a name may have a blank
    ids = f'ids=$({ps}) && {{ [ -z "$ids" ] || docker container inspect $ids; }}'
    try:
        ssh = ["ssh", *map(parameters.expanded, shlex.split(project.parameter("SSH_OPTIONS")))]
    except ValueError:
        raise Problem("SSH_OPTIONS has a quotation mark that does not end; a single one takes a \\ before it") from None
    run = subprocess.run([*ssh, host, f"sh -c {shlex.quote(ids)}"], stdout=subprocess.PIPE, text=True)
    if run.returncode:
        raise Problem(f"{host} could not be asked for its labs; ssh's own words stand above")
    said = re.search(r"^\[\n.*?^\]$", run.stdout, re.MULTILINE | re.DOTALL)  # a .bashrc there may say something, too
    found = [Running.of(container) for container in json.loads(said[0] if said else "[]")]
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
        if is_free(port):
            return port
    raise Problem(f"none of the ports from {wanted} to {wanted + 99} is free on this machine")


def main(project: Project) -> None:
    """Dispatch; see the module's docstring."""
    verb, *names = sys.argv[1:]
    if strangers := [name for name in names if name not in project.table.labs]:
        raise Problem(f"{strangers[0]} is no lab; the labs are {', '.join(project.table.labs)}")
    chosen = [Lab(project, name) for name in names]
    match verb:
        case "check":  # before the long work of a build
            for lab in chosen:
                lab.check()
        case "start" | "open":
            chosen[0].start(browse=verb == "open")
        case "stop":
            there = chosen or [lab for lab in labs(project) if lab.container]
            for lab in there:
                lab.stop()
            if not there:
                print(f"no lab of PROJECT={project.parameter('PROJECT')} is here; make list shows those that run")
        case "url":
            print(chosen[0].running().url())
        case "logs":
            project.engine.become("logs", "--follow", "--tail", "100", chosen[0].running().name)
        case "bash":
            terminal = ["--tty"] if sys.stdin.isatty() else []
            project.engine.become("exec", "--interactive", *terminal, chosen[0].running().name, "bash")
        case "list":
            list_labs(project)
        case "tunnel":
            tunnel(project)


if __name__ == "__main__":
    run_main(main)
