"""Print all that a reader sees of this file system but for times, and what apt and dpkg say of it, as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
from pathlib import Path

# What no image has, or what says nothing: times of running, logs, caches, and what dpkg and others keep of the past.
NOWHERE = re.compile(
    r"/(proc|sys|dev|run|tmp|root|pyrlab|opt/archives|var/(log|cache|lib/apt/lists)|etc/(hosts|hostname|resolv\.conf|mtab))(/|$)"
    r"|/\.dockerenv$|/etc/[a-z]+-$|/var/lib/dpkg/[a-z]+-old$"
)


def files() -> dict[str, list[object]]:
    """Type and mode, owners, content and extended attributes of everything, by path."""
    found: dict[str, list[object]] = {}
    for folder, folders, names in os.walk("/"):
        if folder in ("/proc", "/sys", "/dev"):
            folders.clear()
            continue
        for path in (Path(folder, name) for name in folders + names):
            if NOWHERE.search(str(path)):
                continue
            about = path.lstat()
            content = str(path.readlink()) if path.is_symlink() else ""
            if stat.S_ISREG(about.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            attributes = os.listxattr(path, follow_symlinks=False)
            found[str(path)] = [about.st_mode, about.st_uid, about.st_gid, content, attributes]
    return found


def lines(*command: str) -> list[str]:
    """What a command prints."""
    said = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout
    return sorted(line for line in said.splitlines() if not NOWHERE.search(line.split()[-1]))


wrong = lines("dpkg", "--verify")  # what dpkg misses or finds changed
marks = [lines("apt-mark", f"show{kind}") for kind in ("manual", "auto")]  # what apt takes for wanted, for a dependency
print(json.dumps({"files": files(), "marks": marks, "wrong": wrong}))
