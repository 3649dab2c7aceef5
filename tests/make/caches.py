"""The caches of packages that make proxies starts."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from checkout import Run, remove_lab, succeeded
from servers import free_port


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
        printed = succeeded(started)
        yield Caches(dict(re.findall(r"^(\w+) = (\S+)$", printed, re.MULTILINE)), settings, project, make)
    finally:
        make("stop_proxies", **settings)
        subprocess.run(["docker", "volume", "rm", f"{project}_proxies"], capture_output=True)
        remove_lab("pylab", project)  # Compose makes the volumes and the network of all
