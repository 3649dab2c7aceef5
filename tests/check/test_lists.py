"""A list is read as its user means it, and a line that cannot be had is named in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

import lists
import wheels

URL = "pkg @ https://example.org/pkg-1.whl#egg=pkg"

# What uv 0.13.8 says, word for word.
UNKNOWN = """\
error: No solution found when resolving dependencies
  cause: Because pandsa was not found in the package registry and you require pandsa, \
we can conclude that your requirements are unsatisfiable.
"""
NO_VERSION = """\
error: No solution found when resolving dependencies
  cause: Because there is no version of scikit-learn[foo]==99.9 and you require scikit-learn[foo]==99.9, \
we can conclude that your requirements are unsatisfiable.
"""
SYNTAX = """\
error: Couldn't parse requirement in `/tmp/resolve/requirements.txt` at position 9
  cause: Trailing `> 3` is not allowed
         numpy < 1.0 > 3
               ^^^^^^^^^
"""
TOO_HIGH = """error: No solution found when resolving dependencies
  cause: Because only pandas<=3.1.1 is available and you require pandas>=99, we can conclude that your \
requirements are unsatisfiable.
"""
NO_VERSIONS = """error: No solution found when resolving dependencies
  cause: Because there are no versions of nosuchpkgxyz and you require nosuchpkgxyz, we can conclude that your \
requirements are unsatisfiable.
"""
EXTRA = """Resolved 12 packages in 602ms
warning: The package `dask==2026.8.0` does not have an extra named `complte`
"""
PROSE = """\
error: Couldn't parse requirement in `/tmp/resolve/requirements.txt` at position 0
  cause: Expected one of `@`, `(`, `<`, `=`, `>`, `~`, `!`, `;`, found `i`
         this is not a name
              ^
"""
CONFLICT = """\
error: No solution found when resolving dependencies
  cause: Because pandas==2.2.3 depends on numpy{python_full_version < '3.12'}>=1.23.2 and you require numpy==1.20, \
we can conclude that your requirements and pandas==2.2.3 are incompatible.
         And because you require pandas==2.2.3, we can conclude that your requirements are unsatisfiable.
"""


def wanted(*texts: str, name: str = "requirements.txt") -> list[lists.Line]:
    """A list with one package a line."""
    return [lists.Line(text, name, number) for number, text in enumerate(texts, start=1)]


def sentence(stop: pytest.ExceptionInfo[SystemExit]) -> str:
    """What a build that stops tells its user."""
    return str(stop.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n  \n# nothing yet\n\t# indented\n", []),
        (b"pandas\n\n# b\nnumpy\n", [("pandas", 1), ("numpy", 4)]),
        (b"pandas", [("pandas", 1)]),
        (b"\xef\xbb\xbfpandas\r\n\r\nnumpy\r\n", [("pandas", 1), ("numpy", 3)]),
        (b"pandas\rnumpy\r", [("pandas", 1), ("numpy", 2)]),
        (b"  pandas >= 2 ; python_version > '3'\t# why\n", [("pandas >= 2 ; python_version > '3'", 1)]),
        (b"pandas #why\nnumpy\t#\n", [("pandas", 1), ("numpy", 2)]),
        (f"{URL}\n{URL}  # its home\n".encode(), [(URL, 1), (URL, 2)]),
        ("# caf\u00e9\u2028bar\npandas # \x0c\x85 odd\nnumpy\n".encode(), [("pandas", 2), ("numpy", 3)]),
        (b"pandas\npandas\n", [("pandas", 1), ("pandas", 2)]),
    ],
    ids=[
        "empty",
        "comments",
        "order",
        "no-line-end",
        "windows",
        "old-mac",
        "blanks",
        "inline-comment",
        "url",
        "unicode-line-ends",
        "twice",
    ],
)
def test_a_list_is_read_as_meant(tmp_path: Path, content: bytes, expected: list[tuple[str, int]]) -> None:
    """Whatever editor wrote the list, its packages and the numbers of their lines are what the user sees there."""
    path = tmp_path / "requirements.txt"
    path.write_bytes(content)
    assert lists.read(path) == [lists.Line(text, "requirements.txt", number) for text, number in expected]


@pytest.mark.parametrize(
    ("content", "number"),
    [("pandas\n# f\u00fcr".encode("latin-1"), 2), ("pandas\n".encode("utf-16"), 1)],
    ids=["latin-1", "utf-16"],
)
def test_a_list_in_another_encoding_is_refused(tmp_path: Path, content: bytes, number: int) -> None:
    """A list that an old editor or a Windows shell wrote stops the build with a sentence, not a traceback."""
    path = tmp_path / "requirements.txt"
    path.write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        lists.read(path)
    assert sentence(stop) == f"pyrlab: requirements.txt line {number}: not UTF-8; save the list as text in UTF-8"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("grpahviz", "graphviz"),
        ("graphvizz", "graphviz"),
        ("grahviz", "graphviz"),
        ("Graphviz", "graphviz"),
        ("build_essential", "build-essential"),
        ("gti", "git"),
        ("irkernel", "IRkernel"),
        ("libgl1-mesa-glx", ""),
        ("libicu72", ""),
        ("nvim", ""),
        ("xvim", ""),
        ("zopt", ""),
        ("libfoo", ""),
        ("something-else", ""),
    ],
)
def test_only_a_slip_of_the_keyboard_is_mended(name: str, meant: str) -> None:
    """A user who mistypes a name reads the right one, and is never sent to another package."""
    known = ["graphviz", "git", "vim", "build-essential", "libglu1-mesa", "libgl1-mesa-dri", "libicu76", "IRkernel"]
    known += ["libfoo1", "libfoo2"]
    assert lists.suggestion(name, known) == (f"; did you mean {meant}?" if meant else "")


@pytest.mark.parametrize(
    ("words", "texts", "expected"),
    [
        (UNKNOWN, ["requests", "Pandsa>=1"], "line 2: the Python index has no package named 'pandsa'"),
        (
            NO_VERSION,
            ["requests", "Scikit_Learn[foo]==99.9"],
            "line 2: no version of scikit-learn[foo] satisfies 'Scikit_Learn[foo]==99.9'",
        ),
        (
            SYNTAX,
            ["requests", "numpy < 1.0 > 3"],
            "line 2: 'numpy < 1.0 > 3' is not a requirement pip would understand",
        ),
        (TOO_HIGH, ["requests", "pandas>=99"], "line 2: no version of pandas satisfies 'pandas>=99'"),
        (
            NO_VERSIONS,
            ["nosuchpkgxyz; python_version > '3'"],
            "line 1: the Python index has no package named 'nosuchpkgxyz'",
        ),
        (SYNTAX, ["numpy", "numpy < 1.0 > 3"], "line 2: 'numpy < 1.0 > 3' is not a requirement pip would understand"),
        (PROSE, ["this is not a name"], "line 1: 'this is not a name' is not a requirement pip would understand"),
    ],
    ids=["unknown", "no-version", "syntax", "too-high", "no-versions", "syntax-after-its-like", "prose"],
)
def test_the_line_that_uv_rejects_is_named(words: str, texts: list[str], expected: str) -> None:
    """A user who mistypes a requirement reads its list and line, not a resolver's proof."""
    with pytest.raises(SystemExit) as stop:
        wheels.explain(words, [*wanted("jupyterlab", "numpy", name="jupyter.txt"), *wanted(*texts)])
    assert sentence(stop) == f"pyrlab: requirements.txt {expected}"


def test_an_extra_that_does_not_exist_is_named() -> None:
    """A user who mistypes an extra reads so, instead of missing packages in a notebook later."""
    with pytest.raises(SystemExit) as stop:
        wheels.check_extras(EXTRA, wanted("requests", "dask[complte]"))
    assert sentence(stop) == "pyrlab: requirements.txt line 2: dask has no extra named 'complte'"
    wheels.check_extras("Resolved 12 packages in 602ms", wanted("dask[complete]"))


@pytest.mark.parametrize(
    ("words", "texts", "whose"),
    [
        (
            CONFLICT,
            ["requests", "Pandas==2.2.3", "numpy==1.20"],
            "{0} line 2 ('Pandas==2.2.3') and {0} line 3 ('numpy==1.20')",
        ),
        (CONFLICT, ["requests", "pandas==2.2.3"], "{0} line 2 ('pandas==2.2.3')"),
        (UNKNOWN, ["requests", "pandsa-utils"], "the lists"),
    ],
    ids=["two", "one", "none"],
)
def test_lines_that_contradict_each_other_are_named(words: str, texts: list[str], whose: str) -> None:
    """A user whose lines, or what they need, contradict each other reads which, and uv's reason, in one line."""
    told = wheels.explain(words, wanted(*texts))
    start = f"pyrlab: the Python packages of {whose.format('requirements.txt')} cannot be had together: error: "
    assert told.startswith(start)
    assert told.endswith("your requirements are unsatisfiable.")
    assert "\n" not in told
