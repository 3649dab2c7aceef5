"""A bare make upgrade bootstraps Debian, resolves every list and builds every image anew, which takes minutes."""

from __future__ import annotations

import re
from pathlib import Path

from checkout import TINY, TINY_LISTS, docker, run_make, succeeded, tagged, write_lists

OWN = f"{TINY}-upgrade-of-everything"  # the tag of the images that are built here


def test_upgrade_of_everything(checkout: Path) -> None:
    """Without a name whatever is behind comes forward, and the locks say all of it."""
    with tagged(OWN):
        write_lists(checkout, {"requirements.txt": [*TINY_LISTS["requirements.txt"], "cowsay<6.1"]})
        succeeded(run_make(checkout, "lock", TAG=OWN))
        write_lists(checkout, {"requirements.txt": [*TINY_LISTS["requirements.txt"], "cowsay"]})
        upgraded = succeeded(run_make(checkout, "upgrade", TAG=OWN))
        [new] = re.findall(r"^cowsay +Python +\S+ → (\S+)$", upgraded, re.MULTILINE)
        command = ["python", "-c", "from importlib.metadata import version; print(version('cowsay'))"]
        assert docker("run", "--rm", f"pylab:{OWN}", *command) == new
        assert succeeded(run_make(checkout, "outdated", TAG=OWN)) == "everything is up to date\n"
