"""Start each new lab once, before its image takes the place of the one before."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from itertools import chain

from pyrlab.host import locks, owner
from pyrlab.host.progress import Progress
from pyrlab.host.project import Project
from pyrlab.host.state import Image
from pyrlab.model.problem import Problem

LABEL = "org.pyrlab.trial"
# As compose.yaml starts a lab, but apart from everything: no network, no port, no volume.
OPTIONS = ("--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--no-healthcheck")
TRIAL = ("/opt/venv/bin/python", "-I", "/etc/jupyter/trial.py")


def try_labs(project: Project, images: list[Image], progress: Progress) -> None:
    """Start each new lab once; raises Problem where one does not work."""
    new = {image.name: image.tag for image in images if image.new and image.name in project.table.labs}
    if not new:
        return
    progress.erase()
    why = ", ".join(dict.fromkeys(chain.from_iterable(image.why for image in images if image.new)))
    shown, more = locks.listed(locks.staged_changes(project), 5)
    start_once(project, new, f"{shown}{more}" or why)


def start_once(project: Project, labs: Mapping[str, str], changed: str) -> None:
    """Start the images `labs`, by lab, side by side, and let every kernel run a cell.

    Raises Problem, which also says what has `changed`, where that fails; the end of the lab's log is printed first.
    """
    engine = project.engine
    remove(project)  # of a build that was killed
    try:
        own = [f"--label={label}" for label in owner.labels(project.root)]
        containers = {
            lab: engine.run("run", "--detach", *OPTIONS, f"--label={LABEL}={lab}", *own, image).strip()
            for lab, image in labs.items()
        }
        trials = {
            lab: engine.open("exec", container, *TRIAL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for lab, container in containers.items()
        }
        for lab, trial in trials.items():
            said = trial.communicate()[1].decode(errors="replace")
            if trial.returncode:
                if found := engine.fault():
                    raise Problem(str(found))
                engine.last_words(containers[lab])
                state = engine.described("container", [containers[lab]])[0]["State"]
                why = (said.strip() or "it does not answer").splitlines()[-1]
                if not state["Running"]:
                    why = f"it ended with status {state['ExitCode']}"
                raise Problem(
                    f"the new {lab} does not work ({why}; its log ends above), so images, locks and labs stay as they "
                    f"were; this has changed: {changed}"
                )
    finally:
        remove(project)


def remove(project: Project) -> None:
    """Remove what this checkout has started to try; one build of it runs at a time."""
    owner.remove_containers(project, LABEL)
