"""Let BuildKit bake a target of docker/bake.hcl, and go on where it stumbles over a fault of its own."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from pyrlab.host.engine import Engine
from pyrlab.host.progress import Progress
from pyrlab.host.project import Project
from pyrlab.model.locked import reached
from pyrlab.model.problem import Problem

BAKE = ("buildx", "bake", "--file", "docker/bake.hcl", "--progress=rawjson")
# BuildKit gives up where the build that a shared step came with has ended. It also says that a build has failed whose
# results are all there, where a busy disk lets it not write how they came about within 20 seconds (moby/buildkit#3966).
NO_HISTORY = "DeadlineExceeded"
# And an engine may end in the middle of a build: of an upgrade, or of a panic of BuildKit's (moby/buildkit#3714).
GONE = "error reading from server|Cannot connect to the Docker daemon|error during connect|unexpected EOF"
# Or somebody has its cache pruned meanwhile, as another user's pyrlab does: this is then all that it says.
PRUNED = "(?m)^(ERROR: failed to solve: )?not found$"
LOST = r"snapshot (\S+) does not exist"  # of engines before 30, at times, where several build (moby/buildkit#6808)
STUMBLE = rf"{PRUNED}|{LOST}|{NO_HISTORY}|{GONE}|no active sessions|inconsistent graph state"
# In BuildKit's words about what pyrlab's steps have made, which no later build can use; resolve, debs and r are those
# of an earlier pyrlab.
STEPS = r'/run.sh (image|check|manifest|"\$\{TOOL\}"|resolve|debs|r) '
USED_UP = re.compile(rf"{STEPS}|/pyrlab/((archive|manifest|files|lock)/|files.sh)")
LAYER = "from local"  # what it says of an image's, in the classic store; in the other one nothing
IN_USE = re.compile(r"^Reclaimable:\s+false", re.MULTILINE)  # by a build
MANY = 200  # new layers that builds started from, after which it is looked for what none can use: 5 s, or more
# When they start, engines before 27.4 look up each record once for each one above it, and give up after 20 s
# (moby/moby#48569).
GIVES_UP = re.compile("2[0-7][.]")
SOON = 40  # such layers, where the engine is one of these
LOOKUPS = 7000  # of 1 ms, that one of these may be given to do
LONG = 20  # records one upon the other, which images of pyrlab's have and few others
WAITING = "waiting for another"
PAUSE = 5  # seconds, for what keeps it busy to get on

Records = dict[str, tuple[str, set[str]]]  # of BuildKit's cache, by id: the text about each, and the ids of its parents


def bake(
    project: Project,
    target: str,
    progress: Progress,
    environment: dict[str, str],
    done: Callable[[], object] = lambda: False,
    take: Callable[[IO[bytes]], None] | None = None,
    layers: int = 1,
    attempts: int = 5,
) -> None:
    """Run bake on `target`; raises Problem with the sentence of pyrlab's own tools where one failed.

    What it writes to its output, `take` is given as a stream. `layers` is the number of those that it starts from and
    that are new.

    Where BuildKit itself stumbled, it is asked again: what is done by then counts. It is not where it has no history to
    show, and `done` says that nothing else is wanting.
    """
    # Targets that it starts from need no image of their own in the store.
    merged = {**project.environment, **environment, "BUILDX_NO_DEFAULT_LOAD": "1", "BUILDX_GIT_INFO": "false"}
    pipe = subprocess.PIPE if take else None
    command, streams = [*BAKE, target], {"stdout": pipe, "stderr": subprocess.PIPE}
    with (
        turn(project.engine, layers),
        tempfile.TemporaryDirectory(dir=project.cache) as left,  # by Buildx: what bake.hcl has of Dockerfiles
        project.engine.open(*command, environment={**merged, "TMPDIR": left}, **streams) as process,
    ):
        assert process.stderr is not None
        with ThreadPoolExecutor(1) as beside:
            taken = beside.submit(take, process.stdout) if take and process.stdout else None
            words = "\n".join(progress.follow(TextIOWrapper(process.stderr, errors="replace")))
    untaken = taken.exception() if taken else None
    if process.returncode or untaken:
        words += f"\n{untaken or ''}"
        if re.search(NO_HISTORY, words) and done():
            progress.forget(NO_HISTORY)
            return
        if attempts > 1 and re.search(STUMBLE, words):
            time.sleep(PAUSE)
            if re.search(GONE, words):
                await_engine(project)
            if lost := re.search(LOST, words):
                prune(project.engine, with_what_rests_on(cache_records(shown_records(project.engine)), {lost[1]}))
            progress.forget(STUMBLE)
            progress.log.write(f"--- again: {target}\n")
            bake(project, target, progress, environment, done, take, layers, attempts - 1)
            return
        raise progress.failure() if process.returncode or not untaken else untaken


@contextmanager
def turn(engine: Engine, layers: int = 1) -> Iterator[None]:
    """Wait until this user's other builds have ended: the engine may panic where two share steps.

    The file that they wait for grows by a byte with each of `layers`, the new ones that the build starts from.
    """
    with lock_file() as lock:
        wait_for(lock, "build of yours")
        look_after(engine, lock, MANY)
        lock.write("." * layers)
        yield


def lock_file() -> IO[str]:
    """What this user's builds wait for."""
    return (Path(tempfile.gettempdir()) / f"pyrlab-{os.getuid()}.lock").open("a")


def look_after(engine: Engine, lock: IO[str], many: int) -> None:
    """Remove what builds have left where they began with `many` new layers, or nothing is known, as after a restart.

    While another user builds, that is put off.
    """
    if not 0 < os.fstat(lock.fileno()).st_size < many and forget_steps(engine):
        lock.truncate(0)


def tidy(engine: Engine) -> None:
    """Do so once a build has its images, for an engine that many would keep from starting, unless there is another."""
    with lock_file() as lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        look_after(engine, lock, SOON if gives_up(engine) else MANY)


def wait_for(lock: IO[str], whose: str) -> None:
    """Lock a file, and say so where that takes until somebody else has ended."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{'build':<12} {WAITING} {whose}", file=sys.stderr, flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def gives_up(engine: Engine) -> bool:
    """Whether the engine may not start again where it keeps too much of builds."""
    return GIVES_UP.match(engine.about["ServerVersion"]) is not None


def forget_steps(engine: Engine) -> bool:
    """Remove what BuildKit keeps of pyrlab's own steps and of the layers that they started from; whether it could.

    It could not where somebody builds, who might miss it.

    It would fill the disk until BuildKit's own bound. An engine that looks through all of it when it starts forgets it
    once that comes to LOOKUPS, and where other builds on images of many layers, by Dockerfiles with FROM pylab, are
    the reason, what it keeps of these, too; until then what is there makes the next build faster.
    """
    with suppress(Problem):
        shown = shown_records(engine)
        if IN_USE.search(shown):
            return False
        records = cache_records(shown)
        names = used_up(records)
        if gives_up(engine):
            if lookups(records, records) <= LOOKUPS:
                return True
            left = records.keys() - names
            if lookups(records, left) > LOOKUPS:
                names |= {each for name in left if len(found := chain(records, name)) > LONG for each in found}
        prune(engine, names)
    return True


def lookups(records: Records, names: Iterable[str]) -> int:
    """How often an engine that keeps the records of these names looks one up when it starts."""
    return sum(len(chain(records, name)) for name in names)


def chain(records: Records, name: str) -> list[str]:
    """The names of a record and of all that it rests on."""
    found = [name]
    while above := records[found[-1]][1] & records.keys():
        found.append(min(above))
    return found


def prune(engine: Engine, names: Collection[str]) -> None:
    """Remove records of BuildKit's cache by their ids.

    Eight letters tell one; BuildKit compiles the pattern anew for each record that it has, which takes its time.
    """
    if names:
        ids = "|".join(sorted(name[:8] for name in names))
        engine.run("buildx", "prune", "--all", "--force", f"--filter=id=/^({ids})/")


def shown_records(engine: Engine) -> str:
    """What buildx shows of BuildKit's cache."""
    return engine.run("buildx", "du", "--verbose")


def cache_records(shown: str) -> Records:
    """The records of BuildKit's cache that buildx shows."""
    found: Records = {}
    for record in re.split(r"^ID:\s+", shown, flags=re.MULTILINE)[1:]:
        name, *parents = re.findall(r"\b[a-z0-9]{25}\b", record)
        found[name] = record, {*parents}
    return found


def with_what_rests_on(records: Records, names: Iterable[str]) -> set[str]:
    """The records of these names, and those that rest on them, which keep them there."""
    return reached(names, lambda name: (each for each, (_, above) in records.items() if name in above))


def used_up(records: Records) -> set[str]:
    """The ids of those that no later build can use, and that nothing else rests on."""
    parents = {name: above for name, (_, above) in records.items()}
    found: set[str] = set()
    for name, (record, _) in records.items():
        about = dict(re.findall(r"^([A-Z][a-z ]+):\s+(.*)$", record, re.MULTILINE))
        layer = about.get("Description", LAYER).strip() == LAYER and about.get("Shared") == "true"  # of an image
        if about.get("Type") == "regular" and (layer or USED_UP.search(record)):
            found.add(name)
    found = reached(found, lambda name: parents.get(name, ()))
    return found - reached(parents.keys() - found, lambda name: parents.get(name, ()))


def await_engine(project: Project) -> None:
    """Wait until the engine answers again, and start it where nobody else does; raises Problem where that fails."""
    for attempt in range(60):
        if project.engine.ask("info") is not None:
            return
        if attempt == 5 and (found := project.engine.fault()) and found.absent:
            script, environment = project.root / "pyrlab/host/engine.sh", project.environment
            subprocess.run([script], stdin=subprocess.DEVNULL, env=environment)
        time.sleep(1)
    raise Problem("the engine ended in the middle of a build, and has not come back; start it, then try again")
