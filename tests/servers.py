"""Servers that tests and the bench start on this machine."""

from __future__ import annotations

import functools
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Return once something listens on `port` of 127.0.0.1."""
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
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
    """A running web server: its address, what it was asked for, and by whom."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)


@contextmanager
def serve_files(folder: Path, host: str = "127.0.0.1") -> Iterator[WebServer]:
    """Serve the files of `folder` over HTTP at an address of this machine."""
    running = WebServer()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            running.paths.append(self.path)
            running.agents.add(self.headers["User-Agent"])

    with ThreadingHTTPServer((host, 0), functools.partial(Handler, directory=str(folder))) as server:
        running.url = f"http://{host}:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()
