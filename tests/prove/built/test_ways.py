"""The ways in that fewer users meet than those of tests/built/test_contract.py lead to a lab, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from ways import COMMON, WAYS, come_in


@pytest.mark.parametrize("way", [way for way in WAYS if way not in COMMON])
def test_ways_in(way: str, images: str, handed_over: dict[str, Path], tmp_path: Path) -> None:
    """Whichever way somebody starts the lab, it works, and the log says no more than it must."""
    come_in(WAYS[way], handed_over["python3"], tmp_path)
