"""A list is read as its user means it, and a line that cannot be had is named in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrlab.model import lists
from pyrlab.model.problem import Problem

URL = "pkg @ https://example.org/pkg-1.whl#egg=pkg"


def sentence(stop: pytest.ExceptionInfo[Problem]) -> str:
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
    with pytest.raises(Problem) as stop:
        lists.read(path)
    assert sentence(stop) == f"requirements.txt line {number}: not UTF-8; save the list as text in UTF-8"


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
