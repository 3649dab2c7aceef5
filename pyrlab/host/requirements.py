"""The files of the checkout that Python lists as requirements.txt point at, and the passwords in their addresses."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from pyrlab.host.project import Project
from pyrlab.model.problem import Problem

WHEEL = re.compile(r"\s*(?:[^\s@]+\s*@\s*file:)?(?!\w+:)([^\s;@]+?\.whl)\b")
USER = re.compile(r"(?<=://)([^/\s@]+)@([^/\s:]+)")  # and password, of an address, and its host
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")


def inside(root: Path, path: str) -> bool:
    """Whether there is such a file in the checkout, named by its place there."""
    place = (root / path).resolve()
    return not Path(path).is_absolute() and place.is_file() and place.is_relative_to(root.resolve())


def own(project: Project) -> list[str]:
    """The user's lists of Python packages."""
    python = (each.file for each in project.table.lists if each.ecosystem == "Python")
    return [file for file in python if not file.startswith("docker/")]


def lists(root: Path, path: str, constraints: bool = True) -> dict[str, str]:
    """The text of the list `path` and of those that it points at, by their place; `constraints` ask for no package."""
    pointers = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)  # as pip reads them
    pointers.add_argument("-r", "--requirement", action="append", default=[])
    pointers.add_argument("-c", "--constraint", action="append", default=[])
    found: dict[str, str] = {}
    pending = [path]
    while pending:
        name = pending.pop(0)
        if name in found or not inside(root, name):  # what is wrong with such a line, the build says
            continue
        found[name] = (root / name).read_text(encoding="utf-8", errors="surrogateescape").removeprefix("\ufeff")
        for line in found[name].splitlines():
            try:
                words = shlex.split(without_comment(line))
                options = pointers.parse_known_args(words if words[:1] and words[0].startswith("-") else [])[0]
            except (ValueError, argparse.ArgumentError):
                continue
            named = [*options.requirement, *(options.constraint if constraints else ())]
            pending += [os.path.normpath(Path(name).parent / other) for other in named]
    return found


def without_comment(line: str) -> str:
    """A line without what follows a #."""
    return re.sub(r"(^|\s)#.*", "", line)


def wheels(root: Path, path: str) -> list[str]:
    """The wheels in the checkout that a list names, by their path."""
    lines = (line for text in lists(root, path, constraints=False).values() for line in text.splitlines())
    named = (WHEEL.match(without_comment(line)) for line in lines)
    return sorted({os.path.normpath(found[1]) for found in named if found and inside(root, found[1])})


def stage(project: Project, folder: Path) -> None:
    """Put the lists and wheels where a build sees them."""
    for path in own(project):
        write(lists(project.root, path), folder)
        for wheel in wheels(project.root, path):
            copy(project.root / wheel, folder / wheel)


def copy(path: Path, target: Path) -> None:
    """Copy a file, and make the folders that it goes to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def write(texts: dict[str, str], folder: Path) -> None:
    """Write lists into a folder, each at its place, without passwords."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(without_passwords(text), encoding="utf-8", errors="surrogateescape")


def without_passwords(text: str) -> str:
    """A list's text in which no address has a user and a password."""
    return re.sub(r"(?<=[a-z]://)(?<!ssh://)[^/\s@]+@", "", text)


def netrc(project: Project) -> str:
    """The users and passwords of the lists' addresses, by host, as uv and pip look them up."""
    found: dict[str, str] = {}
    texts = {name: text for path in own(project) for name, text in lists(project.root, path).items()}
    for name, text in texts.items():
        for number, line in enumerate(text.splitlines(), start=1):
            where = f"{name} line {number}"
            for user, host in USER.findall(without_comment(line)):
                if "ssh://" in line:
                    continue
                if "git+" in line:
                    raise Problem(
                        f"{where}: what is in the address of a git repository would be in every image; build a wheel "
                        "of it and name that, as in ./wheels/NAME.whl"
                    )
                login, _, password = (
                    unquote(expanded(part, project.environment, where)) for part in user.partition(":")
                )
                entry = f"machine {host} login {login}{password and f' password {password}'}\n"
                if found.setdefault(host, entry) != entry:
                    raise Problem(f"{where}: {host} is named with another user or password before")
    return "".join(found.values())


def expanded(text: str, environment: Mapping[str, str], where: str) -> str:
    """A text in which ${NAME} is what the environment has for it, as pip reads lists."""
    for name in VARIABLE.findall(text):
        if name not in environment:
            raise Problem(f"{where}: the variable {name} is not set in the environment")
    return VARIABLE.sub(lambda found: environment[found[1]], text)
