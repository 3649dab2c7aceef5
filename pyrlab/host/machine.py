"""What a lab takes over from the machine that it runs on: the time zone, and room for shared memory."""

from __future__ import annotations

import re
import zoneinfo
from pathlib import Path
from typing import Any

from pyrlab.host.engine import Engine
from pyrlab.host.project import Project
from pyrlab.model.problem import Problem

LOCALTIME, TIMEZONE = Path("/etc/localtime"), Path("/etc/timezone")
UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}


def chosen(project: Project) -> dict[str, str]:
    """TZ and SHM for compose.yaml, where the user has set them; raises Problem for what is neither."""
    found = {}
    if zone := project.parameter("TZ").removeprefix(":"):  # a colon before a name changes nothing
        found["TZ"] = linked(Path(zone)) if zone.startswith("/") else zone
        known = zoneinfo.available_timezones()
        if known and found["TZ"] not in known:
            raise Problem(f"TZ={zone} is no name of a time zone; {meant(zone, known)}")
    if size := project.parameter("SHM"):
        parts = re.fullmatch(r"([1-9]\d*)([kmg])i?b?", size.lower())
        if not parts:
            raise Problem(f"SHM={size} is no size; write it as in SHM=2g")
        found["SHM"] = str(int(parts[1]) * UNITS[parts[2]])
    return found


def meant(zone: str, known: set[str]) -> str:
    """What a user may have meant who mistyped a time zone: that of the name, or the city, if only one is."""
    wanted = re.sub(r"\s*/\s*", "/", zone).replace(" ", "_").lower()
    found = [name for name in known if name.lower() == wanted]
    if not found:
        found = [name for name in known if name.rpartition("/")[2].lower() == wanted.rpartition("/")[2]]
    return f"did you mean {found[0]}?" if len(found) == 1 else "name one as in TZ=Europe/Berlin"


def own(engine: Engine) -> dict[str, str]:
    """The same as this machine has them.

    PyTorch's loaders and joblib hand data on through /dev/shm, for which Docker has 64 MB. Half of the memory is what
    Linux itself allows, and what is not used is not taken.
    """
    zone = linked(LOCALTIME) or (TIMEZONE.read_text().strip() if TIMEZONE.is_file() else "")
    return {"TZ": zone, "SHM": str(max(1, engine.about["MemTotal"] // 2 // UNITS["g"]) * UNITS["g"])}


def of(container: dict[str, Any]) -> dict[str, str]:
    """The same of a lab that runs: what it was started with."""
    zones = [entry.removeprefix("TZ=") for entry in container["Config"]["Env"] if entry.startswith("TZ=")]
    return {"TZ": "".join(zones), "SHM": str(container["HostConfig"]["ShmSize"])}


def linked(path: Path) -> str:
    """The time zone that a file of the system's database, or a link to one, stands for; empty if none."""
    target = path.readlink() if path.is_symlink() and "zoneinfo" not in path.parts else path
    return str(target).partition("/zoneinfo/")[2]
