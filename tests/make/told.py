"""What the build's own tool says of proxies, run as a build step or the bootstrap runs it."""

from __future__ import annotations

import os
import subprocess
import sys

from checkout import ROOT
from pyrlab.model.proxies import PARAMETERS

APT = "E: Failed to fetch http://packages.invalid/debian/dists/trixie/InRelease  Could not connect"
UV = "error: Request failed after 3 retries\n  cause: Failed to fetch: https://packages.invalid/simple/pandas/"
NOBODY = "http://127.0.0.1:1"


def run(verb: str, words: str = "", **parameters: str) -> str:
    """What the build's tool prints with these parameters."""
    environment = {**os.environ, **dict.fromkeys(PARAMETERS, ""), **parameters}
    command = [sys.executable, "-m", "pyrlab.steps.network", verb]
    done = subprocess.run(command, cwd=ROOT, input=words, capture_output=True, text=True, env=environment, check=True)
    return str(done.stdout).strip()


def explain(words: str, **parameters: str) -> str:
    """What the build says after a command ended with these words."""
    return run("explain", words, **parameters)


def check(**parameters: str) -> str:
    """What the build says before it begins."""
    return run("check", **parameters)
