"""An image is built all the same where BuildKit stumbles over a disk that others keep busy; it takes a long wait."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

from checkout import CHANGED, layers
from conftest import Clean

HISTORY = 22  # seconds, two more than BuildKit gives the writing of its history


def test_busy_disk(clean: Clean) -> None:
    """The disk takes nothing for longer than BuildKit waits for its history."""
    engine, tag, log = clean.host, "busy", clean.checkout / ".cache/build.log"
    engine.docker("tag", f"pyrlab-base:{CHANGED}", f"pyrlab-base:{tag}")
    log.write_text("")
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(engine.make, clean.checkout, "build_pylab", TAG=tag, **clean.parameters)
        while not re.search(r"^--- .* s from .*: \[checked\] exporting to image$", log.read_text(), re.MULTILINE):
            assert not building.done(), building.result()
            time.sleep(0.02)
        with engine.frozen():
            time.sleep(HISTORY)
        built = building.result()
    assert built.returncode == 0, built.stderr
    assert "--- again" not in log.read_text()  # which may fail likewise
    assert layers(f"pylab:{tag}", engine.docker) == layers(f"pylab:{CHANGED}", engine.docker)
