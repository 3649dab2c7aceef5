"""Every notebook that is given to the user runs in a fresh lab, without a warning and with its figures."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from remote import Lab, execute

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SMALLEST_FIGURE = 2048  # bytes; an empty white picture is smaller
TIMEOUT = 300  # seconds for a whole notebook
WIDGETS = {"application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"}


def notebooks(language: str) -> list[object]:
    """The notebooks of a language, each a test of its own that carries the notebook's name."""
    return [pytest.param(path, id=path.stem) for path in sorted((NOTEBOOKS / language).glob("*.ipynb"))]


@pytest.mark.parametrize("path", notebooks("python"))
def test_python(path: Path, pylab: Lab) -> None:
    """A user of pylab runs the notebook from top to bottom."""
    check(path, pylab)


@pytest.mark.parametrize("path", notebooks("r"))
def test_r(path: Path, rlab: Lab) -> None:
    """A user of rlab runs the notebook from top to bottom."""
    check(path, rlab)


def check(path: Path, lab: Lab) -> None:
    """What a user would notice: an error, a warning, a figure or a widget that is not there."""
    given: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    notebook = execute(given, lab.url, lab.token, timeout=TIMEOUT)

    errors = [output.evalue for output in outputs(notebook) if output.output_type == "error"]
    assert errors == [], f"{path.name} shows an error"

    warnings = [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert warnings == [], f"{path.name} shows a warning"

    sizes = [size for bundle in bundles(notebook) for size in figure_sizes(bundle)]
    assert max(sizes, default=0) > SMALLEST_FIGURE, f"{path.name} shows no figure: {sizes}"

    if "widget" in path.stem.lower():
        assert any(is_widget(bundle) for bundle in bundles(notebook)), f"{path.name} shows no widget"


def outputs(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """Everything that appears below a cell."""
    for cell in notebook.cells:
        yield from cell.get("outputs", [])


def bundles(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """The rich outputs, each in the formats among which JupyterLab chooses."""
    for output in outputs(notebook):
        if "data" in output:
            yield output.data


def figure_sizes(bundle: NotebookNode) -> Iterator[int]:
    """The size in bytes of each picture."""
    if "image/png" in bundle:
        yield len(base64.b64decode(bundle["image/png"]))
    if "image/svg+xml" in bundle:
        yield len(bundle["image/svg+xml"].encode())


def is_widget(bundle: NotebookNode) -> bool:
    """Whether there is something to click on; a mere table in HTML is not."""
    html = bundle.get("text/html", "")
    return not WIDGETS.isdisjoint(bundle) or "<script" in html or "<iframe" in html
