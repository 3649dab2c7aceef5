"""Whose labs, volumes and images are on an engine that several people, or several checkouts of one, may use."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyrlab.host.docker import ROOT, docker, inspect, parameter
from pyrlab.model.problem import Problem

USER, CHECKOUT = "org.pyrlab.user", "org.pyrlab.checkout"  # labels


def name() -> str:
    """Who types make, as others would call them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        return str(os.getuid())


def labels() -> dict[str, str]:
    """The labels of what this user's checkout makes."""
    return {USER: name(), CHECKOUT: str(ROOT)}


def environment() -> dict[str, str]:
    """The same, for compose.yaml."""
    return {"OWNER_USER": name(), "OWNER_CHECKOUT": str(ROOT)}


def is_own(found: Mapping[str, str] | None) -> bool:
    """Whether labels are of this user's checkout, or of one that has moved; so is what has no such labels."""
    user, checkout = ((found or {}).get(label, "") for label in (USER, CHECKOUT))
    return user in ("", name()) and (checkout in ("", str(ROOT)) or not Path(checkout).exists())


def stranger(found: Mapping[str, str]) -> str:
    """Who something is of that is not this user's checkout's."""
    return f"{found[USER]}, made in {found[CHECKOUT]}"


def check(kind: str, thing: str, found: Mapping[str, str] | None) -> None:
    """Raise Problem where a container or a volume of a lab is somebody else's."""
    if not is_own(found):
        assert found
        other = "PROJECT names a set of labs of your own, as in make PROJECT=mine pylab"
        raise Problem(f"the {kind} {thing} is of {stranger(found)}; {other}")


def container(thing: str) -> dict[str, Any] | None:
    """The container of a lab, None where there is none; raises Problem where it is somebody else's."""
    found = inspect("container", thing)
    if found:
        check("container", thing, found["Config"]["Labels"])
    return found


def volume(thing: str) -> dict[str, Any] | None:
    """The same of the volume of a lab."""
    found = inspect("volume", thing)
    if found:
        check("volume", thing, found["Labels"])
    return found


def claim_volume(thing: str, project: str, key: str) -> None:
    """Make the volume of a lab, as Compose would, with its owner; raises Problem where it is somebody else's.

    Compose knows it by the name of its `project` and by its `key` in compose.yaml.
    """
    if volume(thing):
        return
    given = {"com.docker.compose.project": project, "com.docker.compose.volume": key, **labels()}
    docker("volume", "create", *(f"--label={label}={value}" for label, value in given.items()), thing)


def tag_volume() -> str:
    """The name of the empty volume by whose labels one knows whose the images of a tag are: they have no such label."""
    return f"pyrlab_tag_{parameter('TAG', 'latest')}"


def claim_tag() -> None:
    """Note that the images of TAG are this checkout's."""
    if not inspect("volume", tag_volume()):
        docker("volume", "create", *(f"--label={label}={value}" for label, value in labels().items()), tag_volume())


def check_tag(image: str) -> None:
    """Raise Problem where another checkout's image would be replaced by another one."""
    found = (inspect("volume", tag_volume()) or {}).get("Labels")
    if not is_own(found):
        assert found
        beside = "TAG gives yours a place beside it, as in make TAG=mine build, which goes on with what is built now"
        raise Problem(f"{image} is of {stranger(found)}, and would be replaced; {beside}")


def others() -> list[str]:
    """The other users who have built images on this engine."""
    form = f'{{{{.Label "{USER}"}}}}'
    found = {*docker("volume", "ls", "--filter", "name=^pyrlab_tag_", "--format", form).split()}
    return sorted(found - {name()})


def release_tag() -> None:
    """Forget whose the images of TAG were."""
    docker("volume", "rm", tag_volume(), check=False)
