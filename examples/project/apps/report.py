"""A report for people, as a job prints it: python -m apps.report 1000."""

from __future__ import annotations

import sys

import humanize

from apps.savings import plan


def main() -> None:
    """Print the plan for a sum, a line a year."""
    for row in plan(float(sys.argv[1])).itertuples():
        print(f"at the end of the {humanize.ordinal(row.year)} year: {humanize.intcomma(row.balance, 2)}")


if __name__ == "__main__":
    main()
