"""nbconvert's "pdf" export without TeX: pandoc writes Typst, the typst wheel makes the PDF."""

import json
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typst
from nbconvert.exporters import Exporter
from nbconvert.utils.exceptions import ConversionException
from nbformat import NotebookNode
from pyrlab_signs import complaints
from traitlets import default
from traitlets.config import Config

HERE = Path(__file__).parent
FILTER = HERE / "pyrlab_pdf.lua"
STYLE = (HERE / "pyrlab_pdf.typ").read_text(encoding="utf-8")
CELL = "// next cell 5f0b3c9e"  # the filter writes this line before each cell; nobody else does
# Terminal colours and links, then whatever no font can show.
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\].*?(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
# What is to stay, code, a shell's prompt, or $x$; or a formula with blanks at its ends.
LOOSE_MATH = re.compile(
    r"""(?msx)
    (?P<kept> ^[ \t>]*(?P<fence>```+|~~~+).*?(?:^[ \t>]*(?P=fence)|\Z) | ^(?:[ ]{4}|\t)[ \t]*\$[ ][^\n]*
    | (?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`) | \$\$.*?\$\$ | \\.
    | \$(?![ \t])(?:\\.|[^$`\\\n])*?(?<![ \t])\$(?!\d) )
    | \$(?: [ \t]+(?P<loose>(?:\\.|[^$`\\\n])+?)[ \t]* | (?P<late>[^$`\n]*[\\^_{][^$`\n]*?)[ \t]+ )\$(?![$\d])
    """
)
NO_WORDS = re.compile(r"\s*(<[\w.]+ (object|at 0x).*>)?\s*", re.DOTALL)
FOR_A_BROWSER = re.compile(r"<(script|input|button|details)\b")
INVISIBLE = re.compile(r"<(script|style)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
FIGURES = ("image/svg+xml", "image/png", "image/jpeg", "image/gif")


class PDFExporter(Exporter):  # type: ignore[misc]  # nbconvert is not where this is checked
    """Export a notebook to PDF; the entry point puts it in the place of nbconvert's own."""

    export_from_notebook = "PDF"
    output_mimetype = "application/pdf"

    @default("file_extension")
    def _file_extension_default(self) -> str:
        return ".pdf"

    @property
    def default_config(self) -> Config:
        """Join a cell's pieces of stdout and keep a progress bar's last state only."""
        config = Config({"CoalesceStreamsPreprocessor": {"enabled": True}})
        config.merge(super().default_config)
        return config

    # Like each of nbconvert's exporters this returns another type than the base class says.
    def from_notebook_node(
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[bytes, dict[str, Any]]:
        """Return the PDF and nbconvert's resources."""
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        about = resources.get("metadata", {})
        title = clean(str(nb.metadata.get("title") or about.get("name") or "Notebook"))
        # Over a notebook's own heading the file's name would be noise; the footer has it.
        own = nb.cells[0].source.lstrip().startswith("# ") if nb.cells else False
        headed = "title" in nb.metadata or not own
        for cell in nb.cells:
            tidy(cell)
        # What `jupyter nbconvert --no-input` sets.
        nb.metadata["pyrlab_no_input"] = self.config.TemplateExporter.get("exclude_input", False)
        with TemporaryDirectory(prefix="pdf-") as directory:
            work = Path(directory)
            cells = to_typst(nb, work, Path(about.get("path") or ".").resolve())
            inputs = {"title": title, "headed": "yes" if headed else "no"}
            document = to_pdf(cells, nb, work, inputs)
            figures = [path.read_text(encoding="utf-8", errors="replace") for path in work.glob("*.svg")]
            for complaint in complaints("".join([title, *cells, *figures]), document):
                self.log.warning(complaint)
            return document, resources


def clean(text: str) -> str:
    """Drop colours and control characters."""
    return CONTROL.sub("", text)


def tidy(cell: NotebookNode) -> None:
    """Reduce the cell to what pandoc reads well: tight $math$, one format for each output."""
    cell.source = clean(cell.source)
    if cell.cell_type == "markdown":  # MathJax accepts $ x $, pandoc does not
        cell.source = tight(cell.source)
    for output in cell.get("outputs", []):
        if output.output_type == "execute_result":  # nbformat allows it to be null, pandoc does not
            output.execution_count = output.execution_count or 0
        if output.output_type == "stream":
            output.text = clean(output.text)
        elif output.output_type == "error":
            output.traceback = [clean(line) for line in output.traceback]
        else:
            output.data = best(output.data)


def tight(text: str) -> str:
    """Write $ x $ as $x$."""
    return LOOSE_MATH.sub(lambda found: found["kept"] or f"${found['loose'] or found['late']}$", text)


def math(tex: str) -> str:
    """An output in LaTeX, a text with formulas perhaps, as Markdown: in nothing else pandoc finds math."""
    if tex[0] == "$":
        return tight(tex)
    return f"$$\n{tex}\n$$" if tex.startswith(r"\begin{") else re.sub(r"\\[][]", "$$", tex)


def best(data: dict[str, Any]) -> dict[str, Any]:
    """Choose the one of an output's formats that paper shows best."""
    for figure in FIGURES:
        if figure in data:
            return {figure: data[figure]}
    text = {mime: clean("".join(data[mime])) for mime in data if mime.startswith("text/")}
    html, tex, plain = (text.get(f"text/{kind}", "") for kind in ("html", "latex", "plain"))
    if "<table" in html and not FOR_A_BROWSER.search(html):
        return {"text/html": html}
    tex = tex.strip()
    if tex.startswith(("$", r"\begin{eq", r"\begin{al")):
        return {"text/markdown": math(tex)}
    if not NO_WORDS.fullmatch(plain):
        return {"text/plain": plain}
    for mime in ("text/markdown", "text/html"):
        if mime in text:
            return {mime: INVISIBLE.sub("", text[mime])}  # plotly.js alone is 4 MB
    shown = f"[This output is for a screen only: {next(iter(data), 'empty')}]"
    return {"text/markdown": math(tex)} if tex else {"text/plain": shown}


def to_typst(nb: NotebookNode, work: Path, folder: Path) -> list[str]:
    """Run pandoc; return one piece of Typst for each cell."""
    (work / "folder").symlink_to(folder)  # whose own name may have a colon
    try:
        run = subprocess.run(
            [
                "pandoc",
                "--from=ipynb+footnotes+raw_tex+tex_math_double_backslash",
                "--to=typst",
                "--wrap=none",
                "--ipynb-output=all",
                f"--lua-filter={FILTER}",
                "--resource-path=folder",
            ],
            input=json.dumps(nb),
            cwd=work,  # where the filter writes the figures
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
    except FileNotFoundError:
        message = "PDF export: pandoc is not on PATH."
        raise ConversionException(message) from None
    except subprocess.CalledProcessError as error:
        why = " ".join(error.stderr.split())[-300:]
        message = f"PDF export: pandoc cannot read the notebook: {why}"
        raise ConversionException(message) from None
    # its tables' own margins would not shrink with their text
    return re.sub(r"^( *inset: )6pt,$", r"\g<1>0.66em,", run.stdout, flags=re.MULTILINE).split(CELL)[1:]


def to_pdf(cells: list[str], nb: NotebookNode, work: Path, inputs: dict[str, str]) -> bytes:
    """Run Typst; should it refuse a cell, show this cell as its source."""
    source = work / "notebook.typ"

    def pdf(pieces: list[str]) -> bytes:
        source.write_text("\n".join([STYLE, *pieces]), encoding="utf-8")
        document: bytes = typst.compile(source, root=work, format="pdf", sys_inputs=inputs)
        return document

    try:
        return pdf(cells)
    except RuntimeError:  # one bad formula or image must not cost the whole document
        for number, cell in enumerate(cells):
            try:
                pdf([cell])
            except RuntimeError as error:
                code, why = quoted(nb.cells[number].source), quoted(first_line(error))
                cells[number] = f"#failed({code}, {why})"
    try:
        return pdf(cells)
    except RuntimeError as error:
        message = f"PDF export: Typst cannot set the notebook: {first_line(error)}"
        raise ConversionException(message) from None


def first_line(error: RuntimeError) -> str:
    """Return what Typst says without where: nobody sees that file."""
    return clean(str(error)).partition("\n")[0]


def quoted(text: str) -> str:
    """Write the text as a Typst string."""
    return json.dumps(text, ensure_ascii=False)
