"""An engine whose network leads nowhere but to this machine's proxies, and the caches of make proxies."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from servers import free_port

ENGINE = "pyrlab-cut"  # the network namespace of the engine, its end of the cable, and the prefix of its labs
HERE, THERE, CONTAINERS = "10.231.0.1", "10.231.0.2", "10.231.1.1/24"  # both ends of the cable, the engine's bridge
LABS = "base=10.231.128.0/17,size=24"  # the networks of labs, for one of which the engine else takes the gateway's
NO_PROXIES = dict.fromkeys(("APTPROXY", "PIPPROXY", "PIPHOST", "http_proxy", "https_proxy", "CACERT"), "")

INSIDE = ["nsenter", f"--net=/run/netns/{ENGINE}"]  # of the namespaces the network's only: mounts are shared

Run = subprocess.CompletedProcess[str]


def users_environment() -> dict[str, str]:
    """The environment of a user who types make: without a screen, and not from within make."""
    return {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MAKEFLAGS", "MFLAGS")}


def ip(*arguments: str, check: bool = True) -> None:
    """Change this machine's network."""
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@dataclass
class Cut:
    """A container engine in a network namespace, from where make runs, too."""

    folder: Path
    gateway: str  # this machine's bridge address, the only one that the engine reaches
    parameters: dict[str, str | int] = field(default_factory=dict)

    def run(self, *command: str, cwd: Path | None = None) -> Run:
        """Run a command where the engine is."""
        return subprocess.run(
            [*INSIDE, *command],
            cwd=cwd,
            env={**users_environment(), "DOCKER_HOST": f"unix://{self.folder}/docker.sock"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def docker(self, *arguments: str) -> str:
        """The output of a docker command that must succeed."""
        done = self.run("docker", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def make(self, checkout: Path, *targets: str, **parameters: str) -> Run:
        """Run make in `checkout` as a user would."""
        given = {**NO_PROXIES, "BASE": "debian", "PROJECT": ENGINE, **self.parameters, **parameters}
        settings = [f"{name}={value}" for name, value in given.items()]
        return self.run("make", "--no-print-directory", *targets, *settings, cwd=checkout)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the engine's disk take nothing, as one that others keep busy."""
        subprocess.run(["fsfreeze", "--freeze", self.folder / "data"], check=True)
        try:
            yield
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", self.folder / "data"], check=True)

    def connect(self) -> None:
        """Switch the network on."""
        ip("link", "set", ENGINE, "up")
        ip("-netns", ENGINE, "link", "set", "eth0", "up")
        ip("-netns", ENGINE, "route", "replace", self.gateway, "via", HERE)

    def disconnect(self) -> None:
        """Switch it off."""
        ip("-netns", ENGINE, "link", "set", "eth0", "down")


@contextmanager
def run_cut_engine(folder: Path, gateway: str) -> Iterator[Cut]:
    """Run an engine with nothing in it, its files in `folder`, which goes with it."""
    ports = {name: free_port() for name in ("PORT", "RPORT", "TBPORT")}
    cut = Cut(folder, gateway, {**ports, "FILES": str(folder / "books")})
    status = subprocess.run(["docker", "info", "--format", "{{.DriverStatus}}"], capture_output=True, text=True).stdout
    features = {"containerd-snapshotter": "containerd" in status}  # as this machine's own engine, for equal digests
    (folder / "daemon.json").write_text(json.dumps({"features": features}))
    for kind in ("link", "netns"):  # what a killed run may have left
        ip(kind, "delete", ENGINE, check=False)
    ip("netns", "add", ENGINE)
    disk = folder / "disk"
    (folder / "data").mkdir()
    with disk.open("wb") as file:
        file.truncate(60 << 30)  # it takes what is written
    try:
        # A file system of its own goes at once; to remove what an engine has, file by file, takes minutes. As it need
        # not outlive the machine, it does not wait for the disk either.
        subprocess.run(["mkfs.ext4", "-q", disk], check=True)
        subprocess.run(["mount", "-o", "loop,nobarrier", disk, folder / "data"], check=True)
        ip("link", "add", ENGINE, "type", "veth", "peer", "name", "eth0", "netns", ENGINE)
        ip("address", "add", f"{HERE}/30", "dev", ENGINE)
        for change in ("link set lo up", "link set eth0 up", f"address add {THERE}/30 dev eth0"):
            ip("-netns", ENGINE, *change.split())
        cut.connect()
        options = [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
        options += [f"--host=unix://{folder}/docker.sock", f"--bip={CONTAINERS}", f"--config-file={folder}/daemon.json"]
        options += [f"--default-address-pool={LABS}"]
        options += [f"--containerd-namespace={ENGINE}", f"--containerd-plugins-namespace={ENGINE}-plugins"]
        command = [*INSIDE, "dockerd", *options]
        with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as dockerd:
            try:
                deadline = time.monotonic() + 60
                while cut.run("docker", "info").returncode:
                    assert dockerd.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                yield cut
            finally:
                dockerd.terminate()
    finally:
        ip("netns", "delete", ENGINE)
        subprocess.run(["umount", "--lazy", folder / "data"], check=False)
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=False)


@dataclass(frozen=True)
class Caches:
    """The caches that make proxies has started: the parameters that it printed, and those that it was given."""

    parameters: dict[str, str]
    settings: dict[str, str | int]
    project: str
    run: Callable[..., Run]

    def make(self, target: str, **more: str) -> Run:
        """Run make proxies or make stop_proxies again."""
        return self.run(target, **{**self.settings, **more})

    def log(self, which: str) -> str:
        """What a cache, apt or pip, says it has served."""
        name = f"{self.project}-{which}-proxy"
        said = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True)
        file = ["docker", "exec", name, "sh", "-c", "cat /cache/apt-log/apt-cacher.log || true"]
        return said.stdout + said.stderr + subprocess.run(file, capture_output=True, text=True, check=True).stdout


@contextmanager
def run_caches(make: Callable[..., Run], project: str, gateway: str, **more: str) -> Iterator[Caches]:
    """Run make proxies as `project`, with ports of its own and nothing in the caches."""
    ports = {"APTPORT": free_port(gateway), "PIPPORT": free_port(gateway)}
    settings: dict[str, str | int] = {"PROJECT": project, "BASE": "debian", "SAVE": "no", **ports, **more}
    started = make("proxies", **settings)
    try:
        assert started.returncode == 0, started.stderr
        yield Caches(dict(re.findall(r"^(\w+) = (\S+)$", started.stdout, re.MULTILINE)), settings, project, make)
    finally:
        make("stop_proxies", **settings)
        subprocess.run(["docker", "volume", "rm", f"{project}_proxies"], capture_output=True)
