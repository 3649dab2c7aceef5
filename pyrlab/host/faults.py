"""What may be wrong with the container engine, and what mends it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrlab.host.engine import Engine

SOCKET = "/var/run/docker.sock"
RESTART = "restart the engine: sudo systemctl restart docker, or as it is started here"
OWN = "for this machine's own engine type"
INSTALL = "https://docs.docker.com/engine/install/"
PLUGINS = {
    "buildx": "install docker-buildx, or of Docker's own packages docker-buildx-plugin",
    "compose": "install docker-compose, on Ubuntu docker-compose-v2, or of Docker's own packages docker-compose-plugin",
}
OLDEST = {"engine": (26, 1), "Buildx": (0, 13), "Compose": (2, 26)}  # what pyrlab is tested with
FULL = 10e6  # bytes that are left on a full disk


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what mends it if it is wrong; `absent` if there is no engine at all."""

    subject: str
    found: str
    mend: str = ""
    absent: bool = False

    def __str__(self) -> str:
        return f"{self.found}; {self.mend}"


FULL_DISK = Finding(
    "disk",
    "the engine's disk is full",
    "docker system df shows what takes room, docker buildx prune removes the build cache",
)


def fault(engine: Engine) -> Finding | None:
    """What is wrong with the engine, with what mends it; None where it is well."""
    if shutil.which("docker", path=engine.environment.get("PATH")) is None:
        if Path(SOCKET).exists() and not isinstance(knock(f"unix://{SOCKET}"), ConnectionRefusedError):
            return Finding("engine", f"an engine is at {SOCKET}, but there is no docker command", "install docker-cli")
        return absent(engine.environment, "there is no docker command")
    info = engine.info()
    if "host" in info:
        what = "the docker command is Podman's, which has no Buildx to build with"
        return Finding("engine", what, f"install Docker as {INSTALL} says")
    return illness(engine, info) if info.get("ServerVersion") else no_answer(engine)


def absent(environment: Mapping[str, str], what: str) -> Finding:
    """That an engine is not there, and who may install or start it."""
    if environment.get("ENGINE") == "external":
        mend = "ENGINE=external forbids to install or start one here: check DOCKER_HOST and docker context ls"
        return Finding("engine", what, mend)
    if environment.get("DOCKER_HOST"):
        return Finding("engine", what, f"DOCKER_HOST names an engine elsewhere: install its client, see {INSTALL}")
    if sys.platform != "linux":
        return Finding("engine", what, f"start Docker Desktop or what else you have, or install one, see {INSTALL}")
    return Finding("engine", what, "make engine installs and starts one on Debian and Ubuntu", absent=True)


def no_answer(engine: Engine) -> Finding:
    """Why no engine answers: one that does not talk to this user or is elsewhere, one that is ill, none at all."""
    _, address = engine.context
    refused = knock(address)
    own = f"unix://{engine.environment.get('XDG_RUNTIME_DIR') or f'/run/user/{os.getuid()}'}/docker.sock"
    if refused and address == f"unix://{SOCKET}" and not engine.environment.get("DOCKER_HOST") and knock(own) is None:
        what = f"no engine answers you at {address}, but your own rootless one does at {own}"
        create = f"docker context create rootless --docker host={own}"  # an ssh of make tunnel heeds it, too
        return Finding("engine", what, f"{create}; docker context use rootless")
    if isinstance(refused, PermissionError) and address == f"unix://{SOCKET}":
        what = f"the engine at {address} answers root and the group docker only"
        return Finding("engine", what, 'sudo usermod -aG docker "$USER", and then newgrp docker or log in again')
    if found := wrong_address(engine, address):
        return found
    if refused is None:  # something listens
        return Finding("engine", f"the engine at {address} does not answer", RESTART)
    for name in (engine.ask("context", "ls", "--format", "{{.Name}}") or "").split():
        if name != "default" and engine.ask("--context", name, "version"):
            what = f"no engine answers at {address}, but one does in the docker context {name}"
            return Finding("engine", what, f"docker context use {name}")
    return absent(engine.environment, "no container engine answers")


def wrong_address(engine: Engine, address: str) -> Finding | None:
    """What has put the address of another engine than this machine's own in the place of that; None if nothing has."""
    if host := engine.environment.get("DOCKER_HOST"):
        return Finding("engine", f"no engine answers at DOCKER_HOST={host}", f"correct it, or {OWN}: unset DOCKER_HOST")
    context = engine.ask("context", "show") or "default"
    if context == "default":
        return None
    back = f"{'unset DOCKER_CONTEXT; ' * ('DOCKER_CONTEXT' in engine.environment)}docker context use default"
    if not address:
        return Finding("engine", f"docker uses the context {context}, which does not exist", f"{OWN}: {back}")
    there = f"no engine answers in the docker context {context} ({address})"
    return Finding("engine", there, f"start that one, or {OWN}: {back}")


def knock(address: str) -> OSError | None:
    """Why nobody listens at a socket of this machine, None where somebody does; so is an address elsewhere."""
    kind, _, path = address.partition("://")
    if kind != "unix":
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            return error
    return None


def illness(engine: Engine, info: dict[str, Any]) -> Finding | None:
    """What is wrong with an engine that answers."""
    plugins = {plugin.get("Name"): plugin.get("Version") for plugin in info.get("ClientInfo", {}).get("Plugins") or []}
    for plugin, mend in PLUGINS.items():
        if plugin not in plugins:
            return Finding(plugin.capitalize(), f"docker has no {plugin.capitalize()}", mend)
    buildx = version_of("Buildx", str(plugins["buildx"]))
    if buildx.mend:  # an older one builds nothing, but engine and Compose may do
        return buildx
    return settings_fault(engine.environment) or (illness_here(engine, info) if is_here(info) else None)


def is_rootless(info: dict[str, Any]) -> bool:
    """Whether an engine runs as an ordinary user, whom it shows to containers as root, in a network of its own."""
    return any("rootless" in option for option in info.get("SecurityOptions") or [])


def is_classic(info: dict[str, Any]) -> bool:
    """Whether an engine has its classic image store, which knows layers by what they unpack to."""
    return "io.containerd.snapshotter" not in str(info.get("DriverStatus"))


def illness_here(engine: Engine, info: dict[str, Any]) -> Finding | None:
    """The same of one on this machine."""
    if not is_rootless(info) and not Path("/sys/class/net/docker0").exists():
        option = '{{index .Options "com.docker.network.bridge.name"}}'
        bridge = engine.ask("network", "inspect", "bridge", "--format", option)
        if bridge and not Path("/sys/class/net", bridge).exists():
            return Finding(
                "engine", f"the engine's bridge {bridge} is gone, without which no build gets online", RESTART
            )
    if shutil.disk_usage(storage(info)).free < FULL:
        return FULL_DISK
    return None


def version_of(subject: str, text: str) -> Finding:
    """Whether the version in `text` is one that pyrlab works with."""
    found = re.search(r"(\d+)\.(\d+)[^\s,]*", text)
    oldest = ".".join(map(str, OLDEST[subject]))
    if not found:
        return Finding(subject, text or "of no version that is told")
    if (int(found[1]), int(found[2])) < OLDEST[subject]:
        return Finding(subject, f"{subject} {found[0]} is too old", f"upgrade to {oldest} or later")
    return Finding(subject, f"{found[0]} ({oldest} or later will do)")


def settings_fault(environment: Mapping[str, str]) -> Finding | None:
    """That Buildx may not write where it keeps its settings, without which it builds nothing."""
    docker = environment.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")  # noqa: PTH111  # Path's may fail
    folder = Path(environment.get("BUILDX_CONFIG") or Path(docker, "buildx"))
    there = next(path for path in (folder, *folder.parents, Path()) if os.path.lexists(path))
    if os.access(there, os.W_OK | os.X_OK):
        return None
    what = f"Buildx keeps its settings in {folder}, where you may not write"
    return Finding("Buildx", what, "BUILDX_CONFIG names another folder: export BUILDX_CONFIG=/tmp/buildx")


def is_here(info: dict[str, Any]) -> bool:
    """Whether an engine runs on this very machine, and not elsewhere, around this container or in a virtual machine."""
    return sys.platform == "linux" and info.get("Name") == socket.gethostname()


def storage(info: dict[str, Any]) -> Path:
    """Where an engine of this machine has its images, or the nearest folder above that this user sees."""
    root = Path(info.get("DockerRootDir") or "/")
    while not os.access(root, os.F_OK):
        root = root.parent
    return root
