"""What both apps reckon with: how savings grow, as YEARS and GROWTH in the environment say."""

from __future__ import annotations

import os

import pandas as pd


def plan(start: float) -> pd.DataFrame:
    """The balance at the end of every year."""
    years = range(1, int(os.environ.get("YEARS", "3")) + 1)
    growth = float(os.environ.get("GROWTH", "0.02"))
    return pd.DataFrame({"year": years, "balance": [start * (1 + growth) ** year for year in years]}).round(2)
