"""Caches of Debian and Python packages for this machine's builds (make proxies, make stop_proxies).

python3 -m pyrlab.host.proxies start|stop
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from pyrlab.host.bake import bake
from pyrlab.host.base import bootstrap, choose_python
from pyrlab.host.build import alone
from pyrlab.host.docker import CACHE, COMPOSE, ROOT, parameter, run_main
from pyrlab.host.engine import fault
from pyrlab.host.lab import claim_homes
from pyrlab.host.online import bridge, build_environment, check, handing_on, lab_environment
from pyrlab.host.progress import Progress
from pyrlab.model.images import labs
from pyrlab.model.problem import Problem

SERVICES = ("apt-proxy", "pip-proxy")
LOCAL = ROOT / "local.mk"
BEGIN, END = "# What make proxies has written; make stop_proxies removes it.", "# End of what make proxies has written."


def parameters() -> dict[str, str]:
    """The parameters with which builds use the caches."""
    host = bridge()
    apt, pip = parameter("APTPORT", "3142"), parameter("PIPPORT", "3141")
    return {"APTPROXY": f"http://{host}:{apt}", "PIPPROXY": f"http://{host}:{pip}", "PIPHOST": host}


def start() -> None:
    """Start both caches, wait until they answer, and say how to use them."""
    for name, value in parameters().items():
        if parameter(name) == value:  # local.mk's: what is about to be started is of no use yet
            del os.environ[name]
    check()
    with alone():
        source, _ = choose_python()
        if source == "target:debian":
            bootstrap()
        with Progress([], CACHE / "proxies.log") as progress:
            bake(["proxies"], progress, {"PYTHON": source, **build_environment()})
    claim_homes()
    compose(
        "up --detach --no-build --pull never --wait --wait-timeout 60",
        {**lab_environment(), "PROXY_ADDRESS": bridge(), "LAB": next(iter(labs()))},
        "the caches did not start ({}); APTPORT and PIPPORT name other ports",
    )
    lines = [f"{name} = {value}" for name, value in parameters().items()]
    print("apt-cacher-ng and devpi answer; builds on this machine use them with these lines in local.mk:\n")
    print("\n".join(lines))
    if wanted():
        write(lines)
        print(f"\nwritten to {LOCAL.name}; make stop_proxies takes them out again")


def compose(command: str, environment: dict[str, str], problem: str) -> None:
    """Run Compose for the caches; raises Problem with its last words."""
    environment["JUPYTER_TOKEN"] = "of no lab"
    arguments = [*COMPOSE, *command.split(), *SERVICES]
    run = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    if run.returncode:
        if found := fault():
            raise Problem(str(found))
        raise Problem(problem.format((run.stderr.strip() or "Compose gives no reason").splitlines()[-1]))


def wanted() -> bool:
    """Whether to write local.mk: SAVE says so, or whoever is asked."""
    if parameter("SAVE") or not sys.stdin.isatty():
        return parameter("SAVE") == "yes"
    return input("\nWrite them to local.mk? [y/N] ").strip().lower() in ("y", "yes")


def write(lines: list[str]) -> None:
    """Put `lines`, none perhaps, in the place of what was written before; the rest of local.mk stays."""
    before = LOCAL.read_text() if LOCAL.exists() else ""
    rest = re.sub(rf"^{re.escape(BEGIN)}\n(?:.*\n)*?{re.escape(END)}\n", "", before, flags=re.MULTILINE)
    if rest and not rest.endswith("\n"):
        rest += "\n"
    after = rest + "".join(f"{line}\n" for line in ([BEGIN, *lines, END] if lines else []))
    if after != before:
        LOCAL.write_text(after)


def stop() -> None:
    """Stop the caches; what they hold stays."""
    compose("rm --stop --force", handing_on({}), "the caches could not be stopped: {}")
    write([])
    volume = f"{parameter('PROJECT', 'pyrlab')}_proxies"
    print(f"the caches are stopped; what they hold stays in the volume {volume} (docker volume rm {volume})")


def main() -> None:
    """Dispatch; see the module's docstring."""
    if sys.argv[1] == "start":
        start()
    else:
        stop()


if __name__ == "__main__":
    run_main(main)
