"""The caches of packages that make proxies starts."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from checkout import Run, remove_lab, run_make, succeeded
from servers import free_port

OWN_LINES = "PORT = 8890\n# mine\n"  # of the user's, in the local.mk of the checkout


@dataclass(frozen=True)
class Caches:
    """The caches that make proxies has started: the parameters that it printed, and those that it was given."""

    parameters: dict[str, str]
    settings: dict[str, str | int]
    project: str
    checkout: Path

    def make(self, target: str) -> Run:
        """Run make proxies or make stop_proxies again, with no proxy but what local.mk names."""
        return run_make(self.checkout, target, **self.settings)

    def log(self, which: str) -> str:
        """What a cache, apt or pip, says it has served."""
        name = f"{self.project}-{which}-proxy"
        said = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True)
        file = ["docker", "exec", name, "sh", "-c", "cat /cache/apt-log/apt-cacher.log || true"]
        return said.stdout + said.stderr + subprocess.run(file, capture_output=True, text=True, check=True).stdout


@contextmanager
def run_caches(checkout: Path, project: str, gateway: str, **more: str) -> Iterator[Caches]:
    """Run make proxies as `project`, with ports of its own and nothing in the caches, and save it in the checkout."""
    (checkout / "local.mk").write_text(OWN_LINES)
    ports = {"APTPORT": free_port(gateway), "PIPPORT": free_port(gateway)}
    settings: dict[str, str | int] = {"PROJECT": project, "BASE": "debian", "SAVE": "yes", **ports}
    started = run_make(checkout, "proxies", **settings, **more)
    try:
        printed = succeeded(started)
        yield Caches(dict(re.findall(r"^(\w+) = (\S+)$", printed, re.MULTILINE)), settings, project, checkout)
    finally:
        run_make(checkout, "stop_proxies", **settings)
        subprocess.run(["docker", "volume", "rm", f"{project}_proxies"], capture_output=True)
        remove_lab("pylab", project)  # Compose makes the volumes and the network of all
