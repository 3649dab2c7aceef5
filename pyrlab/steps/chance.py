"""What installing made up by chance, as keys and databases, and what it made in an order of chance."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from collections.abc import Collection, Mapping
from pathlib import Path

from pyrlab.steps.pieces import EPOCH
from pyrlab.steps.trees import Entry, folders_of, inside, is_folder

PRIVATE_KEY = re.compile(rb"^-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----", re.MULTILINE)
# What has no package, is closed to others, and yet is the same wherever the same is installed.
ACCOUNTS = {"/etc/shadow", "/etc/gshadow"}
# What is open to everybody and made by chance, too: the certificate of a key, and an identifier.
OPEN = {"/etc/ssl/certs/ssl-cert-snakeoil.pem", "/var/lib/dbus/machine-id"}
KEYSTORE = bytes.fromhex("feedfeed00000002")  # begins one of Java's
CERTIFICATE = 2  # the kind of entry of Java's keystores that is no key
SHADOW = "etc/shadow"
DAY = re.compile("^([^:\n]*:[^:\n]*:)([0-9]+)", re.MULTILINE)  # in which an account got its password, there
JAVA = "etc/ssl/certs/java/cacerts"  # the keystore that a Java runtime is installed with
REMAKE = {  # what makes anew what begins so
    "/etc/ssh/ssh_host_": "ssh-keygen -A",
    "/etc/ssl/": "make-ssl-cert generate-default-snakeoil",
    "/var/lib/dbus/": "dbus-uuidgen --ensure",
}
MANY = 6  # paths that a sentence can hold
SHORT = 16  # bytes; less is no secret
LARGE = 8_000_000  # bytes; a file of that size holds no key


def made_up(root: Path, entries: Mapping[str, Entry], owners: Collection[str]) -> set[str]:
    """Which of `entries` installing made up, as keys and databases, so that no two installations may share them.

    They have no package among `owners`, and are closed to others or hold a private key. With them go the public key
    beside, links to them, closed folders that they are in, and such as have nothing else in them.
    """
    nobodys = {path: entry for path, entry in entries.items() if path not in owners}
    files = [path for path in nobodys if not is_folder(nobodys[path])]
    found = {path for path in files if path in OPEN or is_secret(root, path, nobodys[path].status)}
    for path in files:
        target = os.path.normpath(Path(path).parent / (nobodys[path].target or ""))
        if is_public(path, found) or target in found:
            found.add(path)
    if not found:
        return found
    found |= {path for path in folders_of(found) & nobodys.keys() if not nobodys[path].status.st_mode & stat.S_IRWXO}
    others = (path for path in entries if not is_folder(entries[path]) and path not in found)
    return found | folders_of(found) & nobodys.keys() - folders_of(path for path in others if not inside(path, found))


def is_public(path: str, keys: Collection[str]) -> bool:
    """Whether `path` is the public key of one of the private `keys`."""
    return path.endswith(".pub") and path.removesuffix(".pub") in keys


def is_secret(root: Path, path: str, status: os.stat_result) -> bool:
    """Whether a file that no package owns is for its owner's eyes only, or has a private key in it."""
    if not stat.S_ISREG(status.st_mode) or status.st_size < SHORT or path in ACCOUNTS:
        return False
    if not status.st_mode & stat.S_IROTH:
        return True
    return status.st_size < LARGE and PRIVATE_KEY.search(Path(f"{root}{path}").read_bytes()) is not None


def note(left_out: Collection[str]) -> str:
    """What to tell the user of what is `left_out`."""
    top = sorted(path for path in left_out if not inside(path, left_out) and not is_public(path, left_out))
    shown = ", ".join(top[:MANY]) + (f" and {len(top) - MANY} more" if len(top) > MANY else "")
    ways = [command for start, command in REMAKE.items() if any(path.startswith(start) for path in left_out)]
    remake = f"; root makes it anew with {' and '.join(ways)}" if ways else ""
    return f"left out, since all who have the images would share what installing made up: {shown}{remake}"


def settled_accounts(shadow: str) -> str:
    """The text of /etc/shadow as if no account had been made later than EPOCH: useradd writes the day."""
    return DAY.sub(lambda day: f"{day[1]}{min(int(day[2]), EPOCH // 86_400)}", shadow)


def settled(keystore: bytes) -> bytes:
    """A keystore of certificates as Java writes it, but all of one time and in the order of their names."""
    if not keystore.startswith(KEYSTORE):
        return keystore
    (count,) = struct.unpack_from(">8xI", keystore)
    entries: list[bytes] = []
    at = 12
    for _ in range(count):
        tag, name = struct.unpack_from(">IH", keystore, at)
        time = at + 6 + name
        (kind,) = struct.unpack_from(">8xH", keystore, time)
        (size,) = struct.unpack_from(">I", keystore, time + 10 + kind)
        end = time + 14 + kind + size
        if tag != CERTIFICATE:
            return keystore
        entries.append(keystore[at:time] + struct.pack(">Q", EPOCH * 1000) + keystore[time + 8 : end])
        at = end
    content = keystore[:12] + b"".join(sorted(entries))
    checksum = hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + content)
    return content + checksum.digest()
