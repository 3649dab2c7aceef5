"""Where BuildKit says that a build has failed whose results are there, as on a busy disk, the build goes on."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from bare import write_script
from pyrlab.host import bake
from pyrlab.host.archive import new_layers
from pyrlab.host.engine import Engine
from pyrlab.host.progress import Progress
from pyrlab.host.project import Project
from pyrlab.host.session import alone
from pyrlab.host.state import Image
from pyrlab.model.problem import Problem

# What Buildx 0.13 says where BuildKit could not write its history in time, and where its cache was pruned meanwhile.
LATE = "ERROR: failed to solve: DeadlineExceeded: context deadline exceeded"
PRUNED = "ERROR: failed to solve: not found"
UNKNOWN = "ERROR: failed to solve: python:3-slum: failed to resolve source metadata: python:3-slum: not found"


@pytest.fixture
def stumbling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """A checkout where every build ends with $WORDS, waits for no other of this user, and is noted."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(bake, "PAUSE", 0)
    (tmp_path / ".cache").mkdir()
    script = """
    [ $1 != info ] || { echo '{"ServerVersion": "'${VERSION:-26.1.5}'"}'; exit 0; }
    [ $2 != prune ] || { echo $* >>pruned; exit 0; }
    [ ! -e shown ] || [ $2 != du ] || exec /bin/cat shown
    echo $2 >>asked; [ "$2" != bake ] || echo FROM scratch >$TMPDIR/Dockerfile; echo "$WORDS" >&2; exit 1
    """
    write_script(tmp_path / "docker", f"#!/bin/sh\n{script}\n")
    return Project(tmp_path, {"PATH": str(tmp_path), "TMPDIR": str(tmp_path), "WORDS": LATE})


def asked(project: Project) -> list[str]:
    """The commands of Buildx that were asked for."""
    return (project.root / "asked").read_text().split()


def test_one_build_at_a_time(tmp_path: Path) -> None:
    """Who waits for make clean to end is alone after it, too, though that has removed what they waited at."""
    project, entered, done = Project(tmp_path, {}), threading.Event(), threading.Event()

    def build() -> None:
        with alone(project):
            entered.set()
            done.wait(60)

    waiting = threading.Thread(target=build)
    with alone(project), redirect_stderr(StringIO()) as said:
        waiting.start()
        while bake.WAITING not in said.getvalue():
            waiting.join(0.01)
            assert waiting.is_alive()
        shutil.rmtree(project.cache)
    try:
        assert entered.wait(60)
        with (project.cache / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        done.set()
        waiting.join()


def test_all_is_there(stumbling: Project) -> None:
    """Nothing is built again that is there."""
    with Progress([], stumbling.root / "log") as progress:
        bake.bake(stumbling, "pylab", progress, {}, done=lambda: True)
    assert asked(stumbling).count("bake") == 1


def test_nothing_is_left(stumbling: Project) -> None:
    """Of what Buildx puts among the temporary files nothing stays."""
    with Progress([], stumbling.root / "log") as progress:
        bake.bake(stumbling, "pylab", progress, {}, done=lambda: True)
    assert not [*stumbling.root.rglob("Dockerfile")]


def test_something_is_lost(stumbling: Project) -> None:
    """What the engine has lost of its build cache it is told to forget, with all that rests on it, and makes anew."""
    (stumbling.root / "shown").write_text("".join(shown_by_buildx({**chain("step", 3), **chain("other", 2)})))
    lost = f"ERROR: failed to solve: failed to mount: snapshot {[*chain('step', 3)][1]} does not exist: not found"
    with Progress([], stumbling.root / "log") as progress, pytest.raises(Problem, match="does not exist"):
        bake.bake(stumbling, "pylab", progress, {"WORDS": lost}, attempts=2)
    assert asked(stumbling).count("bake") == 2
    assert re.findall(r"\b(?:step|other)\d\w+", (stumbling.root / "pruned").read_text()) == ["step0100", "step0200"]


@pytest.mark.parametrize(("words", "times"), [(LATE, 3), (PRUNED, 3), (UNKNOWN, 1)])
def test_something_is_wanting(stumbling: Project, words: str, times: int) -> None:
    """What is not there is asked for again, a few times, and then the user reads why; not what is nowhere."""
    with Progress([], stumbling.root / "log") as progress, pytest.raises(Problem, match=f"^the build failed: {words}$"):
        bake.bake(stumbling, "pylab", progress, {"WORDS": words}, attempts=3)
    assert asked(stumbling).count("bake") == times


@pytest.mark.parametrize(("version", "many"), [("26.1.5+dfsg1", bake.SOON), ("28.5.2", bake.MANY)])
def test_what_builds_leave(stumbling: Project, version: str, many: int) -> None:
    """It is looked for at the first build after the machine's start, and after one where it may be much for an engine.

    Where none ends well, it is before one begins; and never while another one goes on.
    """
    engine = Engine(stumbling.root, {**stumbling.environment, "VERSION": version})
    looked = []
    for layers in (many - 1, 1, 1, bake.MANY):
        with bake.turn(engine, layers):
            bake.tidy(engine)
            looked.append(asked(stumbling).count("du"))
        bake.tidy(engine)
        looked.append(asked(stumbling).count("du"))
    assert looked == [1, 1, 1, 2, 3, 3, 3, 4]
    for _ in range(2):
        with bake.turn(engine, bake.MANY):
            looked.append(asked(stumbling).count("du"))
    assert looked[-2:] == [5, 6]


@pytest.mark.parametrize(
    ("own", "before", "parent", "new"),
    [("abcd", "", "", 4), ("abcd", "abxy", "a", 2), ("abcd", "abcd", "a", 0), ("abcd", "xbcd", "ab", 2)],
    ids=["the first", "one more package", "nothing", "another parent"],
)
def test_layers_that_builds_start_from(own: str, before: str, parent: str, new: int) -> None:
    """Those count that BuildKit has not seen one upon the other."""
    base = Image("base", "", "", {}, None, stored(parent)) if parent else None
    image = Image("lab", "", "", {}, base, stored(before) if before else None)
    assert new_layers(image, [{"diff_id": layer} for layer in own]) == new


def stored(layers: str) -> dict[str, Any]:
    """What the engine knows of an image with such layers."""
    return {"RootFS": {"Layers": [*layers]}}


def chain(name: str, length: int) -> dict[str, str]:
    """Records of BuildKit's cache, each with the one that it rests on: an image's layers, and a step."""
    ids = [f"{name}{number:02}".ljust(25, "0") for number in range(length)]
    return dict(zip(ids, ["", *ids], strict=False))


def shown_by_buildx(records: dict[str, str], own: Collection[str] = ()) -> Iterator[str]:
    """What buildx du shows of records, of which those of one's own are what no later build can use."""
    for name, parent in records.items():
        about = "Shared: true" if name in own else "Description: mount / from exec"
        yield f"ID:\t\t{name}\nParent:\t\t{parent}\nReclaimable:\ttrue\nType:\t\tregular\n{about}\n\n"


@pytest.mark.parametrize(
    ("version", "own", "images", "removed"),
    [
        ("26.1.5+dfsg1", 0, 4, {"long"}),
        ("26.1.5+dfsg1", 1, 4, {"long", "step"}),
        ("26.1.5+dfsg1", 1, 3, {"step"}),
        ("26.1.5+dfsg1", 1, 2, set()),
        ("28.5.2", 1, 4, {"step"}),
    ],
    ids=["many of others", "many", "too much together", "few", "a newer engine"],
)
def test_what_is_forgotten(tmp_path: Path, version: str, own: int, images: int, removed: set[str]) -> None:
    """Of builds nothing stays that would keep an old engine from starting again; else that which others may use."""
    long = {name: parent for image in range(images) for name, parent in chain(f"long{image}", 62).items()}
    steps = chain("step", 62 * own)
    records = {**long, **steps, **chain("short", 12)}
    (tmp_path / "shown").write_text("".join(shown_by_buildx(records, own=steps)))
    info = json.dumps({"ServerVersion": version})
    script = f"case $* in info*) echo '{info}' ;; *du*) cat shown ;; *) echo \"$*\" >>pruned ;; esac"
    write_script(tmp_path / "docker", f"#!/bin/sh\n{script}\n")
    (tmp_path / "cat").symlink_to("/bin/cat")
    assert bake.forget_steps(Engine(tmp_path, {"PATH": str(tmp_path)}))
    pruned = tmp_path / "pruned"
    asked_for = re.findall(r"\b(?:long|short|step)\w+", pruned.read_text()) if pruned.exists() else []
    assert {*asked_for} == {name[:8] for name in records if name[:4] in removed}
