"""Tables for people, and files of theirs."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path


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


def write_whole(path: Path, text: str, errors: str = "strict") -> None:
    """Write a file that is never there in part: where the disk is full it stays what it was. A link stays one."""
    whole = path.resolve()
    part = whole.with_name(f".{whole.name}.part")
    try:
        part.write_text(text, errors=errors)
        if whole.exists():
            shutil.copymode(whole, part)
        part.replace(whole)
    finally:
        part.unlink(missing_ok=True)
