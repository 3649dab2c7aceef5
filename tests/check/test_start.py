"""What a start does beyond the ordinary: whom root's container becomes, and which home a user gets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import ROOT

sys.path.append(str(ROOT / "docker" / "run"))
import contract

RUN = ROOT / "docker" / "run"
PASSWD = [
    "root:x:0:0:root:/root:/bin/bash",
    "_apt:x:42:65534::/none:/bin/false",
    "jovyan:x:1000:100::/home/jovyan:/bin/sh",
]
GROUP = ["root:x:0:", "users:x:100:", "ssh:x:101:"]
ROOT_USER = {"NB_USER": "root", "NB_UID": "0", "NB_GID": "0"}


def account(**environment: str) -> contract.Account:
    """The account that variables describe."""
    return contract.Account.asked_for(environment)


def test_account() -> None:
    """Who asks for nothing is jovyan; what is asked for is had, root by all three of its names."""
    assert account() == contract.Account("jovyan", 1000, 100, "jovyan")
    asked = account(NB_USER="ada", NB_UID="1234", NB_GID="4321", NB_GROUP="engines")
    assert asked == contract.Account("ada", 1234, 4321, "engines")
    assert asked.home == Path("/home/ada")
    assert not asked.is_root
    assert account(**ROOT_USER).is_root


@pytest.mark.parametrize(
    "environment",
    [
        {"NB_UID": "0"},
        {"NB_USER": "root"},
        {"NB_USER": "root", "NB_UID": "0"},
        {"NB_USER": "../ada"},
        {"NB_USER": "ada:0:0"},
        {"NB_USER": "-ada"},
        {"NB_GROUP": "a b", "NB_GID": "5000"},
        {"NB_UID": "-1"},
        {"NB_UID": "users"},
        {"NB_GID": "4294967295"},
    ],
)
def test_account_refused(environment: dict[str, str]) -> None:
    """What would make root of a user, or no user, is refused with a sentence that names the variable."""
    with pytest.raises(contract.Refusal, match="NB_"):
        account(**environment)


def test_passwd() -> None:
    """The account takes jovyan's place, and that of who had its name; the others stay."""
    assert contract.passwd_with(PASSWD, account(NB_USER="ada", NB_UID="1234")) == [
        *PASSWD[:2],
        "ada:x:1234:100::/home/ada:/bin/bash",
    ]
    again = contract.passwd_with(PASSWD, account(NB_USER="_apt", NB_UID="1234"))
    assert again == [PASSWD[0], "_apt:x:1234:100::/home/_apt:/bin/bash"]
    assert contract.passwd_with(PASSWD, account(**ROOT_USER)) == ["root:x:0:0:root:/home/root:/bin/bash", *PASSWD[1:]]


@pytest.mark.parametrize(
    ("environment", "lines"),
    [
        ({}, GROUP),
        ({"NB_GID": "101"}, ["root:x:0:", "users:x:100:jovyan", "ssh:x:101:"]),
        ({"NB_GID": "555", "NB_GROUP": "ssh"}, ["root:x:0:", "users:x:100:jovyan", "ssh:x:555:"]),
        ({"NB_USER": "ada", "NB_GID": "555"}, ["root:x:0:", "users:x:100:ada", "ssh:x:101:", "ada:x:555:"]),
        (ROOT_USER, GROUP),
    ],
)
def test_group(environment: dict[str, str], lines: list[str]) -> None:
    """The group gets its name if its number has none, and the account stays among the users, who may write at home."""
    changed = contract.group_with(GROUP, account(**environment))
    assert changed == lines
    assert contract.group_with(changed, account(**environment)) == lines  # when the container is started again


ALL = "CapEff:\t00000000a80425fb\n"
NONE = "CapEff:\t0000000000000000\n"


def test_capabilities() -> None:
    """Root without capabilities is a rootless engine's user, or else cannot become who was asked for."""
    assert contract.may_change_user(ALL, "0 0 4294967295")
    assert contract.may_change_user(ALL, "0 1000 1")
    assert not contract.may_change_user(NONE, "         0       1000          1\n")
    with pytest.raises(contract.Refusal, match="without the capabilities"):
        contract.may_change_user(NONE, "         0          0 4294967295\n")


def test_what_chown_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is told to whoever looks on, and start.sh, which runs what is printed, gets none of it."""
    contract.chown(str(tmp_path), "-v", contract.Account("ada", os.getuid(), os.getgid(), "ada"))
    printed = capfd.readouterr()
    assert (printed.out, str(tmp_path) in printed.err) == ("", True)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged."""
    lines: list[str] = []
    monkeypatch.setattr(contract, "log", lambda level, text: lines.append(f"{level} {text}"))
    return lines


def test_home(tmp_path: Path, heard: list[str]) -> None:
    """A home that can be written, or made, is the home, and nothing is said."""
    changes, _ = contract.settle({"HOME": str(tmp_path / "new" / "home"), "PATH": "/bin"})
    assert changes["HOME"] == str(tmp_path / "new" / "home")
    assert (tmp_path / "new" / "home").is_dir()
    assert heard == []


def test_cache_of_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, as whom a lab runs on a rootless engine, has a cache of its own in jovyan's home: pip uses no other."""
    monkeypatch.setattr(os, "getuid", lambda: 0)
    contract.settle({"HOME": str(tmp_path)})
    assert (tmp_path / ".cache").is_dir()


def test_no_home(tmp_path: Path, heard: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the home cannot be written there is another one, and a sentence that says so and what to do."""
    monkeypatch.setattr(contract, "TEMPORARY", (str(tmp_path / "full" / "no"), str(tmp_path)))
    (tmp_path / "full").write_text("no folder")
    other = tmp_path / f"home-{os.getuid()}"
    assert contract.writable_home(tmp_path / "full") == other
    [line] = heard
    assert line.startswith(f"WARNING no write access to {tmp_path / 'full'}. It belongs to ")
    assert line.endswith(f". Until then the home is {other}.")


def test_nothing_writable(tmp_path: Path, heard: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no other home the command is started all the same, and the sentence says so."""
    monkeypatch.setattr(contract, "TEMPORARY", (str(tmp_path),))
    (tmp_path / f"home-{os.getuid()}").write_text("no folder")
    (tmp_path / "full").write_text("no folder")
    assert contract.writable_home(tmp_path / "full") == tmp_path / "full"
    assert "nor to anything else" in heard[0]


def test_stop_of_what_runs_again(tmp_path: Path) -> None:
    """RESTARTABLE: the server that is to stop has its time, and is not started again."""
    server = f"trap 'sleep 0.5; echo stopped; exit' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    command = [str(RUN / "run-one-constantly"), "bash", "-c", server]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        while not (tmp_path / "ready").exists():
            assert running.poll() is None
        os.killpg(running.pid, signal.SIGTERM)  # as tini does
        running.wait()
        assert running.stdout
        assert running.stdout.read() == "stopped\n"


def bash(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of bash with the run-time files' log functions."""
    command = ["bash", "-c", f'source "$RUN/_docker_stacks_log.sh"; {script}', "bash", *arguments]
    given = {"PATH": os.environ["PATH"], "RUN": str(RUN), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=given)


def test_log() -> None:
    """Lines are dated and go to standard error; QUIET leaves warnings and errors."""
    said = bash("_log_info one; _log_warn two; _log_error three; _log four", JUPYTER_DOCKER_STACKS_QUIET="1")
    assert said.stdout == ""
    assert [line.partition("[")[0] + line.partition("]")[2] for line in said.stderr.splitlines()] == [
        "WARNING two",
        "ERROR three",
    ]
    assert bash("_log four").stderr.startswith("INFO[20")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "Should pass exactly one directory"),
        ("a b", "Should pass exactly one directory"),
        ("/nowhere", "Directory /nowhere doesn't exist or is not a directory"),
        ("/etc/passwd", "Directory /etc/passwd doesn't exist or is not a directory"),
    ],
)
def test_hooks_misused(arguments: str, sentence: str) -> None:
    """A child image's script that names no folder reads why."""
    said = bash(f'source "$RUN/run-hooks.sh" {arguments}')
    assert said.returncode == 1
    assert sentence in said.stderr


@pytest.mark.parametrize("options", ["set -euo pipefail", "set -e", "set +eu"])
def test_hooks_leave_the_shell_as_it_was(options: str, tmp_path: Path) -> None:
    """Neither a hook nor how hooks are run changes what errors mean to the script that runs them."""
    (tmp_path / "a.sh").write_text("set -u +e; set +o pipefail\n")
    script = f'{options}; before=$-$(shopt -o pipefail || true); source "$RUN/run-hooks.sh" "$1"'
    said = bash(f'{script}; [ "$before" = "$-$(shopt -o pipefail || true)" ] && echo same', str(tmp_path))
    assert said.stdout == "same\n", said.stderr


GROUP_ID = 12345 if os.getuid() == 0 else os.getgid()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder as root's pip leaves it, with a link that leads elsewhere."""
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "elsewhere").chmod(0o600)
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin").chmod(0o755)
    for name, mode in {"bin/tool": 0o764, "module.py": 0o644, "others": 0o664, "right": 0o664}.items():
        (tree / name).write_text("")
        (tree / name).chmod(mode)
    for name in ("bin/tool", "right"):
        os.chown(tree / name, -1, GROUP_ID)
    (tree / "link").symlink_to(tmp_path / "elsewhere")
    return tree


def changes(*paths: Path) -> list[int]:
    """When what is known of files has changed last."""
    return [path.lstat().st_ctime_ns for path in paths]


def test_fix_permissions(tree: Path) -> None:
    """The group may write all, and run what can be run; nothing that is right is touched, nor what links lead to."""
    fix = [str(RUN / "fix-permissions"), str(tree)]
    environment = {**os.environ, "NB_GID": str(GROUP_ID)}
    right = changes(tree / "right", tree.parent / "elsewhere")
    subprocess.run(fix, check=True, env=environment)
    found = [(tree / name).stat() for name in ("bin", "bin/tool", "module.py", "others", "right")]
    assert [oct(status.st_mode & 0o7777) for status in found] == ["0o2775", "0o774", *["0o664"] * 3]
    assert {status.st_gid for status in found} == {GROUP_ID}
    assert changes(tree / "right", tree.parent / "elsewhere") == right
    after = changes(*tree.rglob("*"))
    subprocess.run(fix, check=True, env=environment)
    assert changes(*tree.rglob("*")) == after
