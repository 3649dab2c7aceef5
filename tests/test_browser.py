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
ALLOWED_ERRORS = (
    "net::ERR_NETWORK_CHANGED",  # Chromium's view of other containers' interfaces that come and go
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
    return [error for error in errors if not any(allowed in error for allowed in ALLOWED_ERRORS)]
