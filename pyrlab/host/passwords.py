"""The passwords in the addresses of Python lists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from pyrlab.host.project import Project
from pyrlab.model.checkout import without_comment
from pyrlab.model.problem import Problem

USER = re.compile(r"(?<=://)([^/\s@]+)@([^/\s:]+)")  # and password, of an address, and its host
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")


def netrc(project: Project) -> str:
    """The users and passwords of the lists' addresses, by host, as uv and pip look them up."""
    found: dict[str, str] = {}
    lists = project.checkout
    texts = {name: text for path in lists.own for name, text in lists.texts(path).items()}
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
