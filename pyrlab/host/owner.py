"""Whose labs, volumes and images are on an engine that several people, or several checkouts of one, may use."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyrlab.host.project import Project
from pyrlab.model.locked import digest
from pyrlab.model.problem import Problem

USER, CHECKOUT, LAB = "org.pyrlab.user", "org.pyrlab.checkout", "org.pyrlab.lab"  # labels


def name() -> str:
    """Who types make, as others would call them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        return str(os.getuid())


def labels(checkout: Path) -> list[str]:
    """The labels of what this user's checkout makes."""
    return [f"{USER}={name()}", f"{CHECKOUT}={checkout}"]


def remove_containers(project: Project, label: str, *filters: str) -> None:
    """Remove those of this user's checkout that have a label, and whatever else `filters` of docker ps ask for."""
    asked = (f"--filter={each}" for each in (*filters, *(f"label={each}" for each in (label, *labels(project.root)))))
    if found := project.engine.run("ps", "--all", "--quiet", *asked).split():
        project.engine.run("rm", "--force", *found)


def mark(project: Project) -> str:
    """What tells what this user's checkout makes from what others make, in the tag of an image."""
    return digest(" ".join(labels(project.root)))[:8]


def is_own(project: Project, found: Mapping[str, str] | None) -> bool:
    """Whether labels are of this user's checkout, or of one that has moved; so is what has no such labels."""
    user, checkout = ((found or {}).get(label, "") for label in (USER, CHECKOUT))
    return user in ("", name()) and (checkout in ("", str(project.root)) or is_gone(Path(checkout)))


def is_gone(checkout: Path) -> bool:
    """Whether a checkout is no more where it was; of a place where this user may not look, as /root, nobody knows."""
    try:
        return not checkout.exists()
    except OSError:
        return False


def check(project: Project, found: Mapping[str, str] | None, thing: str, mend: str) -> None:
    """Raise Problem where the labels that were `found` say that a thing is somebody else's."""
    if found and not is_own(project, found):
        raise Problem(f"{thing} is of {found[USER]}, made in {found[CHECKOUT]}{mend}")


def inspect(project: Project, kind: str, thing: str) -> dict[str, Any] | None:
    """The container or the volume of a lab, None where there is none; raises Problem where it is somebody else's."""
    found = project.engine.inspect(kind, thing)
    labels = (found and found.get("Config", found)["Labels"]) or {}
    mend = "; PROJECT names a set of labs of your own, as in make PROJECT=mine pylab"
    if found and kind == "container" and LAB not in labels:
        raise Problem(f"the container {thing} is no lab that make has started{mend}")
    check(project, labels, f"the {kind} {thing}", mend)
    return found


def claim_volume(project: Project, thing: str, *others: str) -> None:
    """Make a volume with its owner, and other labels; one that there is stays as it is."""
    given = (f"--label={label}" for label in [*others, *labels(project.root)])
    project.engine.run("volume", "create", *given, thing)


def tag_volume(project: Project) -> str:
    """The name of the empty volume by whose labels one knows whose the images of a tag are: they have no such label."""
    return f"pyrlab_tag_{project.parameter('TAG')}"


def of_tag(project: Project) -> dict[str, str]:
    """The labels that say whose the images of TAG are; none where nobody's checkout has built any."""
    found = project.engine.inspect("volume", tag_volume(project)) or {}
    return found.get("Labels") or {}


def check_tag(project: Project, image: str) -> None:
    """Raise Problem where another checkout's image would be replaced by another one."""
    beside = "TAG gives yours a place beside it, as in make TAG=mine build, which goes on with what is built now"
    check(project, of_tag(project), image, f", and would be replaced; {beside}")


def others(project: Project) -> list[str]:
    """The other users, and this one's other checkouts, that have built images on this engine."""
    names = project.engine.run("volume", "ls", "--quiet", "--filter", "name=^pyrlab_tag_").split()
    labels = [volume["Labels"] for volume in project.engine.described("volume", names)]
    foreign = [found for found in labels if not is_own(project, found)]
    return sorted({found[CHECKOUT if found[USER] == name() else USER] for found in foreign})
