"""How a laptop gets at the labs of a server, and what is said where it cannot."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from bare import make_path, write_script
from checkout import ROOT
from pyrlab.host import lab
from pyrlab.host.engine import Engine
from pyrlab.host.project import Project
from pyrlab.model.problem import Problem

LABELS = {"org.pyrlab.lab": "pylab", "org.pyrlab.port": "8888", "org.pyrlab.files": "/home/ada/notebooks"}
CONTAINER = {"Name": "/pyrlab-pylab", "Config": {"Labels": LABELS, "Env": ["JUPYTER_TOKEN=secret"]}}


@pytest.mark.parametrize(
    ("address", "host"), [("ssh://ada@server", "ada@server"), ("ssh://ada@server:2222/run", "ssh://ada@server:2222")]
)
def test_a_lab_elsewhere(monkeypatch: pytest.MonkeyPatch, address: str, host: str) -> None:
    """On an engine that docker reaches over SSH no lab is started: it would have other notebooks, and no such port."""
    monkeypatch.setattr(Engine, "context", ("server", address))
    said = rf"^the engine is on another machine \({address}\), .* HOST={host}$"
    with pytest.raises(Problem, match=said):
        lab.Lab(Project(ROOT, {}), "pylab").check()


@pytest.mark.parametrize(
    ("connection", "name"),
    [("10.0.0.9 5555 10.0.0.5 22", "ada@10.0.0.5"), ("10.0.0.9 5555 10.0.0.5 2222", "-p 2222 ada@10.0.0.5")],
)
def test_how_a_laptop_gets_there(monkeypatch: pytest.MonkeyPatch, connection: str, name: str) -> None:
    """The line for the laptop goes the way by which the user has come."""
    monkeypatch.setenv("SSH_CONNECTION", connection)
    monkeypatch.setenv("LOGNAME", "ada")
    assert lab.ssh_name() == name


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where is noted what ssh is asked, on a server whose shell has something to say first, too."""
    path = make_path(tmp_path / "bin")
    answer = f"Welcome [ada]!\n{json.dumps([CONTAINER], indent=4)}\n"
    (tmp_path / "answer").write_text(answer)
    write_script(path / "ssh", f'#!/bin/sh\nprintf "%s\\n" "$@" >>{tmp_path}/asked\nexec /bin/cat {tmp_path}/answer\n')
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr(os, "execvp", lambda program, words: None)
    return tmp_path / "asked"


def test_a_talkative_server(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a login prints there is in nobody's way; options mean what they do in a shell."""
    lab.tunnel(Project(ROOT, {"HOST": "server", "SSH_OPTIONS": "-F ~/own -i '$HOME/my key'"}))
    assert re.match(r"pylab on server: http://127\.0\.0\.1:\d+/lab\?token=secret\n", capsys.readouterr().out)
    assert asked.read_text().splitlines()[:5] == ["-F", "/home/ada/own", "-i", "/home/ada/my key", "server"]


def test_beyond_the_last_port() -> None:
    """A lab at a server's last port, which this machine uses itself, is told, as there is no other one above it."""
    with pytest.raises(Problem, match=r"^none of the ports from 65536 to 65635 is free on this machine$"):
        lab.free_port(65536)


@pytest.mark.usefixtures("asked")
def test_options_that_do_not_end() -> None:
    """A quotation mark too many is named."""
    with pytest.raises(Problem, match=r"^SSH_OPTIONS has a quotation mark that does not end; "):
        lab.tunnel(Project(ROOT, {"HOST": "server", "SSH_OPTIONS": "-i ada's.key"}))
