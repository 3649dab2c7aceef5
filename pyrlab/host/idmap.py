"""Show a folder of root's to a lab that is not root: an idmapped bind mount (Linux 5.12 and later).

`mount --bind --options X-mount.idmap=…` does the same from util-linux 2.39 on, which is younger than the
oldest systems pyrlab runs on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from pathlib import Path

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442  # system calls; the same on every architecture
CLONE_NEWUSER, CLOSE_ON_EXEC = 0x10000000, 0o2000000
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
MNT_DETACH = 2
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = 1, 4, 0x00100000

LIBC = ctypes.CDLL(None, use_errno=True)


def swap(one: int, other: int) -> str:
    """A map of ids, as /proc/PID/uid_map takes it, that swaps two and leaves all others."""
    low, high = sorted((one, other))
    spans = [(0, 0, low), (low, high, 1), (low + 1, low + 1, high - low - 1), (high, low, 1)]
    spans.append((high + 1, high + 1, 2**32 - 2 - high))
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in spans if count)


def system_call(number: int, *arguments: int | bytes) -> int:
    """Make a system call that the C library has no name for; raises OSError where it fails."""
    result: int = LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def user_namespace(uids: str, gids: str) -> int:
    """A file descriptor of a new user namespace with these maps."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        LIBC.unshare(CLONE_NEWUSER)
        os.write(writer, b"ready")
        signal.pause()
    try:
        os.read(reader, 5)
        Path(f"/proc/{child}/uid_map").write_text(uids)
        Path(f"/proc/{child}/gid_map").write_text(gids)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def mount(source: Path, target: Path, uid: int, gid: int) -> None:
    """Mount `source` at `target`, where what is root's in `source` is `uid`:`gid`'s, and the reverse.

    Raises OSError where the kernel or the file system (some network ones) cannot do that.
    """
    target.mkdir(parents=True, exist_ok=True)
    tree = system_call(OPEN_TREE, AT_FDCWD, bytes(source), OPEN_TREE_CLONE | CLOSE_ON_EXEC | AT_RECURSIVE)
    try:
        namespace = user_namespace(swap(0, uid), swap(0, gid))
        try:
            attributes = struct.pack("QQQQ", MOUNT_ATTR_IDMAP, 0, 0, namespace)
            system_call(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH | AT_RECURSIVE, attributes, len(attributes))
        finally:
            os.close(namespace)
        system_call(MOVE_MOUNT, tree, b"", AT_FDCWD, bytes(target), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def unmount(target: Path) -> None:
    """Undo `mount`, however often it was done; nothing where nothing is mounted."""
    while target.is_dir() and LIBC.umount2(bytes(target), MNT_DETACH) == 0:
        pass
    if target.is_dir():
        target.rmdir()
