"""Print the targets and parameters of the Makefile, from its own comments (make help).

python3 -m pyrlab.host.help --readme      write the tables of README.md that the Makefile and images.toml have
python3 -m pyrlab.host.help TARGET        say that there is no such target, and which may have been meant
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence

from pyrlab.host.online import without_password
from pyrlab.host.parameters import ADDRESSES
from pyrlab.host.project import Project, run_main
from pyrlab.model.problem import Problem

WORK = "Work in a lab"  # begins the heading of the targets that README.md lists


def sections(makefile: str) -> dict[str, list[tuple[str, str]]]:
    """The targets with their help, in order, by heading; of a pattern for labs or images with LAB or IMAGE."""
    found: dict[str, list[tuple[str, str]]] = {}
    lines = r"^(?:##@ (.+)|(?:\$\(IMAGES.*?\): )?([a-z_%]+):.*?## (.+))$"
    for heading, target, text in re.findall(lines, makefile, re.MULTILINE):
        if heading:
            found[heading] = []
        else:
            found[[*found][-1]].append((target.replace("%", "IMAGE" if target == "build_%" else "LAB"), text))
    return found


def parameters(makefile: str) -> list[tuple[str, str, str]]:
    """(parameter, default, meaning) in order; a default that is another variable is its name."""
    found = re.findall(r"^(\w+) +\?= *(.*?) *# (.+)$", makefile, re.MULTILINE)
    return [(name, re.sub(r"\$\((?:value )?(\w+)\)", r"\1", default), text) for name, default, text in found]


def tables(project: Project) -> dict[str, str]:
    """The tables of README.md, by the name in the marker above each."""
    makefile = (project.root / "Makefile").read_text()
    work = next(targets for heading, targets in sections(makefile).items() if heading.startswith(WORK))
    images = [
        (image.name, image.parent or "the Python image", ", ".join(each.file for each in image.lists), image.port)
        for image in project.table.values()
    ]
    return {
        "commands": markdown(("command", "what it does"), [(f"make {target}", text) for target, text in work]),
        "images": markdown(("image", "starts from", "has besides", "listens at"), images),
        "parameters": markdown(("name", "default", "meaning"), parameters(makefile)),
    }


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown has it, whose first column is code."""
    lines: list[Sequence[str]] = [head, ["---"] * len(head), *([f"`{first}`", *rest] for first, *rest in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("|  |", "| |")


def with_tables(project: Project, readme: str) -> str:
    """The text of README.md with its tables as they are now."""
    for name, text in tables(project).items():
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        readme = between.sub(rf"\g<1>{text}\g<2>", readme)
    return readme


def unknown(project: Project, target: str) -> Problem:
    """What to say of a target that there is not."""
    makefile = (project.root / "Makefile").read_text()
    patterns = [pattern for targets in sections(makefile).values() for pattern, _ in targets]
    known = [
        pattern.replace("LAB", name).replace("IMAGE", name)
        for pattern in patterns
        for name in (project.table if "IMAGE" in pattern else project.table.labs)
    ]
    near = difflib.get_close_matches(target, known, 1)
    return Problem(
        f"there is no target {target}; {f'did you mean make {near[0]}?' if near else 'make help shows what there is'}"
    )


def main(project: Project) -> None:
    """Print both, or write the tables, or refuse a target."""
    if sys.argv[1:] == ["--readme"]:
        readme = project.root / "README.md"
        readme.write_text(with_tables(project, readme.read_text()))
        return
    if sys.argv[1:]:
        raise unknown(project, sys.argv[1])
    makefile = (project.root / "Makefile").read_text()
    print("pyrlab: write package lists, type make pylab or make rlab, work in the browser.")
    for heading, targets in sections(makefile).items():
        print(f"\n{heading}".replace(": LAB", f": LAB is {', '.join(project.table.labs)}"))
        for target, text in targets:
            print(f"  make {target:<13} {text}")
    print("\nParameters, as in: make start_pylab PORT=8890   (or in local.mk)")
    for name, _, meaning in parameters(makefile):
        value = project.environment.get(name, "")
        value = without_password(value) if name in ADDRESSES else value
        print(f"  {name:<11} {meaning}{f' [{value}]' if value else ''}")


if __name__ == "__main__":
    run_main(main, whatever=True)
