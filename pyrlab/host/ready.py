"""Make sure of checkout and engine before anything is made, and install or start an engine (make engine).

python3 -m pyrlab.host.ready             of every target that makes something; silent where all is well
python3 -m pyrlab.host.ready checkout    looks at no engine
python3 -m pyrlab.host.ready engine      says that there is one, too
"""

from __future__ import annotations

import os
import subprocess
import sys

from pyrlab.host.faults import Finding
from pyrlab.host.project import Project, run_main
from pyrlab.model.problem import Problem

RUN = ("docker/run/**/*", "docker/*/Dockerfile", "pyrlab/**/*")  # data of an image of one's own may have any line ends
UNIX = "git grep -lIz '' | xargs -0 sed -i 's/\\r$//' gives every file Unix' ones"


def checkout_fault(project: Project) -> Finding | None:
    """What is wrong with this checkout, with what mends it; None where it is well."""
    for pattern in RUN:
        for path in project.root.glob(pattern):
            if path.is_file() and "__pycache__" not in path.parts and b"\r\n" in path.read_bytes():
                what = "has Windows' line ends (CRLF), with which nothing runs in a container"
                return Finding("checkout", f"{path.relative_to(project.root)} {what}", UNIX)
    for path in (project.root, project.cache):
        if path.exists() and not os.access(path, os.W_OK | os.X_OK):
            what = f"{path} is read-only, or not yours to write in"
            return Finding("checkout", what, "clone pyrlab where you may write")
    return None


def main(project: Project) -> None:
    """Raise what is wrong; where there is no engine at all, get one."""
    verb = sys.argv[1:]
    found = checkout_fault(project) or (None if verb == ["checkout"] else project.engine.fault())
    if found and not found.absent:
        raise Problem(str(found))
    if found:
        script = project.root / "pyrlab/host/engine.sh"
        sys.exit(subprocess.run([script, *verb], env=project.environment).returncode)
    if verb == ["engine"]:
        print("pyrlab: an engine answers already: nothing to do", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
