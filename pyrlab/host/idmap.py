"""Show a folder of root's to a lab that is not root: an idmapped bind mount (Linux 5.12 and later).

`mount --bind --options X-mount.idmap=…` does the same from util-linux 2.39 on, which is younger than the
oldest systems pyrlab runs on.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from pathlib import Path

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442  # system calls; the same on every architecture
CLONE_NEWUSER, CLOSE_ON_EXEC = 0x10000000, 0o2000000
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
MNT_DETACH = 2
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = 1, 4, 0x00100000

PLACE = Path("/run/pyrlab")  # of the mounts, a folder a lab
LIBC = ctypes.CDLL(None, use_errno=True)


def swap(own: int) -> str:
    """A map of ids, as /proc/PID/uid_map takes it, that swaps root's with another and leaves all others."""
    spans = [(0, own, 1), (1, 1, own - 1), (own, 0, 1), (own + 1, own + 1, 2**32 - 2 - own)]
    spans = spans if own else [(0, 0, 2**32 - 1)]
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in spans if count)


def system_call(number: int, *arguments: int | bytes) -> int:
    """Make a system call that the C library has no name for; raises OSError where it fails."""
    result: int = LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def user_namespace(uids: str, gids: str) -> int:
    """A file descriptor of a new user namespace with these maps."""
    with subprocess.Popen(["sleep", "60"], preexec_fn=lambda: LIBC.unshare(CLONE_NEWUSER)) as child:  # noqa: PLW1509
        try:
            Path(f"/proc/{child.pid}/uid_map").write_text(uids)
            Path(f"/proc/{child.pid}/gid_map").write_text(gids)
            return os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            child.kill()


def mount(source: Path, target: Path, uid: int, gid: int) -> None:
    """Mount `source` at `target`, where what is root's in `source` is `uid`:`gid`'s, and the reverse.

    Raises OSError where the kernel or the file system (some network ones) cannot do that.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.parent.chmod(0o700)  # else this machine's user of that number may write there, too, as root
    target.mkdir(exist_ok=True)
    tree = system_call(OPEN_TREE, AT_FDCWD, bytes(source), OPEN_TREE_CLONE | CLOSE_ON_EXEC | AT_RECURSIVE)
    try:
        namespace = user_namespace(swap(uid), swap(gid))
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
    if os.getuid() != 0:  # who has mounted nothing, and may not look there
        return
    while target.is_dir() and LIBC.umount2(bytes(target), MNT_DETACH) == 0:
        pass
    if target.is_dir():
        target.rmdir()
