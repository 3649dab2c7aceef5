"""What people type into lists, as tests/make/cases.py has it done."""

from __future__ import annotations

from pathlib import Path

import cases


@cases.each(__file__)
def test_case(case: Path, checkout: Path, tmp_path: Path, gateway: str) -> None:
    """Make prints what is expected, and nothing else."""
    cases.play(case, checkout, tmp_path, gateway)
