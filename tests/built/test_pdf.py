"""A user exports a notebook as PDF from the menu, and finds on paper what the screen showed."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import subprocess
import unicodedata
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pypdf import PageObject, PdfReader

from checkout import Lab, docker

PATIENCE = 60  # seconds for one export
NOT_TYPESET = "could not be typeset"
WORDS = "Größe, naïve café, Łódź, Ελληνικά, Привет"

FORMULAS = {
    r"\partial f": "∂",
    r"A \cap B": "∩",
    r"V \otimes W": "⊗",
    r"\langle x\rangle": "⟨x⟩",
    r"\sum_{i=1}^n \frac{1}{i^2} \leq \bar{x}": "≤",
    r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}": "acbd",  # column by column
}


@pytest.fixture
def path(lab: Lab) -> Iterator[Path]:
    """Where the user keeps a notebook, whose name is not plain ASCII either."""
    notebook = lab.files / "Übung 1.ipynb"
    yield notebook
    notebook.unlink(missing_ok=True)


def test_formats(lab: Lab) -> None:
    """The menu offers HTML and PDF, and none of the formats that need a TeX or a browser in the image."""
    with urllib.request.urlopen(f"{lab.url}api/nbconvert?token={lab.token}", timeout=PATIENCE) as response:
        offered = set(json.load(response))
    assert {"html", "pdf"} <= offered
    assert offered.isdisjoint({"webpdf", "qtpdf", "qtpng", "latex"})


def test_everything_is_there(lab: Lab, path: Path) -> None:
    """Text of any script, code, its output, a table, a formula and a figure arrive on paper."""
    notebook = [
        text_cell(f"# Results\n\n{WORDS}\n\n| city | people |\n| --- | --- |\n| Łódź | 670642 |"),
        text_cell("Mass is energy: $E = mc^2$"),
        cell_with("print('hello')", printed("hello from the cell\n")),
        cell_with("frame", table("sepal", "5.1")),
        cell_with("plot()", figure(png(640, 480))),
    ]
    document = export(lab, path, notebook)
    text = text_of(document)
    for expected in ["Results", WORDS, "city", "670642", "E=mc2", "hello from the cell", "sepal", "5.1", "plot()"]:
        assert squeezed(expected) in text
    assert pictures(document) == 1
    assert squeezed(NOT_TYPESET) not in text


LOST = "the PDF lacks signs for 中文温度: no installed font has them; add fonts-noto-cjk to base_debs.txt"


def test_signs_that_no_font_has(lab: Lab, path: Path) -> None:
    """A user whose fonts lack some characters, and only those, reads which, and what mends it."""
    since = docker("exec", lab.container, "date", "--utc", "+%FT%TZ")
    export(lab, path, [text_cell(f"# {WORDS} 中文 🎉 שלום"), cell_with("print('温度')", printed("温度\n"))])
    log = subprocess.run(["docker", "logs", f"--since={since}", lab.container], capture_output=True, text=True).stderr
    assert [line.partition("] ")[2] for line in log.splitlines() if "lacks" in line] == [LOST]


def test_signs_that_no_font_has_in_r_markdown(rlab: Lab) -> None:
    """The same of a report in R Markdown."""
    report = rlab.files / "signs.Rmd"
    report.write_text(f"---\noutput: pdf_document\n---\n\n{WORDS} 中文温度\n", encoding="utf-8")
    render = ["Rscript", "-e", f'rmarkdown::render("work/{report.name}", quiet = TRUE)']
    try:
        made = subprocess.run(["docker", "exec", rlab.container, *render], capture_output=True, text=True)
        assert LOST in made.stderr
    finally:
        report.unlink()
        report.with_suffix(".pdf").unlink(missing_ok=True)


@pytest.mark.parametrize("formula", FORMULAS)
def test_formula(formula: str, lab: Lab, path: Path) -> None:
    """A formula is typeset, whether in a text or between two."""
    document = export(lab, path, [text_cell(f"Inline ${formula}$ and displayed:\n\n$${formula}$$\n\nend")])
    text = text_of(document)
    assert squeezed(NOT_TYPESET) not in text
    assert "\\" not in text, "the formula's source is shown"
    assert text.count(FORMULAS[formula]) == 2


REPORT = f"""---
title: Cars
output: pdf_document
---

{WORDS}

$$\\int_0^1 x\\,dx = \\frac12$$

```{{r}}
knitr::kable(head(cars, 1))
```

```{{r, echo=FALSE, fig.cap="Braking"}}
plot(cars)
```

```{{r, echo=FALSE, dev="png", out.width="50%"}}
plot(cars)
```

\\begin{{align}} u &= v \\end{{align}}

# Water is H<sub>2</sub>O {{#water}}
"""


def test_r_markdown(rlab: Lab) -> None:
    """R Markdown's pdf_document and html_document work as they are written elsewhere, without TeX."""
    report = rlab.files / "Übung.Rmd"
    report.write_text(REPORT, encoding="utf-8")
    made = [report.with_suffix(".pdf"), report.with_suffix(".html")]
    try:
        for form in ("pdf_document", "html_document"):
            render = f'rmarkdown::render("work/{report.name}", "{form}", quiet = TRUE)'
            docker("exec", rlab.container, "Rscript", "-e", render)
        words = text_of(PdfReader(made[0]))
        for part in ("Cars", WORDS, "speed", "Braking", "∫", "u=v", "H2O"):
            assert squeezed(part) in words
        assert pictures(PdfReader(made[0])) > 0  # the other is drawn
        page = made[1].read_text(encoding="utf-8")
        assert WORDS in page
        assert '<img src="data:image/png;base64,' in page
    finally:
        for path in (report, *made):
            path.unlink(missing_ok=True)


def test_formulas_in_a_text(lab: Lab, path: Path) -> None:
    """Words between formulas stay apart from them; a shell's prompt is none, and a formula may have blanks in it."""
    text = "The mean $\\mu$ and variance $ \\pi $ of it\n\n```\n$ echo $HOME\n```"
    document = export(
        lab, path, [text_cell(text), cell_with("Latex()", shown("text/latex", "The value is $x^2$ here"))]
    )
    words = unicodedata.normalize("NFKC", document.pages[0].extract_text())
    assert re.search(r"mean\s+μ\s+and\s+variance\s+π\s+of", words), words
    assert "$ echo $HOME" in words
    assert re.search(r"value\s+is\s+x", words), words


def test_what_is_longer_or_wider_than_a_page(lab: Lab, path: Path) -> None:
    """A long line, a long table and a wide one go on on the next page, or are set smaller: nothing is off the paper."""
    rows = "".join(f"<tr>{''.join(f'<td>{row}-{column}.25</td>' for column in range(12))}</tr>" for row in range(60))
    wide = f"<tr>{''.join(f'<td>2026-01-{day:02}T00:00</td>' for day in range(1, 21))}</tr>"
    tables = [shown("text/html", f"<table><tbody>{each}</tbody></table>") for each in (rows, wide)]
    long = printed(", ".join(map(str, range(3000))))
    document = export(lab, path, [cell_with("print()", each) for each in (long, *tables)])
    places = places_of(document)
    for last in ("2999", "59-11.25", "2026-01-20T00:00"):
        assert squeezed(last) in text_of(document)
    assert [text for text, on_paper in places if not on_paper] == []
    assert len(places) > 100


def test_large_pictures(lab: Lab, path: Path) -> None:
    """A picture of whatever size is on the paper as a whole, and one that is attached under whatever name is there."""
    drawn = (
        "<svg xmlns='http://www.w3.org/2000/svg' width='3000pt' height='100pt'><text x='2900' y='50'>end</text></svg>"
    )
    attached = text_cell('![](attachment:my%20image.png)\n\n<img src="attachment:other image.png" width="100">')
    drawings = {"my image.png": png(64, 48), "other image.png": png(32, 32)}
    attached.attachments = {name: {"image/png": base64.b64encode(each).decode()} for name, each in drawings.items()}
    document = export(lab, path, [attached, cell_with("plot()", shown("image/svg+xml", drawn))])
    assert pictures(document) == 2
    assert "notavailable" not in text_of(document)
    ends = drawings_of(document)
    assert ends
    assert all(0 < left < right < wide for left, right, wide in ends), ends


def test_markdown_in_html(lab: Lab, path: Path) -> None:
    """What a note in a frame has is set as what is around it."""
    text = "<div class='alert'>\n\n**Note** with $x^2$\n\n- an item\n\n</div>\n\n<div>inside $y$</div>"
    words = text_of(export(lab, path, [text_cell(text)]))
    assert "Notewithx2" in words
    assert not {"*", "$"} & {*words}, words


def test_result_without_number(lab: Lab, path: Path) -> None:
    """A notebook whose numbers a tool such as nbstripout has taken off is exported all the same."""
    document = export(lab, path, [cell_with("frame", table("sepal", "5.1", count=None))])
    assert "sepal" in text_of(document)


def test_damaged_figure(lab: Lab, path: Path) -> None:
    """A figure that cannot be shown costs its user that figure and nothing else."""
    broken = png(640, 480)[:100]
    notebook = [
        text_cell("What stands before"),
        cell_with("damaged()", figure(broken)),
        cell_with("plot()", figure(png(640, 480))),
        text_cell(f"What stands after: {WORDS}"),
    ]
    document = export(lab, path, notebook)
    text = text_of(document)
    for expected in ["What stands before", "damaged()", "plot()", f"What stands after: {WORDS}"]:
        assert squeezed(expected) in text
    assert pictures(document) == 1


def export(lab: Lab, path: Path, cells: list[NotebookNode]) -> PdfReader:
    """Save a notebook of these cells in the user's folder, and have the lab export it as PDF."""
    notebook = new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    url = f"{lab.url}nbconvert/pdf/work/{quote(path.name)}?download=true&token={lab.token}"
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        body: bytes = response.read()
        assert response.status == 200
        assert response.headers.get_content_type() == "application/pdf"
    assert body.startswith(b"%PDF")
    return PdfReader(io.BytesIO(body))


def places_of(document: PdfReader) -> list[tuple[str, bool]]:
    """Each piece of text, and whether it begins within its page."""
    found: list[tuple[str, bool]] = []
    for page in document.pages:
        wide, high = float(page.mediabox.width), float(page.mediabox.height)

        def see(
            text: str, cm: list[float], tm: list[float], *_: object, wide: float = wide, high: float = high
        ) -> None:
            x = tm[4] * cm[0] + tm[5] * cm[2] + cm[4]
            y = tm[4] * cm[1] + tm[5] * cm[3] + cm[5]
            if text.strip():
                found.append((text, 0 <= x <= wide and 0 <= y <= high))

        page.extract_text(visitor_text=see)
    return found


def drawings_of(document: PdfReader) -> list[tuple[float, float, float]]:
    """Where each drawing of several shapes begins and ends from left to right, and how wide its page is, in points."""
    found: list[tuple[float, float, float]] = []
    for page in document.pages:

        def see(operator: bytes, names: list[str], cm: list[float], _: object, page: PageObject = page) -> None:
            drawing = page["/Resources"]["/XObject"][names[0]] if operator == b"Do" else {}  # type: ignore[index]
            if drawing.get("/Subtype") == "/Form":
                scale, *_, start, _ = map(float, drawing.get("/Matrix", (1, 0, 0, 1, 0, 0)))
                left, _, right, _ = (start + scale * float(number) for number in drawing["/BBox"])
                found.append((cm[4] + left * cm[0], cm[4] + right * cm[0], float(page.mediabox.width)))

        page.extract_text(visitor_operand_before=see)
    return found


def text_of(document: PdfReader) -> str:
    """What a reader sees, without the blanks, which a PDF does not keep."""
    return squeezed("".join(page.extract_text() for page in document.pages))


def squeezed(text: str) -> str:
    """The text without blanks, and with the plain letter for each of a formula's."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def pictures(document: PdfReader) -> int:
    """How many pictures there are on all pages."""
    return sum(len(page.images.keys()) for page in document.pages)


def text_cell(source: str) -> NotebookNode:
    """A cell of Markdown."""
    cell: NotebookNode = new_markdown_cell(source)  # type: ignore[no-untyped-call]
    return cell


def cell_with(source: str, output: NotebookNode) -> NotebookNode:
    """A code cell that has been run."""
    cell: NotebookNode = new_code_cell(source, outputs=[output], execution_count=1)  # type: ignore[no-untyped-call]
    return cell


def printed(text: str) -> NotebookNode:
    """What a cell has printed."""
    output: NotebookNode = new_output("stream", name="stdout", text=text)  # type: ignore[no-untyped-call]
    return output


def shown(kind: str, content: str) -> NotebookNode:
    """What a cell shows in one format, and besides as a text that says nothing."""
    data = {kind: content, "text/plain": "<IPython.core.display.Object object>"}
    output: NotebookNode = new_output("display_data", data=data)  # type: ignore[no-untyped-call]
    return output


def figure(picture: bytes) -> NotebookNode:
    """A figure as a cell's output."""
    return shown("image/png", base64.b64encode(picture).decode())


def table(head: str, value: str, count: int | None = 1) -> NotebookNode:
    """A data frame as a cell's result."""
    html = f"<table><thead><tr><th>{head}</th></tr></thead><tbody><tr><td>{value}</td></tr></tbody></table>"
    data = {"text/html": html, "text/plain": f"{head} {value}"}
    output: NotebookNode = new_output(  # type: ignore[no-untyped-call]
        "execute_result", data=data, execution_count=count
    )
    return output


def png(width: int, height: int) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\x20\x60\xa0" * width) * height
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
