"""Proxies, indexes and certificates as a user names them: what is said of a wrong one, and what is never said."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bare import copy_parts
from pyrlab.host import online, proxies
from pyrlab.host.engine import Engine
from pyrlab.host.project import Project
from pyrlab.model.checkout import without_passwords
from pyrlab.model.problem import Problem
from pyrlab.steps import network
from servers import serve_files
from told import APT, NOBODY, UV, check, explain


@pytest.mark.parametrize(
    ("name", "words"), [("APTPROXY", APT), ("PIPPROXY", UV), ("https_proxy", UV), ("http_proxy", APT)]
)
def test_proxy_down(name: str, words: str) -> None:
    """Where nothing listens, the parameter that says to go there is named."""
    assert explain(words, **{name: NOBODY}) == network.down(name, "[Errno 111] Connection refused")


def test_no_web_server() -> None:
    """An address where something other than a web server listens is reported like any other."""
    with socket.socket() as other, ThreadPoolExecutor(1) as pool:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.settimeout(20)  # where nobody calls again the test fails, and does not wait for ever

        def greet() -> None:
            for _ in range(2):
                connection, _ = other.accept()
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_10.0\r\n")
                connection.close()

        pool.submit(greet)
        sentence = check(PIPPROXY=f"http://127.0.0.1:{other.getsockname()[1]}")
    assert sentence.startswith("PIPPROXY cannot be reached (its answer is not HTTP: SSH-2.0")


@pytest.mark.parametrize(("name", "words"), [("APTPROXY", APT), ("PIPPROXY", UV), ("http_proxy", APT)])
def test_login_page(portal: str, name: str, words: str) -> None:
    """A page to log in, in the place of packages, is told from packages."""
    assert explain(words, **{name: portal}) == (
        f"{name} answers with another page than asked for, perhaps one to log in; try it in a browser"
    )


def test_no_network_at_all() -> None:
    """Where no parameter is to blame, the user learns which there are."""
    sentence = explain(UV)
    assert sentence.startswith("packages.invalid cannot be reached (")
    assert sentence.endswith("; behind a proxy, set http_proxy and https_proxy, or APTPROXY and PIPPROXY")


def test_nothing_to_blame(tmp_path: Path) -> None:
    """An index that answers is not blamed for a package that it has not."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/index.html").write_text('<a href="pip-1.whl">pip-1.whl</a>')
    with serve_files(tmp_path) as server:
        assert explain("Because pandsa was not found in the package registry", PIPPROXY=server.url) == ""


@pytest.mark.parametrize("name", ["APTPROXY", "PIPPROXY", "http_proxy", "https_proxy"])
def test_no_address(name: str) -> None:
    """What is no address is refused before anything is built, and is not repeated: it may hold a password."""
    sentence = f"^{name} is no address of a proxy; write it as in {name}=http://172.17.0.1:3142$"
    for value in ("http://", "http://:3142", "http://proxy:port"):
        with pytest.raises(Problem, match=sentence):
            online.settings(Project(Path(), {name: value}))


@pytest.mark.parametrize(("gateway", "said"), [("172.17.0.1", "the address 172.17.0.1,"), ("", "its address in your")])
def test_loopback(gateway: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of this machine's own must be named by an address that containers reach, if there is such a one."""
    monkeypatch.setattr(online, "bridge", lambda engine: gateway)
    with pytest.raises(Problem, match=f"^https_proxy names this machine as localhost, .* by {said}.*https_proxy=$"):
        online.settings(Project(Path(), {"https_proxy": "http://localhost:8080"}))


def test_caches_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """No caches are started where builds could not use them, as on a rootless engine."""
    monkeypatch.setattr(Engine, "rootless", True)
    with pytest.raises(Problem, match=r"so there are no caches on it; APTPROXY and PIPPROXY may .* elsewhere$"):
        proxies.start(Project(Path(), {}))


def test_an_engine_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the server of a docker context reaches is not asked from here."""
    monkeypatch.setattr(Engine, "context", ("server", "ssh://ada@server"))
    online.check(Project(Path(), {"APTPROXY": NOBODY}))


def test_bare_address() -> None:
    """A proxy without http:// before it is meant as one with it."""
    given = online.settings(Project(Path(), {"http_proxy": "proxy.example:3128"}))
    assert given["http_proxy"] == "http://proxy.example:3128"


def test_own_network() -> None:
    """A cache on this machine's bridge is not asked for through a company's proxy, nor is the lab itself."""
    given = {"http_proxy": "http://proxy.example:3128", "no_proxy": "intranet.example"}
    given["PIPPROXY"] = "http://172.17.0.1:3141"
    assert online.settings(Project(Path(), given))["no_proxy"] == "intranet.example,localhost,127.0.0.1,::1,172.17.0.1"


@pytest.mark.parametrize(
    "words",
    [
        "trying http://jane:s3cr%40t@proxy.example:3128/ now",
        "Could not connect to PROXY.example:3128 (10.1.2.3)",
        "user jane was denied",
        "password s3cr%40t, that is s3cr@t",
        "http://proxy.example answers",
        "Could not resolve 'proxy.example'",
    ],
)
def test_nothing_is_told(words: str) -> None:
    """Neither address nor host, user or password of a proxy are in what is shown or logged."""
    said = network.concealer({"APTPROXY": "http://jane:s3cr%40t@proxy.example:3128"})(words)
    assert "APTPROXY" in said
    assert not any(secret in said.lower() for secret in ("proxy.example", "jane", "s3cr"))


def test_other_words_stay() -> None:
    """What only begins or ends like a user's name is left alone."""
    conceal = network.concealer({"APTPROXY": "http://pip:r@proxy:3128"})
    said = conceal("pipeline of r-base and pip-tools behind a proxy; could not resolve 'proxy', pip")
    assert said == "pipeline of r-base and pip-tools behind a proxy; could not resolve APTPROXY, APTPROXY"
    assert network.concealer({"no_proxy": "localhost"})("localhost") == "localhost"


def test_certificates(tmp_path: Path) -> None:
    """CACERT adds to what this machine trusts, and a file that is not there is not passed over."""
    company = tmp_path / "company.pem"
    project = Project(tmp_path, {"CACERT": str(company)})
    own = next(Path(bundle) for bundle in online.BUNDLES if Path(bundle).exists()).read_bytes()
    assert Path(online.trusted(Project(tmp_path, {}))).read_bytes() == own
    pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    company.write_bytes(pem)
    assert Path(online.trusted(project)).read_bytes() == own + b"\n" + pem
    company.write_bytes(own + pem)
    assert Path(online.trusted(project)).read_bytes() == own + pem
    company.write_bytes(b"\x30\x82")
    with pytest.raises(Problem, match=r"company\.pem has no certificate in PEM form"):
        online.trusted(project)
    company.unlink()
    with pytest.raises(Problem, match=r"company\.pem cannot be read: No such file"):
        online.trusted(project)


@pytest.mark.parametrize(("scheme", "password"), [("HTTPS", "s3cret"), ("https", "s3c@ret")])
def test_a_password_in_a_list(scheme: str, password: str, tmp_path: Path) -> None:
    """A password in an address gets online, but never into a lock, however the address is written."""
    line = f"--extra-index-url {scheme}://jane:{password}@host.example/simple\n"
    assert without_passwords(line) == f"--extra-index-url {scheme}://host.example/simple\n"
    checkout = copy_parts(tmp_path / "pyrlab")
    (checkout / "requirements.txt").write_text(line)
    assert online.netrc(Project(checkout, {})) == f"machine host.example login jane password {password}\n"


def test_a_password_stays_with_its_host(tmp_path: Path) -> None:
    """Where a server sends a build on to another, that one is not told the first one's password."""
    told: dict[str, str | None] = {}
    (tmp_path / "archive").write_text("content")
    with serve_files(tmp_path) as other:

        class Sending(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told[self.path] = self.headers["Authorization"]
                self.send_response(200 if self.path == "/there" else 302)
                self.send_header("Location", f"{other.url}/archive" if self.path == "/away" else "/there")
                self.send_header("Content-Length", "0")
                self.end_headers()

        with ThreadingHTTPServer(("127.0.0.1", 0), Sending) as server, ThreadPoolExecutor(1) as beside:
            beside.submit(server.serve_forever, 0.05)
            try:
                place = f"http://jane:s3cret@127.0.0.1:{server.server_address[1]}"
                assert network.fetch(f"{place}/away", {}) == b"content"
                network.fetch(f"{place}/here", {})
            finally:
                server.shutdown()
    assert told == dict.fromkeys(["/away", "/here", "/there"], "Basic amFuZTpzM2NyZXQ=")
    assert "Authorization" not in other.headers
