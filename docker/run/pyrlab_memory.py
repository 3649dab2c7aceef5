"""The lab's memory, as its control group counts it; a kernel that is killed for want of it says so in the notebook."""

from pathlib import Path
from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

# Of version 2 of control groups, and of version 1.
LIMIT = ("memory.max", "memory/memory.limit_in_bytes")
PEAK = ("memory.peak", "memory/memory.max_usage_in_bytes")
EVENTS = ("memory.events", "memory/memory.oom_control")
NO_LIMIT = 2**60


def read(names: tuple[str, ...]) -> str:
    """What the first of these files says that there is."""
    paths = (Path("/sys/fs/cgroup", name) for name in names)
    return next((path.read_text().strip() for path in paths if path.exists()), "")


def amount(names: tuple[str, ...]) -> int:
    """How many bytes; 0 where nobody knows, or there is no limit."""
    text = read(names)
    return int(text) if text.isdigit() and int(text) < NO_LIMIT else 0


def kills() -> int:
    """How many of the lab's processes have been killed for want of memory."""
    return int(dict(line.split() for line in read(EVENTS).splitlines()).get("oom_kill", 0))


def farewell() -> str:
    """What a kernel that was killed for want of memory would say."""
    limit, peak = (f"{amount(names) / 2**30:.1f} GiB" for names in (LIMIT, PEAK))
    known = f"the lab may use {limit}" if amount(LIMIT) else "this machine has no more"
    most = f" (peak {peak})" if amount(PEAK) else ""  # old kernels do not know it
    return (
        f"The kernel was killed for want of memory: {known}{most}. "
        "Load less at a time, shut down other kernels, or start the lab with more memory."
    )


class Connection(ZMQChannelsWebsocketConnection):  # type: ignore[misc]  # jupyter_server has no types
    """A notebook's connection to its kernel."""

    cell: Any = None  # the header of the request to run the last cell
    killed = 0  # how many processes had been when that began

    def handle_outgoing_message(self, stream: Any, outgoing_msg: list[Any]) -> None:
        """Notice that a cell begins, and pass on what the kernel says."""
        _, (_, header, parent, *_) = self.session.feed_identities(outgoing_msg)
        if b'"execute_input"' in bytes(header):
            self.cell, self.killed = self.session.unpack(parent), kills()
        super().handle_outgoing_message(stream, outgoing_msg)

    def on_kernel_restarted(self) -> None:
        """Tell the cell why the kernel has died, before the browser forgets that it was running."""
        if self.cell and kills() > self.killed:
            self.channels["iopub"].flush()  # what the kernel has said before
            self.write_stderr(farewell(), self.cell)
        super().on_kernel_restarted()
