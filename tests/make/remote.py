"""Run a notebook in a lab that is already running, the way its user's browser does.

The kernel is started, spoken to and stopped through the lab's own server, over HTTP and WebSocket with its
token.  nbclient collects the outputs; only the way to the kernel is ours, as the gateway classes of
jupyter_server keep one address per process, do not authenticate their WebSocket and lose binary messages.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from queue import Empty
from typing import Any, Protocol, cast
from urllib.parse import quote
from uuid import uuid4

from jupyter_client.client import KernelClient
from jupyter_client.jsonutil import json_default
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

Message = dict[str, Any]

PROTOCOL = "v1.kernel.websocket.jupyter.org"
REQUEST_TIMEOUT = 30.0
POLL = 0.2
LARGEST_MESSAGE = 256 * 1024 * 1024

log = logging.getLogger(__name__)


class LabError(Exception):
    """The lab could not do what its user asked for."""


class Lab(Protocol):
    """A running lab as its user knows it: the address in the browser and the token."""

    @property
    def url(self) -> str:
        """The address, which ends with a slash."""

    @property
    def token(self) -> str:
        """The token that opens the lab."""


def execute(
    notebook: NotebookNode,
    url: str,
    token: str,
    kernel: str | None = None,
    timeout: float = 120,
    path: str = "",
) -> NotebookNode:
    """Give the user a copy of the notebook with all its cells run in the lab at the URL.

    The kernel is the named one, else the notebook's, else the lab's default; it starts in the lab's folder
    ``path`` and is shut down whatever happens.  A failing cell raises nbclient's CellExecutionError, a dying
    kernel DeadKernelError, a lab that is away or refuses LabError, and cells that take more than ``timeout``
    seconds together TimeoutError.
    """
    run = _execute(copy.deepcopy(notebook), url, token, kernel, timeout, path)
    if not _loop_runs():
        return asyncio.run(run)
    # Playwright's synchronous interface leaves an event loop running in this thread, so use another one.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, run).result()


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _execute(
    notebook: NotebookNode, url: str, token: str, kernel: str | None, timeout: float, path: str
) -> NotebookNode:
    server = _Server(url, token)
    name = await server.kernel_name(kernel or notebook.metadata.get("kernelspec", {}).get("name"))
    kernel_id = await server.start_kernel(name, path)
    doing = "the start of the kernel"
    remote: _RemoteKernel | None = None
    finished = False
    try:
        async with asyncio.timeout(timeout):
            remote = _RemoteKernel(url, await server.connect(kernel_id))
            # One limit for the whole notebook is kept above, so nbclient's own per cell is off.
            client = NotebookClient(
                notebook,
                timeout=None,
                iopub_timeout=int(REQUEST_TIMEOUT),
                raise_on_iopub_timeout=True,
                record_timing=False,
            )
            client.kc = remote
            info = await client.async_wait_for_reply(remote.kernel_info())
            if info is not None:
                notebook.metadata["language_info"] = info["content"]["language_info"]
            for index, cell in enumerate(notebook.cells):
                doing = f"cell {index}:\n{cell.source}\n"
                await _run_cell(client, cell, index)
            client.set_widgets_metadata()
        finished = True
    except TimeoutError:
        raise TimeoutError(f"{doing} in the lab at {url} was not done after {timeout} s") from None
    finally:
        if remote is not None:
            remote.stop_channels()
        try:
            await server.stop_kernel(kernel_id)
        except LabError as error:
            if finished:
                raise
            log.warning("kernel %s may still be running: %s", kernel_id, error)
    return notebook


async def _run_cell(client: NotebookClient, cell: NotebookNode, index: int) -> None:
    """Run one cell, telling a user who lost patience from a kernel that died."""
    try:
        await client.async_execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
    except DeadKernelError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from None
        raise


class _Server:
    """The lab's server, as the JavaScript in the user's browser sees it."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/") + "/"
        self.headers = {"Authorization": f"token {token}"}

    async def kernel_name(self, wanted: str | None) -> str:
        """The kernel that a user gets, with a list of those on offer when there is none of that name."""
        specs = await self._request("GET", "api/kernelspecs")
        name = wanted or str(specs["default"])
        if name not in specs["kernelspecs"]:
            raise LabError(f"the lab at {self.url} has no kernel {name}, only {sorted(specs['kernelspecs'])}")
        return name

    async def start_kernel(self, name: str, path: str) -> str:
        """Start a kernel in the folder, and be sure that the folder is there."""
        if path:
            await self._request("GET", f"api/contents/{quote(path)}?type=directory&content=0")
        model = await self._request("POST", "api/kernels", {"name": name, "path": path})
        return str(model["id"])

    async def stop_kernel(self, kernel_id: str) -> None:
        """Leave nothing running that the user did not start.

        The server refuses while it is itself restarting a kernel that died, so ask until the kernel is gone.
        """
        end = time.monotonic() + REQUEST_TIMEOUT
        while True:
            refusal = LabError(f"kernel {kernel_id} goes on running in the lab at {self.url}")
            try:
                await self._request("DELETE", f"api/kernels/{kernel_id}")
            except LabError as error:
                refusal = error
            if kernel_id not in {model["id"] for model in await self._request("GET", "api/kernels")}:
                return
            if time.monotonic() > end:
                raise refusal
            await asyncio.sleep(POLL)

    async def connect(self, kernel_id: str) -> WebSocketClientConnection:
        """Open the line over which the browser and the kernel talk."""
        address = f"ws{self.url.removeprefix('http')}api/kernels/{kernel_id}/channels"
        address += f"?session_id={uuid4().hex}"
        try:
            socket = await websocket_connect(
                # A kernel that starts answers late, and execute() has a limit of its own.
                HTTPRequest(address, headers=self.headers, connect_timeout=REQUEST_TIMEOUT, request_timeout=0),
                max_message_size=LARGEST_MESSAGE,
                subprotocols=[PROTOCOL],
            )
        except (HTTPClientError, OSError) as error:
            raise LabError(f"no WebSocket to {address}: {error}") from error
        if socket.selected_subprotocol != PROTOCOL:
            raise LabError(f"the server at {self.url} does not speak {PROTOCOL}")
        return socket

    async def _request(self, method: str, path: str, body: object = None) -> Any:
        request = HTTPRequest(
            self.url + path,
            method=method,
            headers=self.headers,
            body=None if body is None else json.dumps(body),
            connect_timeout=REQUEST_TIMEOUT,
            request_timeout=REQUEST_TIMEOUT,
        )
        try:
            response = await AsyncHTTPClient().fetch(request)
        except HTTPClientError as error:
            said = error.response.body.decode(errors="replace") if error.response else ""
            raise LabError(f"{method} {self.url}{path}: {error} {said}".rstrip()) from error
        except OSError as error:
            raise LabError(f"no lab answers at {self.url}: {error}") from error
        return json.loads(response.body) if response.body else None


class _Channel:
    """The messages of one channel, in the order in which the user's kernel sent them."""

    def __init__(self, name: str, socket: WebSocketClientConnection) -> None:
        self._name = name
        self._socket = socket
        self._queue: asyncio.Queue[Message | Exception] = asyncio.Queue()

    def put(self, item: Message | Exception) -> None:
        self._queue.put_nowait(item)

    def send(self, message: Message) -> None:
        self._socket.write_message(_pack(self._name, message), binary=True)

    async def get_msg(self, timeout: float | None = None) -> Message:
        try:
            item = await asyncio.wait_for(self._queue.get(), timeout)
        except TimeoutError:
            raise Empty from None
        if isinstance(item, Exception):
            self.put(item)  # the line stays broken for whoever asks next
            raise item
        return item


class _RemoteKernel(KernelClient):
    """The kernel at the other end of the lab's WebSocket, in the form that nbclient expects."""

    allow_stdin = False

    def __init__(self, url: str, socket: WebSocketClientConnection) -> None:
        super().__init__()
        self._url = url
        self._socket = socket
        self._channels = {name: _Channel(name, socket) for name in ("shell", "iopub", "control", "stdin")}
        self._reader = asyncio.ensure_future(self._read())

    @property
    def shell_channel(self) -> Any:
        return self._channels["shell"]

    @property
    def iopub_channel(self) -> Any:
        return self._channels["iopub"]

    @property
    def control_channel(self) -> Any:
        return self._channels["control"]

    async def is_alive(self) -> bool:
        """A dead kernel is heard of in _read; nbclient needs not ask."""
        return True

    def stop_channels(self) -> None:
        self._reader.cancel()
        self._socket.close()

    async def _read(self) -> None:
        """Sort what arrives into the channels, and end all waiting when nothing more can arrive."""
        end: Exception = LabError(f"the lab at {self._url} closed the connection to the kernel")
        try:
            while (raw := await self._socket.read_message()) is not None:
                channel, message = _unpack(cast(bytes, raw))
                if message["content"].get("execution_state") in ("restarting", "dead"):
                    end = DeadKernelError(f"the kernel died in the lab at {self._url}")
                    break
                self._channels[channel].put(message)
        except (
            KeyError,
            TypeError,
            ValueError,
        ) as error:  # a message nobody can read must not leave the user waiting
            end = error
        for waiting in self._channels.values():
            waiting.put(end)


def _pack(channel: str, message: Message) -> bytes:
    """One message in the server's format: the offsets of the parts, then the parts."""
    names = ("header", "parent_header", "metadata", "content")
    parts = [channel.encode(), *(json.dumps(message[name], default=json_default).encode() for name in names)]
    count = len(parts) + 1
    offsets = accumulate((len(part) for part in parts), initial=8 * (count + 1))
    return b"".join(number.to_bytes(8, "little") for number in (count, *offsets)) + b"".join(parts)


def _unpack(raw: bytes) -> tuple[str, Message]:
    """The channel and the message, with the binary buffers that widgets send."""
    count = int.from_bytes(raw[:8], "little")
    offsets = [int.from_bytes(raw[8 * i : 8 * i + 8], "little") for i in range(1, count + 1)]
    channel, header, parent, metadata, content, *buffers = (raw[a:b] for a, b in pairwise(offsets))
    message: Message = {
        "header": json.loads(header),
        "parent_header": json.loads(parent),
        "metadata": json.loads(metadata),
        "content": json.loads(content),
        "buffers": buffers,
    }
    message["msg_id"] = message["header"]["msg_id"]
    message["msg_type"] = message["header"]["msg_type"]
    return channel.decode(), message
