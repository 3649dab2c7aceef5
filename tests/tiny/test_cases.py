"""What people type into lists, as tests/make/cases.py has it done."""

from __future__ import annotations

from pathlib import Path

import pytest

import cases

CASES = sorted((Path(__file__).parent / "cases").iterdir())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Path, checkout: Path, tmp_path: Path, gateway: str) -> None:
    """Make prints what is expected, and nothing else."""
    cases.play(case, checkout, tmp_path, gateway)
