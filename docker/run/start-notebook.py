#!/opt/venv/bin/python -P
"""Be JupyterLab, with whatever arguments follow: in this very process, since every Python more takes time to start.

Under a JupyterHub, or by the name start-singleuser, be its user's server.
"""

import importlib.util
import os
import shlex
import shutil
import sys
import time
import types


def log(level: str, text: str) -> None:
    if level != "INFO" or not os.environ.get("JUPYTER_DOCKER_STACKS_QUIET"):
        print(f"{level}[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}", file=sys.stderr, flush=True)


class Postponed(types.ModuleType):
    """A module that is not read before something of it is used; its attributes are the real one's."""

    def __getattr__(self, name: str) -> object:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


own_name = os.path.basename(sys.argv[0])
arguments = [*shlex.split(os.environ.get("NOTEBOOK_ARGS", "")), *sys.argv[1:]]
if "_START_SH_EXECUTED" not in os.environ:  # in place of the entry point, as a Pod's command is
    os.execvp("start.sh", ["start.sh", own_name, *sys.argv[1:]])

for module in ("aiohttp", "requests"):  # of jupyter-server-proxy and JupyterLab: a seventh of the start
    found = importlib.util.find_spec(module)
    sys.modules[module] = Postponed(module)
    sys.modules[module].__spec__ = found  # for whoever asks whether there is such a module

if "JUPYTERHUB_API_TOKEN" in os.environ or own_name.startswith("start-singleuser"):
    if not own_name.startswith("start-singleuser"):
        log("WARNING", f"using start-singleuser.py instead of {own_name} to start a server associated with JupyterHub.")
    sys.argv = ["jupyterhub-singleuser", *arguments]
    log("INFO", f"Executing: {shlex.join(sys.argv)}")
    from jupyterhub.singleuser import main as singleuser

    sys.exit(singleuser())

frontend = os.environ.get("DOCKER_STACKS_JUPYTER_CMD") or "lab"
command = ["jupyter", frontend, *arguments]
if os.environ.get("RESTARTABLE") == "yes":
    command.insert(0, "run-one-constantly")
log("INFO", f"Executing: {shlex.join(command)}")
if shutil.which(f"jupyter-{frontend}") is None:
    package = {"retro": "retrolab"}.get(frontend, frontend)
    log("ERROR", f"DOCKER_STACKS_JUPYTER_CMD={frontend}: not in this image; add {package} to requirements.txt.")
    sys.exit(1)
if command[:2] != ["jupyter", "lab"]:
    os.execvp(command[0], command)

from jupyterlab.labapp import main as lab  # noqa: E402

sys.argv = ["jupyter-lab", *arguments]
sys.exit(lab())
