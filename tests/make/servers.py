"""Servers that tests and the bench start on this machine."""

from __future__ import annotations

import base64
import functools
import io
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO
from zipfile import ZipFile, ZipInfo


def free_port(host: str = "127.0.0.1", wanted: int = 0) -> int:
    """A port of an address of this machine that nothing listens on, not far above the `wanted` one if there is any."""
    with socket.socket() as probe:
        try:
            probe.bind((host, wanted))
        except OSError:
            return free_port(host, wanted + 1)
        port: int = probe.getsockname()[1]
        return port


def free_ports() -> dict[str, int]:
    """The parameters that give labs ports of their own."""
    return {name: free_port() for name in ("PORT", "RPORT", "TBPORT")}


def wait_for(port: int, host: str = "127.0.0.1") -> None:
    """Return once something listens on `port` of an address of this machine."""
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
        else:
            return


@contextmanager
def serve_registry(folder: Path) -> Iterator[tuple[str, Path]]:
    """A real image registry that stores in `folder`: its address, and its log in JSON, a line a request."""
    port = free_port()
    folder.mkdir()
    log = folder / "log"
    config = {
        "version": 0.1,
        "log": {"formatter": "json"},
        "storage": {"filesystem": {"rootdirectory": str(folder)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "registry.yml").write_text(json.dumps(config))  # JSON is YAML
    command = ["docker-registry", "serve", str(folder / "registry.yml")]
    with log.open("w") as words, subprocess.Popen(command, stdout=words, stderr=words) as registry:
        try:
            wait_for(port)
            yield f"127.0.0.1:{port}", log
        finally:
            registry.terminate()


@dataclass
class WebServer:
    """A running web server: its address, what it was asked for, by whom, and with which headers."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    headers: set[str] = field(default_factory=set)


@contextmanager
def serve_files(
    folder: Path, host: str = "127.0.0.1", page: str = "", private: str = "", trust: ssl.SSLContext | None = None
) -> Iterator[WebServer]:
    """Serve the files of `folder` over HTTP at an address of this machine; whatever is asked for `page`, if given.

    What is below /private/ wants the user and password `private`, as in `user:password`. With `trust` it is HTTPS.
    """
    running = WebServer()
    demanded = f"Basic {base64.b64encode(private.encode()).decode()}"

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            return str(folder / page) if page else super().translate_path(path)

        def send_head(self) -> io.BytesIO | BinaryIO | None:
            if private and self.path.startswith("/private/") and self.headers["Authorization"] != demanded:
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic realm=private")
                self.end_headers()
                return None
            return super().send_head()

        def end_headers(self) -> None:
            self.send_header("Cache-Control", "no-cache")  # a test changes files whenever it likes
            super().end_headers()

        def log_message(self, *words: object) -> None:
            running.paths.append(self.path)
            running.agents.add(self.headers["User-Agent"])
            running.headers |= {*self.headers}

    with ThreadingHTTPServer((host, 0), functools.partial(Handler, directory=str(folder))) as server:
        running.url = f"http{'s' if trust else ''}://{host}:{server.server_address[1]}"
        server.socket = trust.wrap_socket(server.socket, server_side=True) if trust else server.socket
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()


def zip_wheel(folder: Path, target: Path) -> None:
    """Make a wheel of the modules in `folder`, which is called as the wheel."""
    name, version, *_ = folder.name.split("-")
    about = f"{name}-{version}.dist-info"
    files = {path.name: path.read_text() for path in sorted(folder.iterdir())}
    files[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{about}/RECORD"])
    with ZipFile(target, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(ZipInfo(path), text)


@dataclass(frozen=True)
class Squid:
    """A running proxy that wants a user name and a password: where it is, what it looks into TLS with, its log."""

    url: str
    authority: Path
    log: Path
    user: str = "canary-user"
    password: str = "canary-password"
    forbidden: str = "forbidden.invalid"

    @property
    def with_password(self) -> str:
        """The address with user and password."""
        return self.url.replace("//", f"//{self.user}:{self.password}@")


@contextmanager
def serve_squid(host: str = "127.0.0.1") -> Iterator[Squid]:
    """A real squid with basic authentication that looks into TLS with a certificate authority of its own."""
    with TemporaryDirectory(prefix="pyrlab-squid-") as folder:
        Path(folder).chmod(0o777)  # squid is another user
        yield from run_squid(Path(folder), host)


def run_squid(folder: Path, host: str) -> Iterator[Squid]:
    """Run squid with its files in `folder`, which it may write."""
    port = free_port(host, 3128)  # apt-cacher-ng takes no proxy beyond port 32767
    proxy = Squid(f"http://{host}:{port}", folder / "authority.pem", folder / "access.log")
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    # Python 3.13 takes no authority that does not say so.
    request += ["-subj", "/CN=canary authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    key = folder / "key.pem"
    subprocess.run([*request, "-keyout", str(key), "-out", str(proxy.authority)], check=True, capture_output=True)
    key.chmod(0o644)
    hashed = subprocess.run(["openssl", "passwd", "-apr1", proxy.password], check=True, capture_output=True, text=True)
    (folder / "passwords").write_text(f"{proxy.user}:{hashed.stdout}")
    helpers = Path("/usr/lib/squid")
    certificates = str(folder / "certificates")
    make_store = [str(helpers / "security_file_certgen"), "-c", "-s", certificates, "-M", "4MB"]
    subprocess.run(make_store, check=True, capture_output=True)
    subprocess.run(["chmod", "-R", "a+rwX", certificates], check=True)
    (folder / "squid.conf").write_text(f"""
http_port {host}:{port} ssl-bump generate-host-certificates=on tls-cert={proxy.authority} tls-key={key}
sslcrtd_program {helpers}/security_file_certgen -s {certificates} -M 4MB
tls_outgoing_options cafile=/etc/ssl/certs/ca-certificates.crt
acl begin at_step SslBump1
ssl_bump peek begin
ssl_bump bump all
auth_param basic program {helpers}/basic_ncsa_auth {folder}/passwords
acl forbidden dstdomain {proxy.forbidden}
acl known proxy_auth REQUIRED
http_access deny known forbidden
http_access allow known
http_access deny all
cache deny all
access_log stdio:{proxy.log}
cache_log {folder}/cache.log
pid_filename none
shutdown_lifetime 0 seconds
""")
    with subprocess.Popen(
        [shutil.which("squid") or "/usr/sbin/squid", "-N", "-f", folder / "squid.conf"], stdout=subprocess.DEVNULL
    ) as squid:
        try:
            wait_for(port, host)
            yield proxy
        finally:
            squid.terminate()
