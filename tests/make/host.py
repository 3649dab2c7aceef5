"""Another machine: Debian testing and its engine in a privileged container, whose network leads to this one only."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from checkout import CHECKOUT, MINE, ROOT, Run, docker
from pyrlab.host import base
from pyrlab.host.online import build_environment

IMAGE = "pyrlab-test-host"
NAME = f"{IMAGE}-{MINE}"  # of its container
USER, HOME = "ada", Path("/home/ada")
PROJECT = "pyrlab-there"  # of what she starts
NO_PROXIES = dict.fromkeys(("APTPROXY", "PIPPROXY", "PIPHOST", "http_proxy", "https_proxy", "CACERT"), "")


@dataclass
class Host:
    """A machine with an engine, on which an ordinary user types make; `home` is her home as it is seen from here."""

    home: Path
    parameters: dict[str, str | int] = field(default_factory=dict)

    def start(self, *command: str, cwd: Path | None = None, user: str = USER) -> subprocess.Popen[str]:
        """Start a command there; `cwd` is below her home, and what she makes is hers alone (umask 077)."""
        place = HOME / (cwd or self.home).relative_to(self.home)
        options = [f"--user={user}", f"--workdir={place}", f"--env=HOME={HOME}", f"--env=USER={user}"]
        shell = ["sh", "-c", 'umask 077 && exec "$@"', "sh"]
        whole = ["docker", "exec", *options, NAME, *shell, *command]
        pipe = subprocess.PIPE
        return subprocess.Popen(whole, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)

    def run(self, *command: str, cwd: Path | None = None, user: str = USER) -> Run:
        """Run a command there, as `start` does."""
        started = self.start(*command, cwd=cwd, user=user)
        said, words = started.communicate()
        return Run(started.args, started.returncode, said, words)

    def docker(self, *arguments: str) -> str:
        """The output of a docker command that must succeed."""
        done = self.run("docker", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def make(self, checkout: Path, *targets: str, **parameters: str) -> Run:
        """Run make in `checkout`, a folder of her home, as she would."""
        given = {**NO_PROXIES, "BASE": "debian", "PROJECT": PROJECT, **self.parameters, **parameters}
        if given["CACERT"]:
            shutil.copy(str(given["CACERT"]), self.home / "authority.pem")
            given["CACERT"] = str(HOME / "authority.pem")
        arguments = [f"{name}={value}" for name, value in given.items()]
        return self.run("make", "--no-print-directory", *targets, *arguments, cwd=checkout)

    def adopt(self, checkout: Path, name: str) -> Path:
        """Give her a copy of a checkout, without what was built there; its place as seen from here."""
        copy = self.home / name
        shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".cache"))
        assert self.run("chown", "-R", f"{USER}:", str(HOME / name), user="root").returncode == 0
        return copy

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the engine's disk take nothing, as one that others keep busy."""
        assert self.run("fsfreeze", "--freeze", "/var/lib/docker", user="root").returncode == 0
        try:
            yield
        finally:
            self.run("fsfreeze", "--unfreeze", "/var/lib/docker", user="root")

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Fill the engine's disk, of which no block is written: 30 MB are left, and to root only."""
        fill = "/var/lib/docker/fill"
        size = "$(($(stat -f -c '%f * %S' /var/lib/docker) - 30000000))"
        try:
            assert self.run("sh", "-c", f"fallocate -l {size} {fill}", user="root").returncode == 0
            yield
        finally:
            self.run("rm", "-f", fill, user="root")

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Switch the network off."""
        assert self.run("ip", "link", "set", "eth0", "down", user="root").returncode == 0
        try:
            yield
        finally:
            assert self.run("ip", "link", "set", "eth0", "up", user="root").returncode == 0


def build_online(file: str, context: Path, output: str) -> None:
    """Build an image of the tests' own, whose Dockerfile gets online as pyrlab's steps do."""
    given = build_environment(CHECKOUT)
    options = [
        "--secret=id=network,env=NETWORK",
        f"--build-context=tools={ROOT / 'pyrlab'}",
        "--provenance=false",
    ]
    options += [f"--secret=id=ca,src={given['CACERT']}"] if given["CACERT"] else []
    options += [f"--file={ROOT / 'tests/make' / file}", f"--output=type=image,{output}", str(context)]
    command = ["docker", "buildx", "build", "--quiet", *options]
    built = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **given})
    assert built.returncode == 0, built.stderr


def build_host() -> None:
    """Make the image of the machine."""
    context = ROOT / ".cache/test-host"
    context.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / "tests/make/host.sh", context)
    base.bootstrap(CHECKOUT)
    debian = base.archive(CHECKOUT)
    (context / debian.name).unlink(missing_ok=True)
    (context / debian.name).hardlink_to(debian)
    build_online("host.Dockerfile", context, f"name={IMAGE},compression=uncompressed")


@contextmanager
def run_host(home: Path) -> Iterator[Host]:
    """Run the machine, with nothing on its engine, in the image store that this machine's engine has not."""
    build_host()
    here = docker("info", "--format", "{{.DriverStatus}}")
    settings = [f"--env=STORE={'classic' if 'containerd' in here else 'containerd'}"]
    settings += [f"--env=ADA={os.getuid() or 1000}", f"--volume={home}:{HOME}", "--hostname=kiritimati"]
    subprocess.run(["docker", "rm", "--force", NAME], capture_output=True)  # of a run that was killed
    docker("run", "--detach", "--privileged", f"--name={NAME}", *settings, IMAGE)
    host = Host(home)
    try:
        deadline = time.monotonic() + 300
        while host.run("docker", "info").returncode:
            assert time.monotonic() < deadline, docker("logs", NAME)
        yield host
    finally:
        host.run("find", str(HOME), "-mindepth", "1", "-delete", user="root")  # what is hers, here perhaps another's
        docker("stop", "--time=30", NAME)
        docker("rm", "--force", "--volumes", NAME)
