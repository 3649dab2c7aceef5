"""Where the environment cannot be written, pip installs below ~/.local, and Python finds there what it has installed.

Imported by pyrlab.pth at the start of such a Python; pip's own --user does not know of virtual environments.
"""

import os
import re
import site
import sys
from contextlib import suppress
from pathlib import Path

LOCAL = Path("~/.local").expanduser()
PACKAGES = LOCAL / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"

with suppress(OSError):  # Python looks for modules only in folders that were there when it started
    PACKAGES.mkdir(parents=True, exist_ok=True)
before = sys.path[:]
site.addsitedir(str(PACKAGES))
own = [path for path in sys.path if path not in before]
first = next((place for place, path in enumerate(before) if path.endswith("site-packages")), len(before))
sys.path[:] = before[:first] + own + before[first:]  # what the user has installed comes before the environment's
pip = any(re.fullmatch(r"pip[\d.]*", Path(argument).name) for argument in sys.orig_argv[1:3])
elsewhere = "PIP_TARGET" in os.environ or any(option.startswith(("-t", "--target")) for option in sys.orig_argv)
if pip and not elsewhere:
    os.environ.setdefault("PIP_PREFIX", str(LOCAL))
