"""Print the targets and parameters of the Makefile, from its own comments (make help)."""

from __future__ import annotations

import re

from pyrlab.docker import ROOT, parameter, run_main
from pyrlab.online import without_password


def targets(makefile: str) -> list[tuple[str, str]]:
    """(target, help) in order; a heading is ("", heading)."""
    found = re.findall(r"^(?:##@ (.+)|([a-z_]+):.*?## (.+))$", makefile, re.MULTILINE)
    return [("", heading) if heading else (target, text) for heading, target, text in found]


def parameters(makefile: str) -> list[tuple[str, str]]:
    """(parameter, meaning) in order."""
    return re.findall(r"^(\w+) +\?=.*? # (.+)$", makefile, re.MULTILINE)


def main() -> None:
    """Print both."""
    makefile = (ROOT / "Makefile").read_text()
    print("pyrlab: write package lists, type make pylab or make rlab, work in the browser.")
    for target, text in targets(makefile):
        print(f"  make {target:<13} {text}" if target else f"\n{text}")
    print("\nParameters, as in: make start_pylab PORT=8890   (or in local.mk)")
    for name, meaning in parameters(makefile):
        value = without_password(parameter(name))
        print(f"  {name:<11} {meaning}{f' [{value}]' if value else ''}")


if __name__ == "__main__":
    run_main(main, whatever=True)
