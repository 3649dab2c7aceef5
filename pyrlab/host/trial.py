"""Start each new lab once, before its image takes the place of the one before."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

from pyrlab.host import owner
from pyrlab.host.docker import docker, last_words
from pyrlab.host.engine import fault
from pyrlab.model.problem import Problem

LABEL = "org.pyrlab.trial"
# As compose.yaml starts a lab, but apart from everything: no network, no port, no volume.
OPTIONS = ("--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--no-healthcheck")
TRIAL = ("/opt/venv/bin/python", "-I", "/etc/jupyter/trial.py")


def start_once(labs: Mapping[str, str], changed: str) -> None:
    """Start the images `labs`, by lab, side by side, and let every kernel run a cell.

    Raises Problem, which also says what has `changed`, where that fails; the end of the lab's log is printed first.
    """
    remove()  # of a build that was killed
    try:
        containers = {lab: begin(lab, image) for lab, image in labs.items()}
        trials = {
            lab: subprocess.Popen(
                ["docker", "exec", container, *TRIAL], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            for lab, container in containers.items()
        }
        for lab, trial in trials.items():
            said = trial.communicate()[1]
            if trial.returncode:
                if found := fault():
                    raise Problem(str(found))
                last_words(containers[lab])
                why = ended(containers[lab]) or (said.strip() or "it does not answer").splitlines()[-1]
                raise Problem(
                    f"the new {lab} does not work ({why}; its log ends above), so images, locks and labs stay as they "
                    f"were; this has changed: {changed}"
                )
    finally:
        remove()


def begin(lab: str, image: str) -> str:
    """Start a lab; the id of its container."""
    labels = {LABEL: lab, **owner.labels()}
    return docker("run", "--detach", *OPTIONS, *(f"--label={k}={v}" for k, v in labels.items()), image).strip()


def ended(container: str) -> str:
    """How a container has ended, empty if it runs."""
    state = json.loads(docker("container", "inspect", "--format", "{{json .State}}", container))
    return "" if state["Running"] else f"it ended with status {state['ExitCode']}"


def remove() -> None:
    """Remove what this checkout has started to try; one build of it runs at a time."""
    ours = (f"--filter=label={label}={value}" for label, value in owner.labels().items())
    if found := docker("ps", "--all", "--quiet", f"--filter=label={LABEL}", *ours).split():
        docker("rm", "--force", *found)
