"""Tables for people."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Collection[int]) -> str:
    """One line a row, its cells two blanks apart; the columns `right` are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def megabytes(size: int, sign: str = "") -> str:
    """A size in bytes as megabytes, with `sign` "+" always with its sign."""
    return f"{size / 1e6:{sign},.1f} MB"
