"""images.toml says which images there are; what cannot be right in it is one sentence with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bare import copy_parts, type_make
from checkout import CHECKOUT, ROOT
from pyrlab.host.lab import Lab
from pyrlab.host.project import Project
from pyrlab.host.state import wanted
from pyrlab.model import images
from pyrlab.model.problem import Problem

TABLE = """\
# A comment.
[lists.debs]
file = "debs.txt"
ecosystem = "Debian"
layers = 10

[lists.wheels]
file = "wheels.txt"
besides = "own/wheels.txt"
ecosystem = "Python"
layers = 30

[images.base]
lists = ["debs"]

[images.lab]
parent = "base"
lists = ["wheels"]
port = "PORT"
"""
COURSE = """
[images.course]
parent = "lab"
lists = []
port = "CPORT"
default = false
"""


def refused(text: str | bytes) -> str:
    """The sentence with which a table is refused."""
    with pytest.raises(Problem) as problem:
        images.read(text if isinstance(text, bytes) else text.encode())
    return str(problem.value)


def test_an_image_of_a_users_own() -> None:
    """A few lines add an image, which stands on its parent and has the lists of both."""
    found = images.read((TABLE + COURSE).encode())
    assert [*found] == ["base", "lab", "course"]
    course = found["course"]
    assert (course.parent, course.port, course.default) == ("lab", "CPORT", False)
    assert [image.name for image in found.lineage("course")] == ["base", "lab", "course"]
    assert found["lab"].lists[0].files == ["own/wheels.txt", "wheels.txt"]
    assert (found["lab"].lists[0].lock, found["lab"].default) == ("wheels", True)


def test_what_make_does_besides() -> None:
    """No image can be called as something else that make does: it would be done in its place."""
    targets = (ROOT / "Makefile").read_text().replace("\\\n", "").partition("\nTARGETS := ")[2].partition("\n")[0]
    assert {*re.sub(r"\$\([^)]*\)", "", targets).split()} == {*images.TARGETS}


def test_the_shipped_table() -> None:
    """The images that README tells of are there, parents first, each lab with a port of its own."""
    found = CHECKOUT.table
    assert [*found] == ["pyrlab-base", "pylab", "rlab-base", "rlab", "pyrlab"]
    assert [image.name for image in found.lineage("pyrlab")] == ["pyrlab-base", "rlab-base", "rlab", "pyrlab"]
    assert found.labs == {"pylab": "PORT", "rlab": "RPORT", "pyrlab": "PYRPORT"}
    assert not found["pyrlab"].default
    assert all((ROOT / path).is_file() for path in found.files)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("layers = 10", "layers 10", "line 5: this is not TOML: Expected '=' after a key in a key/value pair"),
        ('port = "PORT"\n', 'port = "PORT', "line 19: this is not TOML: "),
        ("[images.lab]", "[images.base]", "line 16: this is not TOML: Cannot declare ('images', 'base') twice"),
        ('parent = "base"', 'parent = "bass"',
         "line 17: lab starts from bass, which is no image; the images are base, lab"),
        ('lists = ["debs"]', 'lists = ["debs"]\nparent = "later"\n[images.later]\nlists = []',
         "line 15: base starts from later, which stands below it; parents come first"),
        ('lists = ["debs"]', 'lists = ["debs"]\nparent = "lab"',
         "line 15: an image cannot start from itself: base starts from lab starts from base"),
        ('parent = "base"', 'parent = "lab"',
         "line 17: an image cannot start from itself: lab starts from lab"),
        ('lists = ["wheels"]', 'lists = ["wheel"]',
         "line 18: lab has the list wheel, which is not there; the lists are debs, wheels"),
        ('lists = ["wheels"]', 'lists = ["wheels", "debs"]',
         "line 18: lab has the list debs, which it has from base already"),
        ('[images.lab]\nparent = "base"\nlists = ["wheels"]',
         '[lists.more]\nfile = "more.txt"\necosystem = "Python"\nlayers = 1\n'
         '[images.lab]\nlists = ["wheels", "more"]',
         "line 21: lab has several lists of Python packages, wheels and more; "
         "write them as one, or give one to its parent"),
        ('ecosystem = "Python"', 'ecosystem = "python"',
         "line 10: there is no ecosystem python; there are Debian, Python, R"),
        ('ecosystem = "Python"', 'ecosystem = "Python"\nlock = "wheel"',
         "line 11: there is no list wheel with whose packages wheels could be locked"),
        ('ecosystem = "Debian"', 'ecosystem = "Debian"\nlock = "wheels"',
         "line 5: a list of Debian packages has a lock of its own"),
        ('ecosystem = "Python"', 'ecosystem = "R"', "line 9: the R packages of an image are one list"),
        ('port = "PORT"\n',
         'port = "PORT"\n[lists.more]\nfile = "more.txt"\necosystem = "Python"\nlayers = 1\nlock = "wheels"\n'
         '[images.more]\nparent = "lab"\nlists = ["more"]',
         "line 24: more is locked with wheels, which must be a later list: "
         "of the same image, or of one that starts from more"),
        ('file = "wheels.txt"', 'file = "wheels.txt"\n  colour= "red"',
         "line 9: [lists.wheels] has colour, which means nothing; it may have file, ecosystem, layers, lock, besides"),
        ('port = "PORT"', 'layers = 3',
         "line 19: [images.lab] has layers, which means nothing; it may have lists, parent, port, default"),
        ('file = "wheels.txt"\n', "", "line 7: [lists.wheels] lacks file, text in quotation marks"),
        ('lists = ["wheels"]\n', "", "line 16: [images.lab] lacks lists, names in brackets"),
        ("layers = 30", 'layers = "30"', "line 11: layers must be a number"),
        ("layers = 30", "layers = true", "line 11: layers must be a number"),
        ('file = "wheels.txt"', 'file = "course/debs.txt"',
         "line 8: the file of wheels must be called wheels.txt, since its lock is wheels.lock"),
        ("layers = 10", "layers = 1", "line 5: debs takes 2 layers at least"),
        ('lists = ["wheels"]', 'lists = "wheels"', "line 18: lists must be names in brackets"),
        ('lists = ["wheels"]', "lists = [1]", "line 18: lists must be names in brackets"),
        ('port = "PORT"', "port = 8888", "line 19: port must be text in quotation marks"),
        ('port = "PORT"', 'port = "8888"',
         "line 19: 8888 cannot be a parameter; write it in capital letters, as in PORT"),
        ('lists = ["debs"]', 'lists = ["debs"]\nport = "PORT"',
         "line 20: lab listens at PORT, as base does; a lab has a parameter of its own"),
        ("layers = 30", "layers = 87",
         "line 18: lab may come to 101 layers, more than 100: debs 10, wheels 87, and 2 of each image's own"),
        ("[images.lab]", "[images.Lab]",
         "line 16: Lab cannot be the name of an image; "
         "it has small letters and digits, and single '_' and '-' between them"),
        ("[images.lab]", "[images.test]", "line 16: make test does something else; give the image another name"),
        ("[images.lab]", "[images.my.lab]",
         "line 16: [images.my] has lab, which means nothing; it may have lists, parent, port, default"),
        ("[images.lab]", '[ images . "my lab" ]  # mine',
         "line 16: my lab cannot be the name of an image; "
         "it has small letters and digits, and single '_' and '-' between them"),
        ("[images.lab]", "[image.lab]", "line 16: there are no image here, but [lists.NAME] and [images.NAME]"),
        ("# A comment.", "lists = 3", "line 2: this is not TOML: Cannot overwrite a value"),
        ("# A comment.", "colour = 3", "line 1: there are no colour here, but [lists.NAME] and [images.NAME]"),
    ],
)  # fmt: skip
def test_what_cannot_be_right(old: str, new: str, sentence: str) -> None:
    """A slip in images.toml is named with the line where it is, and what would be right."""
    assert old in TABLE
    said = refused(TABLE.replace(old, new, 1))
    assert said.startswith(f"images.toml {sentence}") if sentence.endswith(": ") else said == f"images.toml {sentence}"


def test_as_many_layers_as_there_may_be() -> None:
    """An image may use its budget up."""
    assert "lab" in images.read(TABLE.replace("layers = 30", "layers = 86").encode())


def test_another_encoding() -> None:
    """What an old editor wrote is refused with the line that is not UTF-8."""
    assert refused(f"{TABLE}# f\u00fcr\n".encode("latin-1")) == (
        "images.toml line 20: not UTF-8; save it as text in UTF-8"
    )


def test_every_command_says_it(tmp_path: Path) -> None:
    """Whoever types make with a wrong table reads the one sentence, not a traceback."""
    checkout = copy_parts(tmp_path / "pyrlab")
    table = checkout / "images.toml"
    text = table.read_text().replace('parent = "rlab"', 'parent = "rlba"')
    table.write_text(text)
    line = text.splitlines().index('parent = "rlba"') + 1
    sentence = f"pyrlab: images.toml line {line}: pyrlab starts from rlba, which is no image; "
    said = type_make(checkout, "doctor").stderr
    assert said.splitlines()[0].startswith(sentence)


def test_make_knows_an_image_of_a_users_own(tmp_path: Path) -> None:
    """An entry is enough for make to know a lab by its name, and to say so."""
    checkout = copy_parts(tmp_path / "pyrlab")
    with (checkout / "images.toml").open("a") as file:
        file.write(COURSE.replace('"lab"', '"pylab"').replace("[images.course]", "[ images.course ]  # of this year"))
    known = type_make(checkout, "--dry-run", "build_course", "start_course", "url_course")
    assert known.stdout.rstrip().endswith("-m pyrlab.host.lab url course"), known.stderr
    assert re.search(r"LAB is .*\bcourse\b", type_make(checkout).stdout)
    said = type_make(checkout, "start_courses").stderr
    assert said.startswith("pyrlab: there is no target start_courses; did you mean make start_course?\n")


def test_services() -> None:
    """What compose.yaml has by the name of an image, as a volume, or a service that never starts, is no lab of it."""
    there = [name for name in ("pylab", "rlab", "rlab-base", "lab-home", "course") if Lab(CHECKOUT, name).is_service]
    assert there == ["pylab", "rlab"]


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    """A list that images.toml names and that was deleted stops a build before anything is made."""
    project = Project(tmp_path, {})
    (tmp_path / "own").mkdir()
    for name, text in {"images.toml": TABLE, "debs.txt": "", "own/wheels.txt": ""}.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(Problem, match=r"^the list wheels\.txt is missing; an empty file is a valid list$"):
        project.checkout.check()
    (tmp_path / "wheels.txt").touch()
    project.checkout.check()


def test_nothing_that_is_built_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no image is a default one, whoever names none is told to."""
    (tmp_path / "images.toml").write_text("[images.own]\nlists = []\ndefault = false\n")
    monkeypatch.setattr(Project, "images", lambda project: {})
    with pytest.raises(Problem, match="name one, as in make build_IMAGE"):
        wanted(Project(tmp_path, {}), [])
    assert wanted(Project(tmp_path, {}), ["own"]) == ["own"]
