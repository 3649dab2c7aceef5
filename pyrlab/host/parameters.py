"""The Makefile's parameters as people write them: taken as they are meant, or refused before anything is made."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from pyrlab.model import proxies

DEFAULTS = {  # as the Makefile has them, where one is empty, or where make does not hand them on
    "TAG": "latest",
    "PROJECT": "pyrlab",
    "FILES": "~/notebooks",
    "BASE": "auto",
    "PYTHONBASE": "python:3.14-slim-trixie",
    "A": "HEAD",
    "B": "latest",
    "APTPORT": "3142",
    "PIPPORT": "3141",
}
PATHS = ("FILES", "CACERT")
ADDRESSES = (*proxies.REPOSITORIES, "PIPHOST", *proxies.ADDRESSES)  # may hold a password
PORTS = ("PORT", "RPORT", "PYRPORT", "TBPORT", "APTPORT", "PIPPORT")
OTHERS = ("TZ", "SHM", "no_proxy", "SSH_OPTIONS", "P", "A", "B")  # which may be anything, or are looked at elsewhere


RULES = {  # what a value must look like, and what is said of one that does not
    "TAG": (
        r"\w[\w.-]{0,99}",
        "cannot be the tag of images; it has at most 100 letters, digits, '_', '.' and '-', and begins with neither "
        "of the last two, as in TAG=mine",
    ),
    "PROJECT": (
        r"[a-z0-9][a-z0-9_-]*",
        "cannot be the prefix of containers; it has small letters, digits, '_' and '-', and begins with neither of "
        "the last two, as in PROJECT=mine",
    ),
    "BASE": ("auto|registry|debian", "is none of auto, registry and debian"),
    "ENGINE": ("external", "is neither external nor empty"),
    "SAVE": ("yes|no", "is neither yes nor no"),
    "RUNS": (r"[1-9]\d*", "is no number"),
    "PYTHONBASE": (r"[\w./:@-]+", "is no name of an image; write it as in PYTHONBASE=python:3.14-slim-trixie"),
    "HOST": (r"[^\s-]\S*", "is no server; write it as in HOST=user@server"),
}
NAMES = tuple(dict.fromkeys((*PORTS, *RULES, *PATHS, *ADDRESSES, *OTHERS)))


def meant(root: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The environment `given`, in which the parameters are as they are meant in the checkout `root`."""
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)  # so that ~ is what the system has as this user's home, and not /
    found = {**given, "FILES": unquoted(given.get("FILES", "")) or DEFAULTS["FILES"]}
    for name in NAMES:
        if found.get(name):
            value = expanded(unquoted(found[name])) if name in PATHS else unquoted(found[name])
            found[name] = str(root / value) if name == "FILES" and is_folder(root, value) else value
    return found


def wrong(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """A sentence on each parameter that cannot be right."""
    about = {name: wrong_with(name, environment.get(name, ""), str(root)) for name in NAMES}
    misplaced = misspelt(environment.get("GIVEN", "").split(), used(root)) | misread(root / "local.mk", environment)
    return misplaced | {name: problem for name, problem in about.items() if problem}


def used(root: Path) -> set[str]:
    """The names that mean something besides: the ports of images.toml, and whatever local.mk makes use of."""
    files = (path for path in (root / "images.toml", root / "local.mk") if path.is_file())
    text = "\n".join(path.read_text(errors="replace") for path in files)
    return {*re.findall(r"""(?:\bport\s*=\s*["']|\$[({])(\w+)""", text)}


def misspelt(given: list[str], others: Collection[str]) -> dict[str, str]:
    """A sentence for each name on the command line or in local.mk that is likely to be meant for a parameter."""
    found = {}
    near = {name.upper(): name for name in NAMES}
    for name in (name for name in given if name not in others):
        close = difflib.get_close_matches(name.upper(), near, 1, 0.75)
        if name not in NAMES and name.lower() not in NAMES and close:
            found[name] = f"{name} is no parameter; did you mean {near[close[0]]}?"
    return found


def misread(local: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """A sentence for each parameter in local.mk that make takes for something else than it looks."""
    text = local.read_text(errors="replace") if local.is_file() else ""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        parts = re.fullmatch(r"(?:export\s+|override\s+)*(\w+)\s*([:?+]*=|:)(.*)", line.strip())
        if not parts or parts[1] not in NAMES:
            continue
        name, sign, value = parts.groups()
        unknown = [
            word
            for word in re.findall(r"\$[({](\w+)[)}]", value.partition("#")[0])
            if not is_known(word, text, environment)
        ]
        if sign == ":":
            found[name] = f"local.mk line {number} gives {name} no value; write {name} ={value}"
        elif name in (*PATHS, *ADDRESSES) and re.search(r"[^\s\\]#", value):
            found[name] = f"local.mk line {number}: make ends {name} before the #; write \\# for one that belongs to it"
        elif unknown:
            found[name] = f"local.mk line {number}: $({unknown[0]}) in {name} is not set; write out what it stands for"
    return found


def is_known(variable: str, local: str, environment: Mapping[str, str]) -> bool:
    """Whether make has a value for a variable of local.mk, or may have one."""
    set_here = rf"\b{variable}\s*[:?+]*=|\bdefine\s+{variable}\b|^-?include\b"
    return variable in (*NAMES, *environment, "CURDIR") or re.search(set_here, local, re.MULTILINE) is not None


def unquoted(given: str) -> str:
    """A value without blanks around it, and without the quotation marks that make, unlike a shell, leaves there."""
    value = given.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" and value.count(value[0]) == 2:
        return value[1:-1].strip()
    return value


def expanded(path: str) -> str:
    """A path in which ~, $HOME and a backslash mean what they do in a shell."""
    text = os.path.expandvars(re.sub(r"\\(\W)", r"\1", path))
    return os.path.expanduser(text)  # noqa: PTH111  # which leaves ~nobody-known as it is


def is_folder(root: Path, path: str) -> bool:
    """Whether a path says on purpose where it is: from the root, or from the checkout."""
    return path.startswith(("/", "./", "../")) or path in (".", "..") or (root / path).is_dir()


def wrong_with_address(name: str, value: str) -> str:
    """The same of an address."""
    if re.search(r"""\s|^["'`]|["'`]$""", value):
        return f"{name} has a blank in it, or a quotation mark at one end, which no address has"
    if name in proxies.REPOSITORIES and "://" not in value:
        return f"{name} lacks http:// or https:// at its beginning"
    return ""


def wrong_with(name: str, value: str, root: str = "") -> str:
    """A sentence on a parameter that cannot be right; empty where it may be. The checkout `root` may have any name."""
    if not value:
        return ""
    if name in ADDRESSES:
        return wrong_with_address(name, value)
    if not value.isprintable():
        return f"{name}={value!r} has a character in it that cannot be printed"
    if name in PATHS and (unset := re.search(r"\$\w+|\$\{\w+\}", value.removeprefix(root))):
        return f"{name}={value} cannot be right: {unset[0]} is not set"
    if name == "FILES" and not value.startswith("/"):
        return f"FILES={value} is no full path; write it from / or ~ on, or from ./ for a folder of this checkout"
    pattern, said = RULES.get(name, (".*", ""))
    right = re.fullmatch(pattern, value, re.ASCII)
    return wrong_with_port(name, value) if name in PORTS else f"{name}={value} {said}" * (not right)


def wrong_with_port(name: str, value: str) -> str:
    """The same on a port, be it of an image of the user's own."""
    right = re.fullmatch(r"[1-9]\d{0,4}", value, re.ASCII) and int(value) < 65536
    return "" if right else f"{name}={value} is no port number; choose one from 1024 to 65535"
