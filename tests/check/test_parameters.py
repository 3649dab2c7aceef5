"""Parameters as people write them are taken as they are meant, or refused before anything is made."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

import pytest

from bare import copy_parts, files_of, make_path, type_make, write_script
from checkout import ROOT, Run
from pyrlab.host import parameters, proxies

MAKEFILE = (ROOT / "Makefile").read_text()
HOME = Path.home()
SPELLINGS = [
    ("FILES", '"/srv/data/My Notebooks"', "/srv/data/My Notebooks"),
    ("FILES", "'/srv/data/My Notebooks'", "/srv/data/My Notebooks"),
    ("FILES", r"/srv/data/My\ Notebooks", "/srv/data/My Notebooks"),
    ("FILES", "/srv/data/two  blanks", "/srv/data/two  blanks"),
    ("FILES", "/srv/data/Ada's notebooks", "/srv/data/Ada's notebooks"),
    ("FILES", "  /srv/data/notebooks ", "/srv/data/notebooks"),
    ("FILES", "~/notes", f"{HOME}/notes"),
    ("FILES", "$HOME/notes", f"{HOME}/notes"),
    ("FILES", '"$HOME/My Notes"', f"{HOME}/My Notes"),
    ("FILES", "notebooks", f"{ROOT}/notebooks"),
    ("FILES", "./new", f"{ROOT}/new"),
    ("FILES", '""', f"{HOME}/notebooks"),
    ("CACERT", '"~/company ca.pem"', f"{HOME}/company ca.pem"),
    ("TAG", '"v1.2"', "v1.2"),
    ("PROJECT", "' course-2 '", "course-2"),
    ("PORT", '"8890"', "8890"),
    ("https_proxy", "http://ada:pa$word@proxy:3128", "http://…@proxy:3128"),
    ("HOST", "me@server", "me@server"),
]
REFUSED = [
    ("TAG", "feature/x", "TAG=feature/x cannot be the tag of images; "),
    ("TAG", "my tag", "TAG=my tag cannot be the tag of images; "),
    ("TAG", "-x", "TAG=-x cannot be the tag of images; "),
    ("PROJECT", "my project", "PROJECT=my project cannot be the prefix of containers; "),
    ("PROJECT", "Course", "PROJECT=Course cannot be the prefix of containers; "),
    ("PORT", "notanumber", "PORT=notanumber is no port number; choose one from 1024 to 65535"),
    ("RPORT", "65536", "RPORT=65536 is no port number; "),
    ("TBPORT", "6006x", "TBPORT=6006x is no port number; "),
    ("APTPORT", "0", "APTPORT=0 is no port number; "),
    ("PIPPORT", "3141 3142", "PIPPORT=3141 3142 is no port number; "),
    ("CRAN", "cran.invalid", "CRAN lacks http:// or https:// at its beginning"),
    ("BASE", "debain", "BASE=debain is none of auto, registry and debian"),
    ("ENGINE", "extern", "ENGINE=extern is neither external nor empty"),
    ("SAVE", "maybe", "SAVE=maybe is neither yes nor no"),
    ("HOST", "-oProxyCommand=x", "HOST=-oProxyCommand=x is no server; "),
    ("PYTHONBASE", "python 3.14", "PYTHONBASE=python 3.14 is no name of an image; "),
    ("FILES", "mynotes", "FILES=mynotes is no full path; "),
    ("FILES", '"/srv/My Notebooks', 'FILES="/srv/My Notebooks is no full path; '),
    ("FILES", "~nobody-of-that-name/x", "FILES=~nobody-of-that-name/x is no full path; "),
    ("FILES", "/srv/$NOWHERE/x", "FILES=/srv/$NOWHERE/x cannot be right: $NOWHERE is not set"),
    ("APTPROXY", "http://ada:secret@proxy 3142", "APTPROXY has a blank in it, or a quotation mark at one end"),
]


def rounds(cases: list[tuple[str, str, str]]) -> list[dict[str, tuple[str, str]]]:
    """The cases, (parameter, value, what comes of it), as few commands have them, each parameter once in a command."""
    found: list[dict[str, tuple[str, str]]] = []
    for name, *case in cases:
        free = next((each for each in found if name not in each), None)
        if free is None:
            found.append(free := {})
        free[name] = (case[0], case[1])
    return found


def typed(way: str, checkout: Path, target: str, parameters: dict[str, str], path: Path | None = None) -> Run:
    """Type make with parameters in one of the three ways."""
    lines = [f"{name} = {value}\n" for name, value in parameters.items()]
    (checkout / "local.mk").write_text("".join(lines) if way == "local.mk" else "")
    environment = {"PATH": str(path)} if path else {}
    words = [f"{name}={value}" for name, value in parameters.items()] if way == "command line" else []
    return type_make(checkout, target, *words, **environment, **(parameters if way == "environment" else {}))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a local.mk of its own."""
    return copy_parts(tmp_path_factory.mktemp("parameters") / "pyrlab")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine without an engine."""
    return make_path(tmp_path_factory.mktemp("path") / "bin")


@pytest.mark.parametrize("way", ["local.mk", "environment", "command line"])
def test_meant(way: str, checkout: Path) -> None:
    """What quotation marks, ~, $HOME, a backslash and blanks mean in a shell they mean wherever a value is written."""
    for written in rounds(SPELLINGS):
        shown = typed(way, checkout, "help", {name: value for name, (value, _) in written.items()}).stdout
        for name, (value, meant) in written.items():
            found = re.search(rf"^  {name} .* \[(.*)\]$", shown, re.MULTILINE)
            assert found
            assert found[1] == meant.replace(str(ROOT), str(checkout)), value


def test_a_checkout_whose_name_looks_like_a_variable(tmp_path: Path) -> None:
    """The notebooks may be in a checkout of whatever name."""
    said = type_make(copy_parts(tmp_path / "a$b c"), "doctor", FILES="./new", DOCKER_HOST="tcp://127.0.0.1:1").stdout
    assert re.search(rf"^ok  FILES +{re.escape(str(tmp_path))}/a\$b c/new \(will be made\)$", said, re.MULTILINE), said


@pytest.mark.parametrize("way", ["local.mk", "environment", "command line"])
def test_refused(way: str, checkout: Path, path: Path) -> None:
    """Whatever cannot be right is refused at once, with what is allowed, before anything else is said or made."""
    before = files_of(checkout) | {"local.mk"}
    for written in rounds(REFUSED):
        run = typed(way, checkout, "start_pylab", {name: value for name, (value, _) in written.items()}, path)
        sentences = [line for line in run.stderr.splitlines() if not line.startswith("make: ")]
        assert len(sentences) == len(written), run.stderr
        for value, said in written.values():
            assert any(sentence.startswith(f"pyrlab: {said}") for sentence in sentences), value
        assert run.returncode != 0
        assert "secret" not in run.stdout + run.stderr
        assert files_of(checkout) | {"local.mk"} == before


MISREAD = [
    ("PORT: 8890", "local.mk line 2 gives PORT no value; write PORT = 8890"),
    ("FILES = /srv/C#/notes", r"local.mk line 2: make ends FILES before the #; write \# for one that belongs to it"),
    ("export https_proxy := http://ada:pa#s@proxy:3128", "local.mk line 2: make ends https_proxy before the #; write "),
    ("FILES = $(pwd)/notes", "local.mk line 2: $(pwd) in FILES is not set; write out what it stands for"),
]
READ = [r"FILES = /srv/C\#/notes", "FILES = $(HOME)/notes", "data = /srv\nFILES := $(data)/x", "FILES = /srv # mine"]


def test_misread(checkout: Path, path: Path) -> None:
    """What make takes for something else than it looks in local.mk is named with its line, and nothing is made."""
    for lines, said in MISREAD:
        (checkout / "local.mk").write_text(f"# mine\n{lines}\n")
        before = files_of(checkout)
        run = type_make(checkout, "start_pylab", PATH=str(path))
        assert run.stderr.startswith(f"pyrlab: {said}"), lines
        assert run.returncode != 0
        assert files_of(checkout) == before
    for lines in READ:
        (checkout / "local.mk").write_text(f"{lines}\n")
        assert "local.mk" not in type_make(checkout, "start_pylab", PATH=str(path)).stderr, lines
    (checkout / "local.mk").unlink()


@pytest.mark.parametrize("home", [{}, {"HOME": ""}], ids=["unset", "empty"])
def test_without_home(home: dict[str, str], checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where HOME is not set, as in a service, the notebooks are in the user's home all the same."""
    monkeypatch.delenv("HOME")
    shown = type_make(checkout, "help", **home).stdout
    assert f"[{pwd.getpwuid(os.getuid()).pw_dir}/notebooks]\n" in shown


def test_whatever_language(checkout: Path) -> None:
    """A folder is written as it is called, whatever this machine's language has no letters for."""
    for strange in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "LC_ALL": "de_DE"}, {"PYTHONSAFEPATH": "1"}):
        assert "[/srv/Grüße 中]\n" in type_make(checkout, "help", "FILES=/srv/Grüße 中", **strange).stdout, strange


@pytest.mark.parametrize("way", ["local.mk", "command line"])
def test_misspelt(way: str, checkout: Path, path: Path) -> None:
    """A name that is likely to be meant for a parameter is not passed over; others are whoever's they are."""
    wrong = {"FILE": "FILES", "port": "PORT", "PROT": "PORT", "PROJET": "PROJECT", "TAGS": "TAG"}
    said = typed(way, checkout, "stop", dict.fromkeys(wrong, "1234"), path).stderr.splitlines()
    assert {f"pyrlab: {name} is no parameter; did you mean {meant}?" for name, meant in wrong.items()} <= {*said}
    other = dict.fromkeys(("HTTP_PROXY", "DOCKER_HOST", "COURSE"), "http://127.0.0.1:1")
    assert "is no parameter" not in typed(way, checkout, "stop", other, path).stderr


COURSE = '[images.course]\nparent = "pylab"\nlists = []\nport = "CPORT"\ndefault = false\n'
OWN_NAMES = 'PROXY = http://proxy:3128\nhttp_proxy = $(PROXY)\nexport CPORT = "7778"\n'


def test_names_of_ones_own(tmp_path: Path, path: Path) -> None:
    """What local.mk itself makes use of, and the port of a lab of one's own, may be called much like a parameter."""
    checkout = copy_parts(tmp_path / "pyrlab")
    with (checkout / "images.toml").open("a") as file:
        file.write(COURSE)
    (checkout / "local.mk").write_text(OWN_NAMES)
    said = type_make(checkout, "doctor", PATH=str(path)).stdout
    assert "is no parameter" not in said
    assert re.search(r"^ok  CPORT +7778 ", said, re.MULTILINE), said


def test_a_local_mk_of_an_old_editor(tmp_path: Path) -> None:
    """What is written into it, and taken out again, leaves the other lines as they are, whatever their encoding."""
    local, own = tmp_path / "local.mk", "# Büro\nPORT = 8890\n".encode("latin-1")
    local.write_bytes(own)
    proxies.write(local, ["PIPPORT = 3141"])
    assert b"\nPIPPORT = 3141\n" in local.read_bytes()
    proxies.write(local, [])
    assert local.read_bytes() == own


def test_every_target_refuses(checkout: Path, path: Path) -> None:
    """Whatever is typed, also what builds nothing, refuses a value that cannot be right."""
    for target in ("build", "lock", "list", "url_pylab", "stop", "clean", "manifest", "proxies", "engine", "tunnel"):
        run = typed("command line", checkout, target, {"PROJECT": "my project"}, path)
        assert run.stderr.startswith("pyrlab: PROJECT=my project cannot be"), target


@pytest.mark.parametrize("way", ["local.mk", "environment", "command line"])
def test_passwords(way: str, checkout: Path, tmp_path: Path) -> None:
    """A password with a $ in it reaches the builds as it was written."""
    path = make_path(tmp_path / "bin")
    (path / "python3").unlink()
    write_script(path / "python3", '#!/bin/sh\nprintf "%s\\n" "$https_proxy"\n')
    for password in ("pa$word", "$1", "a'b\"c"):
        address = f"http://ada:{password}@proxy:3128"
        assert typed(way, checkout, "help", {"https_proxy": address}, path).stdout.strip() == address


def test_what_a_recipe_runs_sees_no_blanks(tmp_path: Path) -> None:
    """What reads the proxies in the environment, as pip and git, takes a blank for a part of an address."""
    checkout = copy_parts(tmp_path / "pyrlab")
    (checkout / "local.mk").write_text("https_proxy = http://proxy:3128   # the company's\n")
    (checkout / "Makefile").write_text(f"{MAKEFILE}\nshow:\n\t@env\n")
    seen = dict(line.split("=", 1) for line in type_make(checkout, "show").stdout.splitlines() if "=" in line)
    assert seen["https_proxy"] == "http://proxy:3128"
    names = [name for name in parameters.NAMES if name not in parameters.PATHS]
    assert [name for name in names if name in seen and seen[name] != seen[name].strip()] == []


def test_every_parameter_is_looked_at() -> None:
    """No parameter is forgotten, neither where make hands them on nor where they are read."""
    known = set(re.findall(r"^(\w+)\s*\?=", MAKEFILE, re.MULTILINE))
    exported = re.search(r"^PARAMETERS := ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert exported
    assert set(exported[1].replace("\\\n", " ").split()) == known == set(parameters.NAMES)
