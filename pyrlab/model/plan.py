"""What an image is to have besides its parent: what the table, the lists and the locks say of it, for the build steps.

A plan is a folder: `plan.json` (see `Plan`), the `lists` and `locks` that it names, and in `asked`, for the manifest,
the lists of all that it has, by ecosystem.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyrlab.model.checkout import Checkout, of_python
from pyrlab.model.images import List


@dataclass(frozen=True)
class Plan:
    """What an image has besides its parent."""

    folder: Path
    image: str  # its name
    name: str  # under which the engine is to load its packages
    python: str  # the identity of the Python image that all images start from
    parent: str  # the identity of the parent, empty where it is the Python image itself
    dockerfile: str = ""  # a digest of what its own Dockerfile is, if that is known
    below: list[dict[str, Any]] = field(default_factory=list)  # the layers of the parent
    settings: dict[str, Any] = field(default_factory=dict)  # the configuration of the parent
    blobs: list[str] = field(default_factory=list)  # the layers that the engine has
    chains: list[list[str]] = field(default_factory=list)  # the same of the classic store: which stand on which
    debian: list[str] = field(default_factory=list)  # its lists of Debian packages
    wheels: list[list[str]] = field(default_factory=list)  # of its parents and itself: lock, section in it, file
    own_wheels: int = 0  # how many of these are its own
    r: str = ""  # its list of R packages
    counts: dict[str, int] = field(default_factory=dict)  # of layers, by ecosystem

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan in a folder."""
        return cls(folder, **json.loads((folder / "plan.json").read_text()))

    def list(self, path: str) -> Path:
        """Where a list is."""
        return self.folder / "lists" / path

    @property
    def locks(self) -> Path:
        """The folder of the locks."""
        return self.folder / "locks"


def write(folder: Path, checkout: Checkout, image: str, **known: Any) -> None:
    """Write the plan of an image into a folder with its lists and locks; of the rest there is what is `known`."""
    checkout.stage_asked(image, folder / "asked")
    table = checkout.table
    own = table[image].lists
    family = [each for member in table.lineage(image) for each in of_python(member.lists)]
    plan = {
        "image": image,
        "debian": [path for each in own if each.ecosystem == "Debian" for path in each.files],
        "wheels": [[f"{each.lock}.lock", each.section, each.file] for each in family],
        "own_wheels": len(of_python(own)),
        "r": next((each.file for each in own if each.ecosystem == "R"), ""),
        "counts": counts(own),
        **known,
    }
    (folder / "plan.json").write_text(json.dumps(plan, indent=1))


def counts(lists: Iterable[List]) -> dict[str, int]:
    """How many layers an image's packages of each ecosystem may have; most of R's are Debian's."""
    found: dict[str, int] = Counter()
    for each in lists:
        own = each.layers // 4 if each.ecosystem == "R" else each.layers
        found[each.ecosystem] += own
        found["Debian"] += each.layers - own
    return found
