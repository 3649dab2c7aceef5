"""Caches of Debian and Python packages for this machine's builds (make proxies, make stop_proxies).

python3 -m pyrlab.host.proxies start|stop
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

from pyrlab.host.bake import bake
from pyrlab.host.base import bootstrap, choose_python
from pyrlab.host.lab import claim_homes
from pyrlab.host.online import bridge, build_environment, check, handing_on, lab_environment
from pyrlab.host.progress import Progress
from pyrlab.host.project import Project, run_main
from pyrlab.host.session import alone
from pyrlab.host.text import write_whole
from pyrlab.model.problem import Problem

SERVICES = ("apt-proxy", "pip-proxy")
LOCAL = "local.mk"
BEGIN, END = "# What make proxies has written; make stop_proxies removes it.", "# End of what make proxies has written."


def parameters(project: Project) -> dict[str, str]:
    """The parameters with which builds use the caches."""
    host, apt, pip = bridge(project.engine), project.parameter("APTPORT"), project.parameter("PIPPORT")
    return {"APTPROXY": f"http://{host}:{apt}", "PIPPROXY": f"http://{host}:{pip}", "PIPHOST": host}


def start(project: Project) -> None:
    """Start both caches, wait until they answer, and say how to use them."""
    given = parameters(project)
    if not given["PIPHOST"]:
        why = "a rootless engine's containers share no address with this machine that others do not reach, too"
        raise Problem(f"{why}, so there are no caches on it; APTPROXY and PIPPROXY may name caches elsewhere")
    # What is about to be started, as local.mk may name it, is of no use yet.
    others = {name: value for name, value in project.environment.items() if given.get(name) != value}
    project = replace(project, environment=others)
    check(project)
    with alone(project):
        source, _ = choose_python(project)
        if source == "target:debian":
            bootstrap(project)
        with Progress([], project.cache / "proxies.log") as progress:
            bake(project, "proxies", progress, {"PYTHON": source, **build_environment(project)})
    claim_homes(project)
    compose(
        project,
        "up --detach --no-build --pull never --wait --wait-timeout 60",
        {**lab_environment(project), "PROXY_ADDRESS": given["PIPHOST"], "LAB": next(iter(project.table.labs), "")},
        "the caches did not start ({}); APTPORT and PIPPORT name other ports",
    )
    lines = [f"{name} = {value}" for name, value in given.items()]
    print("apt-cacher-ng and devpi answer; builds on this machine use them with these lines in local.mk:\n")
    print("\n".join(lines))
    if wanted(project.parameter("SAVE")):
        write(project.root / LOCAL, lines)
        print(f"\nwritten to {LOCAL}; make stop_proxies takes them out again")


def compose(project: Project, command: str, environment: dict[str, str], problem: str) -> None:
    """Run Compose for the caches; raises Problem with its last words."""
    environment["JUPYTER_TOKEN"] = "of no lab"
    run = project.engine.compose(project.parameter("PROJECT"), f"{command} {' '.join(SERVICES)}", environment)
    if run.returncode:
        words = (run.stderr.strip() or "Compose gives no reason").splitlines()
        raise Problem(str(project.engine.fault() or problem.format(words[-1])))


def wanted(save: str) -> bool:
    """Whether to write local.mk: SAVE says so, or whoever is asked."""
    if save or not sys.stdin.isatty():
        return save == "yes"
    return input("\nWrite them to local.mk? [y/N] ").strip().lower() in ("y", "yes")


def write(local: Path, lines: list[str]) -> None:
    """Put `lines`, none perhaps, in the place of what was written before; the rest of local.mk stays."""
    before = local.read_text(errors="surrogateescape") if local.exists() else ""
    rest = re.sub(rf"^{re.escape(BEGIN)}\n(?:.*\n)*?{re.escape(END)}\n", "", before, flags=re.MULTILINE)
    if rest and not rest.endswith("\n"):
        rest += "\n"
    after = rest + "".join(f"{line}\n" for line in ([BEGIN, *lines, END] if lines else []))
    if after != before:
        write_whole(local, after, errors="surrogateescape")


def stop(project: Project) -> None:
    """Stop the caches; what they hold stays."""
    volume = f"{project.parameter('PROJECT')}_proxies"
    if there := project.engine.inspect("volume", volume):
        compose(project, "rm --stop --force", handing_on(project, {}), "the caches could not be stopped: {}")
    write(project.root / LOCAL, [])
    stopped = f"the caches are stopped; what they hold stays in the volume {volume} (docker volume rm {volume})"
    print(stopped if there else "there are no caches; make proxies starts them")


def main(project: Project) -> None:
    """Dispatch; see the module's docstring."""
    if sys.argv[1] == "start":
        start(project)
    else:
        stop(project)


if __name__ == "__main__":
    run_main(main)
