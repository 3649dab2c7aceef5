"""What tests leave on the user's engine: nothing but the default images and what builds and caches keep."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from pathlib import Path

from checkout import CHANGED, MINE, NAMES, ROOT, TAG, TINY
from pyrlab.host import idmap

BRIDGE = Path("/sys/class/net/docker0")  # a second engine on this machine would take it away
HAD_BRIDGE = BRIDGE.exists()
CHECKOUT = '{{.Label "org.pyrlab.checkout"}}'
LISTS = {
    "container": ("ps", "--all", f"--format={{{{.Names}}}}\t{CHECKOUT}"),
    "volume": ("volume", "ls", f"--format={{{{.Name}}}}\t{CHECKOUT}"),
    "network": ("network", "ls", f"--format={{{{.Name}}}}\t{CHECKOUT}"),
    "image": ("image", "ls", "--format={{.Repository}}:{{.Tag}}\t"),
}
STAYS = {f"pyrlab_tag_{TAG}", "pyrlab_proxies"}
SHARED = {f"{name}:{tag}" for name in NAMES for tag in (TINY, CHANGED)}  # of runs of several lanes


def left_behind(before: Collection[str] = ()) -> list[str]:
    """What bears the name that this checkout's tests give, or is its own and was not there `before`; a lost bridge."""
    found = [f"mount {path}" for path in idmap.PLACE.glob(f"*-{MINE}*")]
    found += [] if BRIDGE.exists() or not HAD_BRIDGE else ["the engine's bridge docker0 is gone"]
    for kind, command in LISTS.items():
        listed = subprocess.run(["docker", *command], capture_output=True, text=True).stdout
        for name, _, checkout in (line.partition("\t") for line in listed.splitlines()):
            thing = f"{kind} {name}"
            if f"-{MINE}" in name or (checkout == str(ROOT) and thing not in before):
                found += [] if name in STAYS | SHARED else [thing]
    return found
