"""While a build runs its user sees what it does; when it fails, why."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrlab.host.faults import FULL_DISK
from pyrlab.host.progress import Progress, documents, seconds_of
from pyrlab.model import events
from pyrlab.model.problem import Problem

IMAGES = ["pyrlab-base", "pylab", "rlab-base", "rlab"]
TOOLS, RBASE, PYLAB = "sha256:1984a39d", "sha256:7e449bd4", "sha256:7b1eafca"
TOOLS_NAME = "[uv 2/2] RUN set -eux"
PACKAGES_NAME = "[packages 1/1] RUN sh /pyrlab/tools/pyrlab/steps/run.sh image /pyrlab/plan /pyrlab/archive"
FAILED = 'process "/bin/sh -c sh /pyrlab/tools/pyrlab/steps/run.sh image" did not complete successfully: exit code: 1'
REACH = "apt cannot reach Debian's archive"
SENTENCE = "requirements.txt line 2: the Python index has no package named pandsa"


def told(event: str, **about: object) -> str:
    """What a step prints to tell make something."""
    return f"{events.marked(event, **about)}\n"


def vertex(key: str, name: str, started: str, completed: str = "", **more: Any) -> dict[str, Any]:
    """What BuildKit says of a step; the times are seconds of one minute."""
    times = {"started": started, "completed": completed}
    stamps = {which: f"2026-11-20T17:57:{second}Z" for which, second in times.items() if second}
    return {"vertexes": [{"digest": key, "name": name, **stamps, **more}]}


def log(key: str, words: str) -> dict[str, Any]:
    """What BuildKit passes on of a step's output."""
    return {"logs": [{"vertex": key, "stream": 1, "data": base64.b64encode(words.encode()).decode()}]}


def packages() -> list[dict[str, Any]]:
    """What buildx 0.13.1 says of the packages of an image, abridged; its tools were in the cache."""
    return [
        vertex(TOOLS, TOOLS_NAME, "", cached=False),
        vertex(RBASE, PACKAGES_NAME, ""),
        vertex(TOOLS, TOOLS_NAME, "30.867276619", "30.868762202", cached=True),
        {"statuses": [{"id": "transferring context:", "vertex": TOOLS, "current": 0}]},
        vertex(RBASE, PACKAGES_NAME, "34.869451726"),
        log(RBASE, told("step", what="Debian packages")),
        log(RBASE, "Setting up r-base-core\n"),
        log(RBASE, told("step", what="layers")),
        vertex(RBASE, PACKAGES_NAME, "34.869451726", "36.460808213"),
    ]


def failing(words: str = f"Resolving\n{events.told(Problem(SENTENCE))}\n") -> list[dict[str, Any]]:
    """What it says of an image whose packages fail with `words`, while another step is given up; abridged."""
    cancelled = 'process "/bin/sh -c sleep 60" did not complete successfully: exit code: 137: context canceled'
    return [
        vertex(PYLAB, PACKAGES_NAME, "34.860843302"),
        vertex("sha256:02", "[checks 1/1] RUN sleep 60", "34.892729697"),
        log(PYLAB, f"{told('step', what='Python packages')}{words}"),
        vertex(PYLAB, PACKAGES_NAME, "34.860843302", "38.422105437", error=FAILED),
        vertex("sha256:02", "[checks 1/1] RUN sleep 60", "34.892729697", "38.538679519", error=cancelled),
        {"text": "Dockerfile:3"},
        {"text": f"ERROR: failed to solve: {FAILED}"},
    ]


def stream(recorded: list[dict[str, Any]], indent: int | None = 2) -> io.StringIO:
    """The recording as bake writes it."""
    return io.StringIO(
        "".join((entry["text"] if "text" in entry else json.dumps(entry, indent=indent)) + "\n" for entry in recorded)
    )


@pytest.fixture
def progress(tmp_path: Path) -> Iterator[Progress]:
    """The progress of a build of all images, where no terminal shows it."""
    with Progress(IMAGES, tmp_path / "cache" / "build.log") as progress:
        progress.live = False
        yield progress


@pytest.mark.parametrize("indent", [2, None], ids=["several lines", "one line"])
def test_everything_that_bake_says_is_understood(indent: int | None) -> None:
    """A build is followed whether buildx writes its JSON on one line or on several, and between plain words."""
    recorded = [{"text": "#1 {not JSON}"}, *packages(), *failing()]
    assert list(documents(stream(recorded, indent))) == recorded


def test_a_user_without_a_terminal_reads_what_begins(progress: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    """A build's output in a file has one line for each kind of work on each image; none for what was cached."""
    progress.current = "rlab-base"
    again = [vertex("sha256:00", PACKAGES_NAME, "40.0"), log("sha256:00", told("step", what="layers"))]
    cached = vertex("sha256:01", "[checks 1/1] RUN sh", "40.0", "40.0", cached=True)
    progress.follow(stream([*packages(), *again, cached]))
    progress.current = "pylab"
    progress.follow(stream([vertex(PYLAB, PACKAGES_NAME, "34.8"), log(PYLAB, told("step", what="layers"))]))
    assert capsys.readouterr().err.splitlines() == [
        "rlab-base    packages",
        "rlab-base    Debian packages",
        "rlab-base    layers",
        "pylab        packages",
        "pylab        layers",
    ]


def test_a_user_at_a_terminal_sees_what_runs(progress: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    """A line says which image is worked on, for how long, what runs and its last words; what is done goes away."""
    progress.live = True
    progress.follow(stream([vertex("sha256:00", "[lock-python resolved 1/1] RUN sh", "30.0")]))
    progress.current = "rlab-base"
    steps = packages()
    progress.last_draw = 0
    progress.follow(stream(steps[:7]))
    progress.last_draw = 0
    progress.draw()
    *_, shared, image = capsys.readouterr().err.splitlines()
    assert "build   " in shared
    assert shared.endswith("resolving Python packages  ")
    assert image.startswith("rlab-base ")
    assert image.endswith("Debian packages  Setting up r-base-core")
    progress.last_draw = 0
    progress.follow(stream(steps[8:]))
    screen = capsys.readouterr().err
    assert screen.startswith("\033[2A\033[J")
    assert "rlab-base" not in screen
    progress.erase()
    assert capsys.readouterr().err == "\033[1A\033[J"


def test_a_terminal_that_can_only_write_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal such as an editor's, that takes nothing back, shows what begins, as where there is none."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for term, live in (("xterm", True), ("dumb", False)):
        monkeypatch.setenv("TERM", term)
        with Progress(IMAGES, tmp_path / "build.log") as progress:
            assert progress.live == live


def test_the_log_has_every_word(progress: Progress) -> None:
    """Who looks into .cache/build.log finds each step's name and output, and bake's own words."""
    progress.follow(stream([*packages(), *failing("Caf\u00e9\n")]))
    progress.log.flush()
    log = Path(progress.log.name).read_text()
    for line in (f"--- {PACKAGES_NAME}", "Setting up r-base-core", "Caf\u00e9", f"ERROR: failed to solve: {FAILED}"):
        assert line in log.splitlines()


@pytest.mark.parametrize(
    ("name", "said", "step"),
    [
        (PACKAGES_NAME, "", "packages"),
        (
            PACKAGES_NAME,
            f"{told('step', what='Debian packages')}Hit:1\n{told('step', what='Python packages')}",
            "Python packages",
        ),
        (PACKAGES_NAME, f"apt says: {told('step', what='nothing')}", "packages"),
        ("[checked checks 1/1] RUN sh /pyrlab/tools/pyrlab/steps/run.sh manifest", "", "checks"),
        ("[lock-python resolved 1/1] RUN sh", "", "resolving Python packages"),
        ("[lock-debian resolved 1/1] RUN sh", "", "resolving Debian packages"),
        ("[lock-r resolved 1/1] RUN sh", "", "resolving R packages"),
        (TOOLS_NAME, "", "build tools"),
        ("[checked] exporting to image", "", "writing the image"),
        ("[checked internal] load build definition from Dockerfile", "", ""),
        ("[internal] load local bake definitions", "", ""),
        ("[archive 1/1] COPY --from=packages /pyrlab/archive/ /", "", ""),
        ("exporting to image", "", ""),
    ],
)
def test_a_step_is_shown_in_a_users_words(progress: Progress, name: str, said: str, step: str) -> None:
    """A user reads what is done, which a step itself may say, without BuildKit's own housekeeping."""
    progress.follow(stream([vertex("sha256:00", name, ""), log("sha256:00", said)]))
    assert progress.step("sha256:00") == step


@pytest.mark.parametrize(
    ("words", "sentence", "shown"),
    [
        (f"Resolving\n{events.told(Problem(SENTENCE))}\n", SENTENCE, ""),
        (
            f"{events.told(Problem(SENTENCE))}\n{events.told(Problem('not so', 'r_debs.txt line 2'))}\n",
            f"{SENTENCE}\nr_debs.txt line 2: not so",
            "",
        ),
        (
            f"+ apt\nConnecting\n{events.told(Problem(REACH, words='apt'))}\n",
            f"{REACH}; apt's own words stand above",
            "Connecting\n",
        ),
        ("Segmentation fault\n", f"a build step failed (Python packages): {FAILED}", "Segmentation fault\n"),
        ("", f"the build failed: {FAILED}", ""),
        ("dpkg: error: No space left on device\n", str(FULL_DISK), ""),
    ],
    ids=["sentence", "two sentences", "sentence that points above", "other words", "no words", "full disk"],
)
def test_a_failed_build_says_why(
    progress: Progress, capsys: pytest.CaptureFixture[str], words: str, sentence: str, shown: str
) -> None:
    """A user whose build fails reads one sentence, after the step's last words only where these explain it."""
    progress.follow(stream(failing(words)))
    capsys.readouterr()
    assert str(progress.failure()) == sentence
    printed = capsys.readouterr().err
    assert printed.startswith(shown) if shown else not printed


def test_the_last_lines_of_a_failed_step_are_shown(progress: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    """A user is not flooded with a compiler's whole output."""
    progress.follow(stream(failing("".join(f"line {number}\n" for number in range(100)))))
    capsys.readouterr()
    progress.failure()
    assert capsys.readouterr().err.splitlines() == [f"line {number}" for number in range(70, 100)]


def test_what_is_said_twice_of_one_step_is_heard_once(progress: Progress) -> None:
    """Each of several targets reports the steps that they share; the user and the log read each word once."""
    said = log(RBASE, told("note", what="rlang 1.1.6 stands before Debian's 1.1.5"))
    said["logs"][0]["timestamp"] = "2026-11-20T17:57:35.1Z"
    for _ in range(2):
        progress.follow(stream([vertex(RBASE, PACKAGES_NAME, "34.8"), said]))
    progress.log.flush()
    assert Path(progress.log.name).read_text().count("stands before") == 1
    assert progress.notes() == ["rlang 1.1.6 stands before Debian's 1.1.5"]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ([{"text": "ERROR: Cannot connect to the Docker daemon"}], "ERROR: Cannot connect to the Docker daemon"),
        ([], "bake said nothing"),
    ],
    ids=["no engine", "silence"],
)
def test_a_build_that_never_began_says_why(progress: Progress, said: list[dict[str, Any]], sentence: str) -> None:
    """A user whose engine does not answer reads bake's own last words."""
    progress.follow(stream(said))
    assert str(progress.failure()) == f"the build failed: {sentence}"


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00.5Z", 60.5),
        ("1970-01-01T00:01:00.123456789Z", 60.123456),
        ("1970-01-01T01:01:00.25+01:00", 60.25),
    ],
)
def test_times_are_read_as_go_prints_them(stamp: str, seconds: float) -> None:
    """A build does not stop over a time stamp without, with few or with nine digits after the point."""
    assert seconds_of(stamp) == seconds
