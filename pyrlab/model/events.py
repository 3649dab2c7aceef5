"""What a build step tells make: events, each a marked line of JSON, which nothing else that is printed is taken for.

{"event": "step", "what": "Debian packages"}                            what is done now
{"event": "note", "what": "…", "where": "requirements.txt line 3"}      what the user should know although all is well
{"event": "problem", "what": "…", "where": "…"}                         why the step has failed; it may say several

A problem may have `words`: whose own words, which stand above, say more; and `moved`, if another lock would mend it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NoReturn

MARK = "pyrlab-event: "


@dataclass(frozen=True)
class Problem:
    """Why a step cannot go on."""

    what: str
    where: str = ""
    words: str = ""
    moved: bool = False

    def __str__(self) -> str:
        above = f"; {self.words}'s own words stand above" if self.words else ""
        return f"{f'{self.where}: ' if self.where else ''}{self.what}{above}"

    @property
    def line(self) -> str:
        """The event."""
        return marked("problem", **{name: value for name, value in vars(self).items() if value})


class Stop(SystemExit):
    """Ends a step, which tells its problems then."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(problem.line for problem in problems))
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def marked(event: str, **about: object) -> str:
    """An event as a line."""
    return MARK + json.dumps({"event": event, **about})


def step(what: str) -> None:
    """Tell what is done now."""
    print(marked("step", what=what), flush=True)


def note(what: str, where: str = "") -> None:
    """Tell what the user should know."""
    print(marked("note", what=what, where=where), flush=True)


def stop(what: str, where: str = "", words: str = "", moved: bool = False) -> NoReturn:
    """End the step with a problem."""
    raise Stop(Problem(what, where, words, moved))
