"""Exit 0 once each Python and R kernel of this container's server has run a cell, asked the way a browser asks."""

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPRequest
from tornado.websocket import websocket_connect

PATIENCE = 60  # seconds
RUNTIME = Path(os.environ.get("JUPYTER_RUNTIME_DIR", Path.home() / ".local/share/jupyter/runtime"))


class Browser:
    """What a user's browser does with a server."""

    def __init__(self, announced: dict[str, Any]) -> None:
        self.api = f"127.0.0.1:{announced['port']}{announced['base_url']}api"
        self.headers = {"Authorization": f"token {announced['token']}"}

    async def ask(self, what: str, body: dict[str, str] | None = None) -> Any:
        """Get, or post, something of the server's API."""
        method, content = ("POST", json.dumps(body)) if body else ("GET", None)
        request = HTTPRequest(f"http://{self.api}/{what}", method, self.headers, content, request_timeout=PATIENCE)
        return json.loads((await AsyncHTTPClient().fetch(request)).body)

    async def works(self, name: str) -> bool:
        """Start a kernel; whether it runs a cell before it dies, from which the server would raise it again."""
        kernel = (await self.ask("kernels", {"name": name}))["id"]
        attempts = [asyncio.create_task(self.runs_cell(kernel)), asyncio.create_task(death(kernel))]
        (first, *_), _ = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
        return first.result() is True

    async def runs_cell(self, kernel: str) -> bool:
        """Whether a kernel runs a cell."""
        channels = f"ws://{self.api}/kernels/{kernel}/channels?session_id=trial"
        socket = await websocket_connect(HTTPRequest(channels, headers=self.headers, request_timeout=PATIENCE))
        header = {"msg_id": "1", "msg_type": "execute_request", "session": "trial", "username": "", "version": "5.3"}
        cell = {"code": "1", "silent": False, "user_expressions": {}, "allow_stdin": False}
        request = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": cell}
        await socket.write_message(json.dumps(request))
        while received := await socket.read_message():
            message = json.loads(received)
            if message["msg_type"] == "execute_reply":
                return bool(message["content"]["status"] == "ok")
        return False


async def death(kernel: str) -> None:
    """Wait until no process is named after a kernel."""
    alive = True
    while alive:
        await asyncio.sleep(0.2)
        alive = False
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                alive = alive or kernel in process.read_text(errors="replace")


async def opened() -> tuple[Browser, list[str]]:
    """A browser in which the server has been opened, once that answers, and the kernels that it offers."""
    while True:
        for path in RUNTIME.glob("jpserver-*.json"):
            with suppress(ValueError, ConnectionError):  # the file is just being written, or the port not open yet
                browser = Browser(json.loads(path.read_text()))
                found = (await browser.ask("kernelspecs"))["kernelspecs"]
                return browser, [name for name in found if found[name]["spec"]["language"] in ("python", "R")]
        await asyncio.sleep(0.05)


async def main() -> None:
    """Try all kernels at once."""
    try:
        async with asyncio.timeout(PATIENCE):
            browser, kernels = await opened()
            work = await asyncio.gather(*map(browser.works, kernels))
    except (OSError, HTTPError) as error:
        sys.exit(f"its server fails: {error or 'no answer'}")
    if False in work:
        sys.exit(f"its kernel {kernels[work.index(False)]} runs no cell")


asyncio.run(main())
