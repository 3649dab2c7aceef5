"""A user opens the lab in a browser, runs a cell and looks at the result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import LabPage
from remote import Lab

SCREENSHOTS = Path(__file__).parent / "screenshots"
SMALLEST_SIDE = 100  # pixels of a plot that a user can read

# Console errors that a user need not care about, each with its reason.
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"  # Chromium's view of others' networks on this engine that come and go
NOT_FETCHED = ("uncaught: Failed to fetch", "Event (http")  # what a page says of the same
ALLOWED_ERRORS = (
    NETWORK_CHANGED,
    "GLOBAL is not defined",  # Debian's copy of the typedarray shim in R's plotly, which no browser of today needs
)

PLOTS = {
    "pylab": "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9])\nplt.show()",
    "rlab": "plot(1:10)",
}
LANGUAGES = {"pylab": "Python", "rlab": "R"}


@pytest.fixture
def page() -> Iterator[LabPage]:
    """A fresh browser window."""
    with LabPage() as window:
        yield window


def test_cell(name: str, lab: Lab, page: LabPage) -> None:
    """A new notebook from the launcher calculates, plots and can be exported, and nothing is broken."""
    page.open(lab.url, lab.token)
    assert page.lab_shown, "the token does not open the lab"
    kernel = kernel_of(LANGUAGES[name], page.kernels())
    page.new_notebook(kernel)
    try:
        assert page.run("6*7").split()[-1] == "42"
        page.run(PLOTS[name])
        pictures = page.pictures()
        assert len(pictures) == 1, "a plot gives one picture"
        assert min(pictures[0]) > SMALLEST_SIDE
        assert {"HTML", "Markdown", "Executable Script"} <= set(page.exports())
    finally:
        page.screenshot(SCREENSHOTS / f"{name}.png")
    assert unexpected(page.errors) == []


PLOTLY = 'suppressPackageStartupMessages(library(plotly)); plot_ly(x = 1:3, y = 1:3, type = "scatter", mode = "lines")'


def test_what_r_shows(rlab: Lab, page: LabPage) -> None:
    """R's data frames, SVG plots, widgets and help pages look in JupyterLab as they should, any letter included."""
    page.open(rlab.url, rlab.token)
    page.new_notebook(kernel_of("R", page.kernels()))
    page.run('data.frame(name = c("Zo\u00eb", "\u5f20\u4f1f"), age = 1:2)')
    page.wait_for("table td", "\u5f20\u4f1f")
    page.run('options(jupyter.plot_mimetypes = "image/svg+xml"); plot(1:3, main = "Gr\u00f6\u00dfe")')
    page.wait_for('img[src^="data:image/svg+xml"]', frame=True)
    page.run(PLOTLY)
    page.wait_for(".main-svg", frame=True)
    page.screenshot(SCREENSHOTS / "rlab-outputs.png")
    page.run("?median")
    page.wait_for("h2", "Median Value")
    assert unexpected(page.errors) == []


def test_talking_to_r(rlab: Lab, page: LabPage) -> None:
    """R can ask its user a question, and a cell that does not end can be stopped; nothing is lost by it."""
    page.open(rlab.url, rlab.token)
    page.new_notebook(kernel_of("R", page.kernels()))
    page.start('name <- readline("Your name? ")')
    page.answer("Zo\u00eb")
    page.finish()
    assert "Zo\u00eb" in page.run("name")
    page.start('cat("working\\n"); repeat Sys.sleep(0.1)')
    page.wait_for("pre", "working")
    page.interrupt()
    page.finish()
    assert "Zo\u00eb" in page.run("name")
    assert unexpected(page.errors) == []


def test_token_needed(name: str, lab: Lab, page: LabPage) -> None:
    """Who does not know the token is asked for it and does not see the lab."""
    page.open(lab.url)
    page.screenshot(SCREENSHOTS / f"{name}-login.png")
    assert page.login_shown
    assert not page.lab_shown


def kernel_of(language: str, kernels: list[str]) -> str:
    """The launcher's name of the language's kernel: its first word is the language."""
    matching = [kernel for kernel in kernels if kernel.split()[0] == language]
    assert matching, f"the launcher offers no {language}, only {kernels}"
    return matching[0]


def unexpected(errors: list[str]) -> list[str]:
    """The console's errors that nobody has explained."""
    changed = any(NETWORK_CHANGED in error for error in errors)
    allowed = (*ALLOWED_ERRORS, *NOT_FETCHED) if changed else ALLOWED_ERRORS
    return [error for error in errors if not any(known in error for known in allowed)]
