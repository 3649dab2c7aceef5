"""How a laptop gets at the labs of a server, and what is said where it cannot."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import webbrowser
from pathlib import Path

import pytest

from bare import make_path, write_script
from checkout import ROOT
from pyrlab.host import lab, owner
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


def test_a_users_name_with_a_blank(asked: Path, tmp_path: Path) -> None:
    """Only their own labs are asked for, whatever they are called on the server."""
    lab.tunnel(Project(ROOT, {"HOST": "server"}))
    command = asked.read_text().split("server\n")[1].partition("\n-N\n")[0]
    write_script(tmp_path / "bin/id", "#!/bin/sh\necho 'CORP/ada b'\n")
    write_script(tmp_path / "bin/docker", f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/words\n')
    subprocess.run(["/bin/sh", "-c", command], check=True)
    assert (tmp_path / "words").read_text().splitlines()[-1] == f"label={owner.USER}=CORP/ada b"


def test_what_a_browser_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of a lab is not in the list of processes, which everybody sees, but in a file of one's own."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-generic")
    page = tmp_path / "open.html"
    for token in ("secret", "another"):
        lab.open_page(page, f"http://127.0.0.1:8888/lab?token={token}")
        assert f'0;url=http://127.0.0.1:8888/lab?token={token}"' in page.read_text()
    assert opened == [page.as_uri()] * 2
    assert page.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(platform, "release", lambda: "5.15.0-microsoft-standard-WSL2")
    lab.open_page(page, "http://127.0.0.1:8888/")
    assert opened[-1] == "http://127.0.0.1:8888/"


@pytest.mark.usefixtures("asked")
def test_options_that_do_not_end() -> None:
    """A quotation mark too many is named."""
    with pytest.raises(Problem, match=r"^SSH_OPTIONS has a quotation mark that does not end; "):
        lab.tunnel(Project(ROOT, {"HOST": "server", "SSH_OPTIONS": "-i ada's.key"}))
