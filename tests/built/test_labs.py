"""Labs as their user starts, finds, stops and reaches them with make."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import nbformat
import pytest
from nbformat import NotebookNode

from checkout import PROJECT, ROOT, Lab, Make, copy_checkout, docker, run_make, succeeded
from containers import HEALTHY_WITHIN, until
from pyrlab.host import idmap
from remote import execute
from servers import free_port, free_ports

SPARE = f"{PROJECT}-spare"  # prefix of labs that a test may stop and remove
THEME = "lab/api/settings/@jupyterlab/apputils-extension:themes"
DARK = {"raw": '{ "theme": "JupyterLab Dark" }'}
KERNELS = {"pylab": "python3", "rlab": "ir"}
LISTS = ("requirements.txt", "r_packages.txt", "base_debs.txt", "r_debs.txt")

# Cells that read what the host wrote, add a line to it, and write a file of their own, in ~/work.
CELLS = {
    "pylab": """
with open("pylab-host.txt", "a+") as file:
    file.seek(0)
    print(file.read().strip())
    file.write("from the lab")
open("pylab-kernel.txt", "w").write("from the kernel")
""",
    "rlab": """
cat(readLines("rlab-host.txt"))
cat("from the lab", file = "rlab-host.txt", append = TRUE)
cat("from the kernel", file = "rlab-kernel.txt")
""",
}


of_root = pytest.mark.skipif(os.getuid() != 0, reason="this needs root, whose files a lab has as jovyan's")


@pytest.fixture
def spare(images: str, make: Make, tmp_path: Path) -> Iterator[Make]:
    """Run make for labs that no other test uses, with notebooks in tmp_path / "books"; none runs yet."""
    settings = {"PROJECT": SPARE, "FILES": str(tmp_path / "books")}
    settings |= {name: str(port) for name, port in free_ports().items()}

    def run(*targets: str, **parameters: str | int) -> subprocess.CompletedProcess[str]:
        return make(*targets, **{**settings, **parameters})

    yield run
    run("stop")
    for kind, things in belongings().items():
        if things:
            docker(kind, "rm", "--force", *things)


def belongings() -> dict[str, list[str]]:
    """The containers, volumes and networks that Compose has made for the spare labs."""
    label = f"label=com.docker.compose.project={SPARE}"
    return {
        "container": docker("container", "ls", "--all", "--quiet", "--filter", label).split(),
        "volume": docker("volume", "ls", "--quiet", "--filter", label).split(),
        "network": docker("network", "ls", "--quiet", "--filter", label).split(),
    }


def answer(url: str, token: str = "", put: object = None) -> tuple[int, Any]:
    """The status and the text or JSON with which a lab answers; status 0 where none answers."""
    request = Request(url, method="GET" if put is None else "PUT")
    if token:
        request.add_header("Authorization", f"token {token}")
    if put is not None:
        request.data = json.dumps(put).encode()
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=30) as response:
            body = response.read()
            json_given = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(body) if json_given else body.decode()
    except HTTPError as error:
        with error:
            return error.code, ""
    except (URLError, ConnectionError):
        return 0, ""


def refusal(run: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that a user reads, besides make's own line, when make refuses."""
    assert run.returncode != 0, run.stdout
    lines = [line for line in run.stderr.splitlines() if not re.match(r"make(\[\d+\])?: \*\*\* ", line)]
    assert len(lines) == 1, run.stderr
    return lines[0]


def url_in(output: str) -> tuple[str, str]:
    """The address and token of the only URL that make printed."""
    [(address, token)] = re.findall(r"(http://127\.0\.0\.1:\d+/)lab\?token=(\w+)", output)
    return address, token


def shell(script: str, lab: str = "pylab", project: str = PROJECT) -> str:
    """What the script prints when it is piped into make bash_pylab."""
    command = ["make", "--no-print-directory", f"bash_{lab}", f"PROJECT={project}"]
    return succeeded(subprocess.run(command, cwd=ROOT, input=script, capture_output=True, text=True)).strip()


@contextmanager
def background(output: Path, target: str, **parameters: str) -> Iterator[None]:
    """Run make until the block ends, as a user who then types Ctrl-C; what it prints goes to the file."""
    arguments = [f"{key}={value}" for key, value in {"PROJECT": PROJECT, **parameters}.items()]
    command = ["make", "--no-print-directory", target, *arguments]
    with (
        output.open("w") as stream,
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


def cell(source: str) -> NotebookNode:
    """A notebook of one cell."""
    code = nbformat.v4.new_code_cell(source)  # type: ignore[no-untyped-call]
    notebook: NotebookNode = nbformat.v4.new_notebook(cells=[code])  # type: ignore[no-untyped-call]
    return notebook


def test_url(lab: Lab, make: Make) -> None:
    """The URL that the user reads when the lab starts opens it, and make url_… prints it again."""
    address, token = url_in(lab.output)
    assert answer(f"{address}lab?token={token}")[0] == 200
    assert f"{lab.name} is ready: {address}lab?token={token}\n" in lab.output
    assert succeeded(make(f"url_{lab.name}")) == f"{address}lab?token={token}\n"


def test_token(lab: Lab) -> None:
    """Who does not know the token cannot use the lab, and cannot guess it."""
    assert answer(f"{lab.url}api/contents")[0] == 403
    assert answer(f"{lab.url}api/contents", "guessed")[0] == 403
    assert answer(f"{lab.url}api/contents", lab.token)[0] == 200
    assert len(lab.token) >= 32


def test_this_machine_only(lab: Lab) -> None:
    """Nobody reaches the lab from another machine."""
    published = docker("port", lab.container).splitlines()
    assert published
    assert [line for line in published if " -> 127.0.0.1:" not in line] == []
    for address in other_addresses():
        with socket.socket() as visitor:
            visitor.settimeout(5)
            assert visitor.connect_ex((address, lab.port)) != 0, f"the lab listens on {address}"


def other_addresses() -> list[str]:
    """Addresses of this machine besides 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; chooses the address that others see
        except OSError:
            return ["127.0.0.2"]  # not connected to anything
        return ["127.0.0.2", str(probe.getsockname()[0])]


def test_side_by_side(pylab: Lab, rlab: Lab) -> None:
    """A user works in both labs at once, and the token of one does not open the other."""
    for one, other in ((pylab, rlab), (rlab, pylab)):
        assert answer(f"{one.url}api/contents", one.token)[0] == 200
        assert answer(f"{one.url}api/contents", other.token)[0] == 403


def rootless() -> bool:
    """Whether the engine runs as an ordinary user, whom it shows to a container as root."""
    return "name=rootless" in docker("info", "--format", "{{.SecurityOptions}}")


def test_unprivileged(lab: Lab) -> None:
    """Code that a user runs has no power over the machine: not root, no capability, no way to gain one, no sudo."""
    status = dict(line.split(":\t", 1) for line in docker("exec", lab.container, "cat", "/proc/1/status").splitlines())
    assert "0" not in status["Uid"].split() or rootless()
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capabilities], 16) == 0, capabilities
    assert status["NoNewPrivs"] == "1"
    assert shell("command -v sudo su-exec gosu || echo none", lab.name) == "none"


def test_files_made(lab: Lab, files: Path) -> None:
    """The folder that FILES names need not be there: the lab makes it, for the user, and says where it is."""
    assert f"notebooks: {files}" in lab.output
    assert files.is_dir()
    assert files.stat().st_uid == os.getuid()


def test_files_shared(lab: Lab, files: Path) -> None:
    """What the lab writes into ~/work belongs to the user, and the lab may change what the user put there."""
    host, kernel = files / f"{lab.name}-host.txt", files / f"{lab.name}-kernel.txt"
    host.write_text("from the host\n")
    try:
        notebook = execute(cell(CELLS[lab.name]), lab.url, lab.token, KERNELS[lab.name], path="work")
        assert notebook.cells[0].outputs[0].text.strip() == "from the host"
        assert host.read_text() == "from the host\nfrom the lab"
        assert kernel.read_text() == "from the kernel"
        assert (kernel.stat().st_uid, kernel.stat().st_gid) == (os.getuid(), os.getgid())
        kernel.write_text("the user may change it")
    finally:
        host.unlink()
        kernel.unlink(missing_ok=True)


@of_root
def test_files_shown(lab: Lab) -> None:
    """Where the lab has root's files as jovyan's, no user of this machine with jovyan's number has them, too."""
    shown = idmap.PLACE / lab.container
    if shown.exists():  # is_mount() sees none where both are of one file system
        assert subprocess.run(["ls", shown], user=1000, group=100, extra_groups=[], capture_output=True).returncode != 0
    else:
        assert docker("exec", lab.container, "id", "-u") == "0"


@of_root
def test_what_others_read_in_proc(lab: Lab) -> None:
    """No user of this machine with the number that a lab of root's has reads its token or its files by way of /proc."""
    process = f"/proc/{docker('inspect', '--format={{.State.Pid}}', lab.container)}"
    for path in (f"{process}/environ", f"{process}/root/home/jovyan/.bashrc"):
        read = subprocess.run(["cat", path], user=1000, group=100, extra_groups=[], capture_output=True, text=True)
        assert (read.returncode, read.stdout) == (1, "")


def test_second_start(lab: Lab, make: Make) -> None:
    """Starting a lab that runs already disturbs nothing: its container, kernels and token stay."""
    before = docker("container", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", lab.container)
    assert url_in(succeeded(make(f"start_{lab.name}"))) == (lab.url, lab.token)
    assert docker("container", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", lab.container) == before


def test_nothing_is_lost(name: str, spare: Make, tmp_path: Path) -> None:
    """Stop and start change nothing for the user; settings and notebooks outlive even the lab's container."""
    address, token = url_in(succeeded(spare(f"start_{name}")))
    nbformat.write(cell("1 + 1"), tmp_path / "books" / "own.ipynb")  # type: ignore[no-untyped-call]
    assert answer(address + THEME, token)[1]["raw"] != DARK["raw"]
    assert answer(address + THEME, token, put=DARK)[0] == 204
    install_package(tmp_path / "books", name)

    succeeded(spare(f"stop_{name}"))
    assert answer(address) == (0, "")
    assert url_in(succeeded(spare(f"start_{name}"))) == (address, token)
    assert answer(f"{address}api/contents/work/own.ipynb", token)[0] == 200
    assert answer(address + THEME, token)[1]["raw"] == DARK["raw"]
    assert shell("python -c 'import tiny_greeting'", name, SPARE) == "hello"

    docker("rm", "--force", f"{SPARE}-{name}")
    address, token = url_in(succeeded(spare(f"start_{name}")))
    assert answer(f"{address}api/contents/work/own.ipynb", token)[0] == 200
    assert answer(address + THEME, token)[1]["raw"] == DARK["raw"]


def install_package(files: Path, lab: str) -> None:
    """Install a package with pip in the spare lab, from a wheel, as no index need be there."""
    metadata = {
        "METADATA": "Metadata-Version: 2.1\nName: tiny-greeting\nVersion: 1\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    wheel = files / "tiny_greeting-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_greeting.py", "print('hello')\n")
        for file, text in metadata.items():
            archive.writestr(f"tiny_greeting-1.dist-info/{file}", text)
    shell(f"pip install --quiet --no-index ~/work/{wheel.name}", lab, SPARE)


def health() -> str:
    """What the engine's health checks say of the spare pylab."""
    return docker("container", "inspect", "--format", "{{.State.Health.Status}}", f"{SPARE}-pylab")


def test_engine_cleared(spare: Make) -> None:
    """A lab that was frozen, or whose network went with docker network prune, starts with the same token."""
    address, token = url_in(succeeded(spare("start_pylab")))
    docker("pause", f"{SPARE}-pylab")
    assert until(lambda: health() == "unhealthy", 120)
    assert url_in(succeeded(spare("start_pylab"))) == (address, token)
    assert answer(f"{address}api")[0] == 200
    succeeded(spare("stop"))
    docker("network", "rm", f"{SPARE}_default")
    assert url_in(succeeded(spare("start_pylab"))) == (address, token)
    assert answer(f"{address}api")[0] == 200


def test_stop(spare: Make, pylab: Lab) -> None:
    """Stopping says what was stopped and how to go on, harms no other lab, and may be repeated."""
    succeeded(spare("start_pylab"))
    assert succeeded(spare("stop")) == "pylab is stopped; make start_pylab continues where you left\n"
    assert docker("container", "inspect", "--format", "{{.State.Running}}", f"{SPARE}-pylab") == "false"
    assert answer(f"{pylab.url}api")[0] == 200
    assert succeeded(spare("stop")) == succeeded(spare("stop_pylab")) == "pylab does not run\n"


def test_list(pylab: Lab, rlab: Lab, make: Make) -> None:
    """A user who forgot what runs gets each lab's name, URL, folder and memory, if the engine counts that."""
    memory = "unknown" if docker("info", "--format", "{{.CgroupDriver}}") == "none" else r"[\d.]+[MG]iB"
    patterns = [
        rf"^{lab.container}\n"
        rf"  URL        {re.escape(lab.url)}lab\?token={lab.token}\n"
        rf"  notebooks  {re.escape(str(lab.files))}\n"
        rf"  memory     {memory}$"
        for lab in (pylab, rlab)
    ]

    def complete() -> bool:
        listed = succeeded(make("list"))
        return all(re.search(pattern, listed, re.MULTILINE) for pattern in patterns)

    assert until(complete), succeeded(make("list"))  # docker stats has no figure for 2 s on a busy machine


def test_logs(lab: Lab, tmp_path: Path) -> None:
    """The log can be followed without a terminal: what happens now appears in it."""
    output = tmp_path / "log"
    with background(output, f"logs_{lab.name}"):
        assert until(lambda: output.stat().st_size > 0)
        missing = f"api/contents/{tmp_path.name}.txt"
        assert answer(lab.url + missing, lab.token)[0] == 404
        assert until(lambda: missing in output.read_text()), output.read_text()


def test_bash(lab: Lab) -> None:
    """A shell in the lab works without a terminal, as a user who has a name and starts at home."""
    user = "root" if rootless() else "jovyan"
    assert shell("id -un\npwd\n", lab.name).splitlines() == [user, "/home/jovyan"]


EVENTS = """
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

writer = EventFileWriter("work/runs/first")
for step in range(3):
    value = Summary.Value(tag="loss", simple_value=1 / (1 + step))
    writer.add_event(Event(step=step, summary=Summary(value=[value])))
writer.close()
"""


def test_tensorboard(pylab: Lab, ports: dict[str, int]) -> None:
    """What a notebook logs for TensorBoard is seen at its port, once it is started in a terminal of the lab."""
    execute(cell(EVENTS), pylab.url, pylab.token)
    board = f"http://127.0.0.1:{ports['TBPORT']}/data/plugin/scalars/"
    shell("cd work && nohup tensorboard --bind_all --logdir runs >runs.log 2>&1 &")
    try:
        shown = until(lambda: answer(f"{board}tags") == (200, {"first": {"loss": ANY}}), HEALTHY_WITHIN)
        assert shown, shell("cd work && cat runs.log")
        points = answer(f"{board}scalars?run=first&tag=loss")[1]
        assert [point[1:] for point in points] == [[step, pytest.approx(1 / (1 + step))] for step in range(3)]
    finally:
        shell("pkill tensorboard; cd work && rm -r runs runs.log")


@pytest.mark.parametrize("verb", ["url", "logs", "bash"])
def test_not_running(verb: str, name: str, make: Make) -> None:
    """Asking for a lab that does not run says how to start it."""
    assert (
        refusal(make(f"{verb}_{name}", PROJECT=SPARE))
        == f"pyrlab: {name} does not run; start it with make start_{name}"
    )


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("pylab", {"PORT": "7007", "TBPORT": "7007"}, "PORT=7007 is TensorBoard's port"),
        ("rlab", {"RPORT": "7007", "TBPORT": "7007"}, "RPORT=7007 is TensorBoard's port"),
    ],
    ids=lambda value: " ".join(map("=".join, value.items())) if isinstance(value, dict) else "",
)
def test_refused(name: str, parameters: dict[str, str], said: str, spare: Make, tmp_path: Path) -> None:
    """A user who made a mistake reads one sentence about it, and nothing was started or made."""
    assert said in refusal(spare(f"start_{name}", **parameters))
    nothing_made(tmp_path / "books")


@pytest.mark.parametrize(("name", "port"), [("pylab", "PORT"), ("pylab", "TBPORT"), ("rlab", "RPORT")])
def test_port_in_use(name: str, port: str, spare: Make, tmp_path: Path) -> None:
    """A user whose port is taken by another program is told to choose another one."""
    with socket.create_server(("127.0.0.1", 0)) as program:
        taken = program.getsockname()[1]
        said = refusal(spare(f"start_{name}", **{port: taken}))
    assert f"port {taken} is in use; choose another, as in make {port}=" in said
    nothing_made(tmp_path / "books")


def test_port_of_a_lab(pylab: Lab, ports: dict[str, int], spare: Make, tmp_path: Path) -> None:
    """Where a container has the port, as a lab of another checkout, the user reads which."""
    said = refusal(spare("start_rlab", RPORT=ports["PORT"]))
    assert f"port {ports['PORT']} is in use by the container {pylab.container}; choose another" in said
    nothing_made(tmp_path / "books")


def nothing_made(files: Path) -> None:
    """No container, volume, network or folder is left of a start that was refused."""
    assert belongings() == {"container": [], "volume": [], "network": []}
    assert not files.exists()


@pytest.mark.parametrize(("below", "said"), [("", "is no folder"), ("/below/it", "a part of that path is a file")])
def test_files_is_a_file(below: str, said: str, spare: Make, tmp_path: Path) -> None:
    """A user whose FILES cannot be a folder is told so, and the file in its place is untouched."""
    file = tmp_path / "file"
    file.write_text("precious")
    assert said in refusal(spare("start_pylab", FILES=f"{file}{below}"))
    assert file.read_text() == "precious"
    nothing_made(tmp_path / "books")


def test_files_is_a_broken_link(spare: Make, tmp_path: Path) -> None:
    """A user whose FILES is a link to a folder that is away, as a disk not mounted, is told so."""
    (tmp_path / "link").symlink_to(tmp_path / "books")
    said = refusal(spare("start_pylab", FILES=f"{tmp_path}/link"))
    assert said.startswith(f"pyrlab: FILES={tmp_path}/link is a link that leads nowhere; ")
    nothing_made(tmp_path / "books")


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A folder of root's whose file system cannot show it as another user's, as in a container, or over a network."""
    below, above, work, books = (tmp_path / name for name in ("below", "above", "work", "books"))
    for folder in (below, above, work, books):
        folder.mkdir()
    options = f"lowerdir={below},upperdir={above},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, books], check=True)
    yield books
    subprocess.run(["umount", "--lazy", books], check=True)


@of_root
def test_notebooks_that_only_root_may_write(overlay: Path, spare: Make) -> None:
    """Where root's notebooks cannot be shown as the lab's user's, the lab works as root, without any capability."""
    succeeded(spare("start_pylab"))
    code = "import os, pathlib; pathlib.Path('work/new').touch(); print(os.getuid())"
    address, token = url_in(succeeded(spare("url_pylab")))
    notebook = execute(cell(code), address, token)
    assert notebook.cells[0].outputs[0].text == "0\n"
    assert (overlay / "new").stat().st_uid == 0
    assert shell("grep ^CapEff /proc/self/status", "pylab", SPARE).split() == ["CapEff:", "0" * 16]


def test_list_missing(spare: Make, tmp_path: Path) -> None:
    """A user who deleted a list is told which one, and that an empty one would do."""
    checkout = copy_checkout(tmp_path / "pyrlab")
    ports = {"PORT": free_port(), "TBPORT": free_port()}
    for path in LISTS:
        (checkout / path).rename(tmp_path / path)
        refused = run_make(checkout, "start_pylab", PROJECT=SPARE, FILES=str(tmp_path / "books"), **ports)
        assert refusal(refused) == f"pyrlab: the list {path} is missing; an empty file is a valid list"
        assert belongings() == {"container": [], "volume": [], "network": []}
        (tmp_path / path).rename(checkout / path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The user@host of an ssh server that lets this user in; it is this machine, so the labs run there."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert sshd, "openssh-server is missing; tests/setup.sh installs it"
    port = free_port()
    root = os.getuid() == 0
    if root:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd asks for it; the system's own service makes it
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)], check=True)
    config = {
        "Port": str(port),
        "ListenAddress": "127.0.0.1",
        "HostKey": str(tmp_path / "host"),
        "AuthorizedKeysFile": str(tmp_path / "user.pub"),
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "yes" if root else "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
    }
    (tmp_path / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in config.items()))
    options = f"-p {port} -i {tmp_path}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    monkeypatch.setenv("SSH_OPTIONS", f"{options} -o LogLevel=ERROR")
    log = tmp_path / "sshd.log"
    with subprocess.Popen([sshd, "-D", "-E", str(log), "-f", str(tmp_path / "sshd_config")]) as process:
        try:
            assert until(lambda: listens(f"ssh://127.0.0.1:{port}")), log.read_text()
            yield "127.0.0.1"
        finally:
            process.terminate()


def listens(url: str) -> bool:
    """Whether a server accepts connections there."""
    with socket.socket() as visitor:
        return visitor.connect_ex(("127.0.0.1", urlsplit(url).port)) == 0


def test_tunnel(server: str, pylab: Lab, rlab: Lab, tmp_path: Path) -> None:
    """A user reaches the labs of a server at ports of their own machine, others where those are taken."""
    output = tmp_path / "tunnel"
    with background(output, "tunnel", HOST=server):
        assert until(lambda: "Ctrl-C ends the tunnel\n" in output.read_text()), output.read_text()
        local = {lab: local_url(output.read_text(), f"{lab.name} on {server}", lab.token) for lab in (pylab, rlab)}
        assert len({*local.values(), pylab.url, rlab.url}) == 4  # the labs' own ports are taken: by the labs
        assert until(lambda: all(listens(url) for url in local.values())), output.read_text()
        for lab, url in local.items():
            assert answer(f"{url}lab?token={lab.token}")[0] == 200
    assert not any(listens(url) for url in local.values()), "the tunnel outlives Ctrl-C"


def local_url(output: str, title: str, token: str) -> str:
    """The address that make tunnel printed for a lab."""
    [address] = re.findall(rf"^{title}: (http://127\.0\.0\.1:\d+/)lab\?token={token}$", output, re.MULTILINE)
    return str(address)


def test_tunnel_to_nowhere(make: Make) -> None:
    """A user who does not name the server is told how to."""
    assert refusal(make("tunnel")) == "pyrlab: make tunnel needs the server, as in make tunnel HOST=user@server"


def test_tunnel_unreachable(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whose server does not answer reads ssh's reason, and one sentence of ours."""
    monkeypatch.setenv("SSH_OPTIONS", f"-p {free_port()} -o LogLevel=QUIET")
    said = "pyrlab: 127.0.0.1 could not be asked for its labs; ssh's own words stand above"
    assert refusal(make("tunnel", HOST="127.0.0.1")) == said
