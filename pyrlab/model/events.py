"""What a build step tells make: events, each a marked line of JSON, which nothing else that is printed is taken for.

{"event": "step", "what": "Debian packages"}                            what is done now
{"event": "note", "what": "…", "where": "requirements.txt line 3"}      what the user should know although all is well
{"event": "problem", "what": "…", "where": "…"}                         why the step has failed; it may say several
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from pyrlab.model.problem import Problem

MARK = "pyrlab-event: "


def marked(event: str, **about: object) -> str:
    """An event as a line."""
    return MARK + json.dumps({"event": event, **about})


def step(what: str) -> None:
    """Tell what is done now."""
    print(marked("step", what=what), flush=True)


def note(what: str, where: str = "") -> None:
    """Tell what the user should know."""
    print(marked("note", what=what, where=where), flush=True)


def run(main: Callable[[], None]) -> None:
    """Run a step; tell the problem that ends it, if one does."""
    try:
        main()
    except Problem as problem:
        sys.exit("\n".join(map(told, [problem, *problem.others])))


def told(problem: Problem) -> str:
    """A problem as an event."""
    about = {name: value for name, value in vars(problem).items() if value and name != "others"}
    return marked("problem", **about)
