"""Share packages out to layers, so that a change to one package changes one layer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pyrlab.steps.pieces import Piece

# Bytes; a package of this size or more gets a layer of its own while there are any. Python's have their bytecode.
LARGE = {"Python": 12_000_000, "Debian": 4_000_000, "R": 4_000_000}
SMALL = 400_000  # bytes; a package below that, as most that are added later, shares a layer with its like
LONG = 160  # characters of a layer's description


def bin_of_name(name: str, count: int) -> int:
    """A bin from 0 to `count` - 1 that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % count


def assign(sizes: Mapping[str, int], count: int, large: int, small: int) -> dict[str, int]:
    """Give every package (name to bytes) one of `count` bins.

    Packages of at least `large` bytes get a bin each in the first half, the largest first where there
    are too many; by a hash of their name, those of less than `small` bytes share the last quarter, and the others
    the one before. So a small package moves no other one, and sends no larger ones with it; a large one that comes
    or goes moves at most other large ones; and since an engine unpacks every layer above a changed one again, what
    changes most often stands last.
    """
    half = count // 2
    middle = (count - half) // 2
    own = sorted((name for name in sizes if sizes[name] >= large), key=lambda name: (-sizes[name], name))[:half]
    bins = {
        name: half + bin_of_name(name, middle)
        if middle and size >= small
        else half + middle + bin_of_name(name, count - half - middle)
        for name, size in sizes.items()
    }
    taken: set[int] = set()
    for name in sorted(own):
        slot = bin_of_name(name, half)
        while slot in taken:
            slot = (slot + 1) % half
        taken.add(slot)
        bins[name] = slot
    return bins


def groups(pieces: Mapping[str, Piece], count: int, ecosystem: str) -> list[tuple[str, list[Piece]]]:
    """The packages of each layer of an ecosystem, of at most `count`, with a description."""
    bins = assign({name: piece.size for name, piece in pieces.items()}, count, LARGE[ecosystem], SMALL)
    shared = [sorted(name for name in bins if bins[name] == number) for number in range(count)]
    return [(described(names), [pieces[name] for name in names]) for names in shared if names]


def described(names: list[str]) -> str:
    """What docker history says of a layer of some packages."""
    words = ""
    for number, name in enumerate(names):
        if len(words) + len(name) > LONG:
            return f"{words}and {len(names) - number} more"
        words += f"{name} "
    return words.rstrip()
