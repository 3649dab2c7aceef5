"""While a build runs its user sees what it does; when it fails, why."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrlab.engine import FULL_DISK
from pyrlab.progress import Progress, documents, seconds_of

IMAGES = ["pyrlab-base", "pylab", "rlab-base", "rlab"]
TOOLS, BASE, PYLAB, RBASE = "sha256:1984a39d", "sha256:d07d7a31", "sha256:7b1eafca", "sha256:7e449bd4"
BASE_NAME = "[pyrlab-base pyrlab-base-debs 1/1] RUN sleep 60"
PYLAB_NAME = "[pylab pylab-00 1/1] RUN --mount=target=/c sh /c/fail"
RBASE_NAME = "[rlab-base rlab-base-debs 1/1] RUN sleep 1; echo Setting up r-base-core"
FAILED = 'process "/bin/sh -c sh /c/fail" did not complete successfully: exit code: 1'
SENTENCE = "requirements.txt line 2: the Python index has no package named pandsa"


def vertex(key: str, name: str, started: str, completed: str = "", **more: Any) -> dict[str, Any]:
    """What BuildKit says of a step; the times are seconds of one minute."""
    times = {"started": started, "completed": completed}
    stamps = {which: f"2026-11-20T17:57:{second}Z" for which, second in times.items() if second}
    return {"vertexes": [{"digest": key, "name": name, **stamps, **more}]}


def log(key: str, words: str) -> dict[str, Any]:
    """What BuildKit passes on of a step's output."""
    return {"logs": [{"vertex": key, "stream": 1, "data": base64.b64encode(words.encode()).decode()}]}


def recording(words: str = f"Resolving\npyrlab: {SENTENCE}\n") -> list[dict[str, Any]]:
    """What buildx 0.13.1 said of three images in parallel, the second of which failed with `words`; abridged.

    The step that two of them share was in the cache, and the first was given up when the second failed.
    """
    cancelled = 'process "/bin/sh -c sleep 60" did not complete successfully: exit code: 137: context canceled'
    return [
        vertex(TOOLS, "[pyrlab-base pyrlab-base-debs 1/2] RUN echo tools", "", cached=False),
        vertex(BASE, BASE_NAME, ""),
        vertex(TOOLS, "[rlab-base pyrlab-base-debs 1/2] RUN echo tools", "30.867276619", "30.868762202", cached=True),
        {"statuses": [{"id": "transferring context:", "vertex": TOOLS, "current": 0}]},
        vertex(BASE, BASE_NAME, "34.892729697"),
        vertex(RBASE, RBASE_NAME, "34.869451726"),
        vertex(PYLAB, PYLAB_NAME, "34.860843302"),
        log(RBASE, "Setting up r-base-core\n"),
        vertex(RBASE, RBASE_NAME, "34.869451726", "36.460808213"),
        *([log(PYLAB, words)] if words else []),
        vertex(PYLAB, PYLAB_NAME, "34.860843302", "38.422105437", error=FAILED),
        vertex(BASE, BASE_NAME, "34.892729697", "38.538679519", error=cancelled),
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
    recorded = [{"text": "#1 {not JSON}"}, *recording()]
    assert list(documents(stream(recorded, indent))) == recorded


def test_a_user_without_a_terminal_reads_what_begins(progress: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    """A build's output in a file has one line for each kind of work on each image; none for what was cached."""
    again = vertex("sha256:00", RBASE_NAME, "40.0")
    cached = vertex("sha256:01", "[rlab rlab-debs 1/1] RUN apt", "40.0", "40.0", cached=True)
    progress.follow(stream([*recording(), again, cached]))
    assert capsys.readouterr().err.splitlines() == [
        "pyrlab-base  Debian packages",
        "rlab-base    Debian packages",
        "pylab        Python packages",
    ]


def test_a_user_at_a_terminal_sees_what_runs(progress: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    """A line an image says what runs, for how long and its last words; what is done goes away."""
    progress.live = True
    steps = recording()
    progress.follow(stream(steps[:8]))
    progress.last_draw = 0
    progress.draw()
    *_, base, pylab, rbase = capsys.readouterr().err.splitlines()
    assert base.startswith("pyrlab-base ")
    assert pylab.startswith("pylab ")
    assert "Python packages" in pylab
    assert rbase.startswith("rlab-base ")
    assert rbase.endswith("Debian packages  Setting up r-base-core")
    progress.last_draw = 0
    progress.follow(stream(steps[8:9]))
    screen = capsys.readouterr().err
    assert screen.startswith("\033[3A\033[J")
    assert "rlab-base" not in screen.replace("pyrlab-base", "")
    progress.erase()
    assert capsys.readouterr().err == "\033[2A\033[J"


def test_the_log_has_every_word(progress: Progress) -> None:
    """Who looks into .cache/build.log finds each step's name and output, and bake's own words."""
    progress.follow(stream(recording("Caf\u00e9\n")))
    progress.log.flush()
    log = Path(progress.log.name).read_text()
    for line in (f"--- {RBASE_NAME}", "Setting up r-base-core", "Caf\u00e9", f"ERROR: failed to solve: {FAILED}"):
        assert line in log.splitlines()


@pytest.mark.parametrize(("image", "seconds"), [("pyrlab-base", 3.646), ("pylab", 3.561), ("rlab-base", 1.591)])
def test_an_image_takes_from_its_first_to_its_last_step(progress: Progress, image: str, seconds: float) -> None:
    """The table after a build says how long each image took, without what was cached."""
    progress.follow(stream(recording()))
    assert progress.seconds(image) == pytest.approx(seconds, abs=0.001)


def test_an_image_of_several_steps_takes_their_whole_time(progress: Progress) -> None:
    """Steps that ran at the same time or after each other count from the first to the last."""
    more = vertex("sha256:00", "[rlab-base] exporting to image", "40.0", "41.369451726")
    progress.follow(stream([*recording(), more]))
    assert progress.seconds("rlab-base") == pytest.approx(6.5)


def test_an_image_that_was_not_built_takes_no_time(progress: Progress) -> None:
    """An image without a step of its own takes no seconds, nor those of one whose name begins alike."""
    progress.follow(stream(recording()))
    assert progress.seconds("rlab") == 0


@pytest.mark.parametrize(
    ("name", "image", "step"),
    [
        (BASE_NAME, "pyrlab-base", "Debian packages"),
        (RBASE_NAME, "rlab-base", "Debian packages"),
        ("[rlab rlab-debs 1/1] RUN apt", "rlab", "R packages"),
        (PYLAB_NAME, "pylab", "Python packages"),
        ("[pylab shared-02 1/1] RUN python3", "pyrlab-base", "Python packages"),
        ("[pylab plan 1/1] RUN python3 wheels.py plan", "", "sizes of the Python packages"),
        ("[lock-r r-lock 1/1] RUN python3 r.py lock", "", "resolving R packages"),
        ("[pylab tools 1/2] RUN set -eux", "", "build tools"),
        ("[pylab pylab 3/36] COPY --link --from=pylab-02 /pyrlab/layer/ /", "pylab", "layers"),
        ("[pylab] exporting to image", "pylab", "writing the image"),
        ("[pylab internal] load build definition from Dockerfile", "", ""),
        ("[internal] load local bake definitions", "", ""),
        ("exporting to image", "", ""),
    ],
)
def test_a_step_is_shown_in_a_users_words(progress: Progress, name: str, image: str, step: str) -> None:
    """A user reads which image is worked on and what is done, without BuildKit's own housekeeping."""
    progress.follow(stream([vertex("sha256:00", name, "")]))
    assert (progress.image("sha256:00"), progress.step("sha256:00")) == (image, step)


@pytest.mark.parametrize(
    ("words", "sentence", "shown"),
    [
        (f"Resolving\npyrlab: {SENTENCE}\n", SENTENCE, ""),
        (f"Resolving\npyrlab: {SENTENCE}\npyrlab: another\n", f"{SENTENCE}\npyrlab: another", ""),
        (
            "+ apt\nConnecting\npyrlab: apt cannot reach Debian's archive; apt's own words stand above\n",
            "apt cannot reach Debian's archive; apt's own words stand above",
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
    progress.follow(stream(recording(words)))
    capsys.readouterr()
    assert progress.failure() == sentence
    printed = capsys.readouterr().err
    assert printed.startswith(shown) if shown else not printed


def test_the_last_lines_of_a_failed_step_are_shown(progress: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    """A user is not flooded with a compiler's whole output."""
    progress.follow(stream(recording("".join(f"line {number}\n" for number in range(100)))))
    capsys.readouterr()
    progress.failure()
    assert capsys.readouterr().err.splitlines() == [f"line {number}" for number in range(70, 100)]


def test_what_two_runs_say_of_one_step_is_heard_once(progress: Progress) -> None:
    """While images are written, two runs of bake report the same steps; the user and the log read each word once."""
    said = log(RBASE, "pyrlab note: rlang 1.1.6 stands before Debian's 1.1.5\n")
    said["logs"][0]["timestamp"] = "2026-11-20T17:57:35.1Z"
    for _ in range(2):
        progress.follow(stream([vertex(RBASE, RBASE_NAME, "34.8"), said]))
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
    assert progress.failure() == f"the build failed: {sentence}"


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
