"""What a lab takes over from its machine, and how a user says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrlab.host import machine
from pyrlab.host.project import Project
from pyrlab.model.problem import Problem


@pytest.mark.parametrize(
    ("name", "given", "handed_on"),
    [
        ("TZ", "Europe/Berlin", "Europe/Berlin"),
        ("TZ", ":/usr/share/zoneinfo/America/New_York", "America/New_York"),
        ("SHM", "2g", "2147483648"),
        ("SHM", "512MB", "536870912"),
        ("SHM", "8GiB", "8589934592"),
    ],
)
def test_as_people_write_it(name: str, given: str, handed_on: str) -> None:
    """A time zone or a size is understood as shells and other programs understand it."""
    assert machine.chosen(Project(Path(), {name: given})) == {name: handed_on}


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("TZ", "berlin", "TZ=berlin is no name of a time zone; did you mean Europe/Berlin?"),
        ("TZ", "utc", "TZ=utc is no name of a time zone; did you mean UTC?"),
        ("TZ", "Europe / berlin", "TZ=Europe / berlin is no name of a time zone; did you mean Europe/Berlin?"),
        ("TZ", "CET-1CEST", "TZ=CET-1CEST is no name of a time zone; name one as in TZ=Europe/Berlin"),
        ("TZ", "UTC+2", "TZ=UTC+2 is no name of a time zone; name one as in TZ=Europe/Berlin"),
        ("TZ", "/etc/passwd", "TZ=/etc/passwd is no name of a time zone; name one as in TZ=Europe/Berlin"),
        ("SHM", "64", "SHM=64 is no size; write it as in SHM=2g"),
        ("SHM", "0g", "SHM=0g is no size; write it as in SHM=2g"),
        ("SHM", "half", "SHM=half is no size; write it as in SHM=2g"),
    ],
)
def test_refused(name: str, given: str, sentence: str) -> None:
    """What is neither is refused in one sentence."""
    with pytest.raises(Problem) as refused:
        machine.chosen(Project(Path(), {name: given}))
    assert str(refused.value) == sentence


def test_this_machines_time_zone(tmp_path: Path) -> None:
    """Linux, macOS and Debian without a link say the time zone of a machine each in their way."""
    places = {
        "linux": "/usr/share/zoneinfo/Asia/Kathmandu",
        "relative": "../usr/share/zoneinfo/Asia/Kathmandu",
        "macos": "/var/db/timezone/zoneinfo/Asia/Kathmandu",
    }
    for name, target in places.items():
        (tmp_path / name).symlink_to(target)
        assert machine.linked(tmp_path / name) == "Asia/Kathmandu"
    (tmp_path / "copied").touch()
    assert machine.linked(tmp_path / "copied") == ""
