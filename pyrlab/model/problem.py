"""The one way in which pyrlab reports what has gone wrong."""

from __future__ import annotations

from collections.abc import Iterable


class Problem(Exception):
    """What went wrong, where, and what to do, in one sentence for the user, and in one for each of `others`."""

    def __init__(self, what: str, where: str = "", words: str = "", moved: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.where = where  # the list and its line, or the lock
        self.words = words  # whose own words, which stand above, say more
        self.moved = moved  # whether another lock would mend it
        self.others: list[Problem] = []

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Problem:
        """Several as one: the first, with the others."""
        first, *others = problems
        first.others += others
        return first

    def __str__(self) -> str:
        above = f"; {self.words}'s own words stand above" if self.words else ""
        own = f"{f'{self.where}: ' if self.where else ''}{self.what}{above}"
        return "\n".join([own, *map(str, self.others)])
