"""What start.sh does for whoever needs more than to become the command; docs/contract.md lists what may be asked for.

contract.py settle               prints what start.sh is to export: for a user a home that can be written and a name;
                                 root gets the account that NB_USER, NB_UID and NB_GID describe, as start.sh's `become`
contract.py become ACCOUNT …     gives up root for an account, and becomes the command that follows it
"""

import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HOME = Path("/home/jovyan")  # of the image, as are the next two
UID, USERS = 1000, 100
ENVIRONMENT = Path("/opt/venv")
DEFAULT_HOME = Path("/opt/default-home")
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SETGID, SETUID = 1 << 6, 1 << 7  # capabilities
COLOURS = {"WARNING": 33, "ERROR": 31}


class Refusal(Exception):
    """What was asked for cannot be had; says why, in one sentence."""


@dataclass(frozen=True)
class Account:
    """Whom the lab is to run as."""

    name: str
    uid: int
    gid: int
    group: str = ""

    @property
    def home(self) -> Path:
        """Where docker-stacks has the home of any user, root's too."""
        return Path("/home", self.name)

    @property
    def is_root(self) -> bool:
        """Whether it was root that was asked for, by name."""
        return self.uid == 0

    @classmethod
    def asked_for(cls, environment: Mapping[str, str]) -> "Account":
        """The account that NB_USER, NB_UID, NB_GID and NB_GROUP describe."""
        name = environment.get("NB_USER") or "jovyan"
        group = environment.get("NB_GROUP") or name
        for variable, value in (("NB_USER", name), ("NB_GROUP", group)):
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value):
                raise Refusal(f"{variable}={value} is no name; use letters, digits, and . _ - between them.")
        uid, gid = (number(environment, *default) for default in (("NB_UID", UID), ("NB_GID", USERS)))
        if (name == "root" or uid == 0) and (name, uid, gid) != ("root", 0, 0):
            raise Refusal("Only NB_USER=root NB_UID=0 NB_GID=0, all three, run the lab as root.")
        return cls(name, uid, gid, group)


def number(environment: Mapping[str, str], variable: str, default: int) -> int:
    """The user's or group's number that a variable holds."""
    value = environment.get(variable) or str(default)
    if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) >= 2**32 - 1:
        raise Refusal(f"{variable}={value} is no number of a user or group.")
    return int(value)


def log(level: str, text: str) -> None:
    """Write a line as _docker_stacks_log.sh does."""
    if level == "INFO" and os.environ.get("JUPYTER_DOCKER_STACKS_QUIET"):
        return
    line = f"{level}[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}"
    if level in COLOURS and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        line = f"\033[0;{COLOURS[level]}m{line}\033[0m"
    print(line, file=sys.stderr, flush=True)


def wanted(environment: Mapping[str, str], variable: str) -> bool:
    """Whether an option is switched on, as docker-stacks reads it."""
    return environment.get(variable) in ("1", "yes")


# Root ------------------------------------------------------------------------------------------------------------


def may_change_user(status: str, uid_map: str) -> bool:
    """Whether a root with this status may become another user.

    Raises Refusal where it may not, though it is the host's root, and nobody has asked for that: only a rootless
    engine's root is the one who started it.
    """
    capabilities = int(re.findall(r"^CapEff:\s*(\w+)", status, re.MULTILINE)[0], 16)
    if capabilities & SETUID and capabilities & SETGID:
        return True
    if uid_map.split()[1] == "0" and os.environ.get("PYRLAB_USER") != "0:0":
        raise Refusal(
            "The container was started as root without the capabilities to become another user; leave out --user, "
            "or add --cap-add=SETUID --cap-add=SETGID (and CHOWN for CHOWN_HOME), or ask for root by name with "
            "NB_USER=root NB_UID=0 NB_GID=0."
        )
    return False


def passwd_with(lines: Iterable[str], account: Account) -> list[str]:
    """The lines of /etc/passwd with an account in the place of jovyan's, or root with its home."""
    entry = f"{account.name}:x:{account.uid}:{account.gid}::{account.home}:/bin/bash"
    if account.is_root:
        return [re.sub(r"^(root:.*:)[^:]*(:[^:]*)$", rf"\g<1>{account.home}\2", line) for line in lines]
    return [line for line in lines if line.split(":")[0] not in ("jovyan", account.name)] + [entry]


def group_with(lines: Iterable[str], account: Account) -> list[str]:
    """The lines of /etc/group with an account's group, and the account among the users."""
    found = [line.split(":") for line in lines]
    if not any(fields[2] == str(account.gid) for fields in found):
        found = [fields for fields in found if fields[0] != account.group or fields[2] == str(USERS)]
        found.append([account.group, "x", str(account.gid), ""])
    for fields in found:
        if fields[2] == str(USERS) and account.gid != USERS and not account.is_root:
            members = [member for member in fields[3].split(",") if member not in ("", "jovyan", account.name)]
            fields[3] = ",".join([*members, account.name])
    return [":".join(fields) for fields in found]


def refit(account: Account) -> None:
    """Make jovyan the account."""
    try:
        before = pwd.getpwnam("jovyan")
    except KeyError:
        before = None  # the container is started for the second time
    if before and (account.name != "jovyan") and not account.is_root:
        log("INFO", "Updated the jovyan user:")
        log("INFO", f"- username: jovyan       -> {account.name}")
        log("INFO", f"- home dir: {HOME} -> {account.home}")
    if before and (before.pw_uid, before.pw_gid) != (account.uid, account.gid) and not account.is_root:
        log("INFO", f"Update {account.name}'s UID:GID to {account.uid}:{account.gid}")
    for path, change in ((Path("/etc/passwd"), passwd_with), (Path("/etc/group"), group_with)):
        lines = path.read_text().splitlines()
        changed = change(lines, account)
        if sorted(changed) != sorted(lines):
            try:
                path.write_text("".join(f"{line}\n" for line in changed))
            except OSError as error:
                log("WARNING", f"{path} cannot be changed ({error.strerror}), so {account.uid} has no name of its own.")
    shadow = Path("/etc/shadow")
    if os.access(shadow, os.W_OK) and f"\n{account.name}:" not in f"\n{shadow.read_text()}":
        with shadow.open("a") as file:
            file.write(f"{account.name}:!:::::::\n")


def give_home(account: Account) -> None:
    """Copy jovyan's home for a user of another name; what is mounted in it stays one, and has a link."""
    if account.home.exists():
        if account.home.stat().st_uid == 0 and not account.is_root and not account.home.is_mount():
            chown(str(account.home), "", account)  # the engine has made it, for what is mounted in it
        return
    log("INFO", f"Attempting to copy {HOME} to {account.home}...")
    copied = subprocess.run(["cp", "--archive", "--one-file-system", HOME, account.home])
    if copied.returncode:
        log("WARNING", f"{HOME} could not be copied to {account.home}; see cp's words above.")
        return
    for folder, names, _ in os.walk(HOME):
        for mounted in [Path(folder, name) for name in names if os.path.ismount(Path(folder, name))]:
            names.remove(mounted.name)
            copy = account.home / mounted.relative_to(HOME)
            if copy.is_dir() and not any(copy.iterdir()):
                copy.rmdir()
                copy.symlink_to(mounted)
    if os.stat(HOME).st_uid == UID:  # not somebody's volume
        own = [account.home, *(path for path in account.home.rglob("*") if not path.is_symlink())]
        for path in own:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
    log("INFO", "Success!")


def populate(home: Path, account: Account | None = None) -> None:
    """Copy what an image's home has into one that lacks it, as an account, which may not write everywhere."""
    if all(os.path.lexists(home / path.name) for path in DEFAULT_HOME.glob("*")):
        return
    who = {"user": account.uid, "group": account.gid, "extra_groups": [USERS]} if account else {}
    if subprocess.run(["test", "-w", home], **who).returncode == 0:  # type: ignore[call-overload]  # settle() says so
        subprocess.run(["/usr/local/bin/populate-home-dir.sh", home], **who)  # type: ignore[call-overload]


def chown(path: str, options: str, account: Account) -> None:
    """Give a path to an account."""
    owner = f"{account.uid}:{account.gid}"
    log("INFO", f"Ensuring {path} is owned by {owner} {f'(chown options: {options})' if options else ''}".rstrip())
    # What it prints, as with -v, is none of what start.sh is to run.
    if subprocess.run(["chown", *shlex.split(options), owner, path], stdout=sys.stderr).returncode:
        log("WARNING", f"{path} could not be given to {owner} altogether; see chown's words above.")


def forget_caches(cache: Path) -> None:
    """Do for root's account what start.sh does for others: it must not follow a user's links as root."""
    marker = Path("/tmp/.pyrlab-started")
    if not marker.exists():
        for name in ("fontconfig", "matplotlib", "numba", "ipython/numba_cache"):
            shutil.rmtree(cache / name, ignore_errors=True)
        with suppress(OSError):
            marker.touch()


def grant_sudo(account: Account) -> None:
    """Let an account use sudo without a password, where there is sudo."""
    if shutil.which("sudo") is None:
        log("WARNING", "GRANT_SUDO: there is no sudo in this image; add a line with sudo to base_debs.txt.")
        return
    log("INFO", f"Granting {account.name} passwordless sudo rights!")
    rules = Path("/etc/sudoers.d/added-by-start-script")
    rules.write_text(f'Defaults secure_path="{ENVIRONMENT}/bin:{SYSTEM}"\n{account.name} ALL=(ALL) NOPASSWD:ALL\n')
    rules.chmod(0o440)


def prepare(environment: Mapping[str, str]) -> list[str]:
    """Do as root what was asked for; what start.sh is to run."""
    os.environ["PATH"] = SYSTEM  # what is in the environment is the user's, and not to be run by root
    account = Account.asked_for(environment)
    refit(account)
    if account.home != HOME:
        give_home(account)
    if wanted(environment, "CHOWN_HOME"):
        chown(str(account.home), environment.get("CHOWN_HOME_OPTS", ""), account)
    for path in re.split("[, ]+", environment.get("CHOWN_EXTRA", "").strip(", ")):
        if path:
            chown(path, environment.get("CHOWN_EXTRA_OPTS", ""), account)
    populate(account.home, None if account.is_root else account)
    if wanted(environment, "GRANT_SUDO") and not account.is_root:
        grant_sudo(account)
    lines = [f"export HOME={account.home} USER={account.name} LOGNAME={account.name}"]
    working = Path(os.getcwd())
    if working.is_relative_to(HOME) and account.home != HOME and account.home.exists():
        moved = account.home / working.relative_to(HOME)
        log("INFO", f"Changing working directory to {moved}")
        lines.append(f"cd {shlex.quote(str(moved))}")
    return [*lines, f"become=({account.name} {account.uid} {account.gid})"]


def become(account: Account, command: list[str]) -> None:
    """Give up root for an account, and become a command."""
    if not account.is_root:
        engines = [group for group in os.getgroups() if group]  # of --group-add
        os.setgroups(sorted({*engines, account.gid, USERS}))
        os.setgid(account.gid)
        os.setuid(account.uid)
    changes, working = settle(os.environ)
    os.environ.update(changes)
    try:
        os.chdir(working)
    except OSError as error:
        log("WARNING", f"{working}: {error.strerror}; working in {changes['HOME']} instead.")
        with suppress(OSError):
            os.chdir(changes["HOME"])
    forget_caches(Path(os.environ.get("XDG_CACHE_HOME") or Path(changes["HOME"], ".cache")))
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, which the command would inherit
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        log("ERROR", f"{command[0]}: {error.strerror}")
        sys.exit(126 if isinstance(error, PermissionError) else 127)


# Any user --------------------------------------------------------------------------------------------------------


def own_name() -> str | None:
    """The name of this process's user."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None


def warn_of_the_impossible(environment: Mapping[str, str]) -> None:
    """Say what was asked for that only root can do."""
    root = "container must be started as root to"
    if wanted(environment, "GRANT_SUDO"):
        log("WARNING", f"{root} grant sudo permissions!")
    user, uid, gid = (environment.get(variable, "") for variable in ("NB_USER", "NB_UID", "NB_GID"))
    if user not in ("", "jovyan", own_name()):
        log("WARNING", f'{root} change the desired user\'s name with NB_USER="{user}"!')
    elif user not in ("", "jovyan"):
        log("WARNING", f"user is {user} but home is {HOME}. You must run as root to rename the home directory!")
    if uid not in ("", str(UID), str(os.getuid())):
        log("WARNING", f'{root} change the desired user\'s id with NB_UID="{uid}"!')
    if gid not in ("", str(USERS), str(os.getgid())):
        log("WARNING", f'{root} change the desired user\'s group id with NB_GID="{gid}"!')
    for variable in ("CHOWN_HOME", "CHOWN_EXTRA"):
        if environment.get(variable) and (variable == "CHOWN_EXTRA" or wanted(environment, variable)):
            log("WARNING", f"{root} change owners with {variable}!")


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if it can be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def remedy(home: Path) -> str:
    """What whoever starts a container is to do for its home to be writable."""
    there = next(path for path in (home, *home.parents) if os.path.exists(path))
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f'Mount something writable there, e.g. a volume or "--tmpfs {home}"'
    status = there.stat()
    if status.st_gid == USERS and status.st_mode & 0o020:
        return "Try starting the container with group 'users' (100), e.g. using \"--group-add=users\""
    owner = f"{status.st_uid}:{status.st_gid}"
    if status.st_uid == 0:
        return f'It belongs to {owner}; chown it to {os.getuid()}, or start with "--user root -e CHOWN_HOME=yes"'
    return f'It belongs to {owner}; try "--user={owner}", or chown it to {os.getuid()}'


def writable_home(home: Path) -> Path:
    """The home, or where it cannot be written another one for as long as the container lasts."""
    if writable(home):
        return home
    for temporary in TEMPORARY:
        other = Path(temporary, f"home-{os.getuid()}")
        if writable(other) and other.stat().st_uid == os.getuid():
            log("WARNING", f"no write access to {home}. {remedy(home)}. Until then the home is {other}.")
            return other
    log("WARNING", f"no write access to {home}, nor to anything else. {remedy(home)}.")
    return home


def settle(environment: Mapping[str, str]) -> tuple[dict[str, str], Path]:
    """What the user's environment needs to be different, and the folder to work in."""
    changes: dict[str, str] = {}
    asked = Path(environment.get("HOME") or HOME)
    home = writable_home(HOME if asked == Path("/") else asked)
    changes["HOME"] = str(home)
    if os.getuid() == 0:
        writable(home / ".cache")  # which pip does not use, and warns each time, where its nearest folder is not root's
    if own_name() is None:
        changes["USER"] = changes["LOGNAME"] = "jovyan"  # enough for getpass
        log("INFO", f"uid {os.getuid()} has no name; where that matters, add --tmpfs /var/lib/extrausers:mode=1777.")
    if not any(os.access(folder, os.W_OK) for folder in (environment.get("TMPDIR", ""), *TEMPORARY[:2])):
        temporary = home / ".cache" / "tmp"
        if writable(temporary):
            changes["TMPDIR"] = str(temporary)
    if not os.access(next(ENVIRONMENT.glob("lib/python3*/site-packages"), ENVIRONMENT), os.W_OK):
        changes["PATH"] = f"{home}/.local/bin:{environment.get('PATH', '/usr/bin')}"  # see pyrlab_user.py
    working = Path(os.getcwd())
    return changes, home if working == HOME else working


def main() -> None:
    """Dispatch; see the module's docstring."""
    match sys.argv[1:]:
        case ["settle"] if os.getuid() or (
            (os.environ.get("NB_USER"), os.environ.get("NB_UID"), os.environ.get("NB_GID")) != ("root", "0", "0")
            and not may_change_user(Path("/proc/self/status").read_text(), Path("/proc/self/uid_map").read_text())
        ):
            warn_of_the_impossible(os.environ)
            changes, working = settle(os.environ)
            lines = [f"export {name}={shlex.quote(value)}" for name, value in changes.items()]
            print(*lines, f"cd {shlex.quote(str(working))}", sep="\n")
        case ["settle"]:
            print(*prepare(os.environ), sep="\n")
        case ["become", name, uid, gid, *command]:
            become(Account(name, int(uid), int(gid)), command)


if __name__ == "__main__":
    try:
        main()
    except Refusal as refusal:
        log("ERROR", str(refusal))
        sys.exit(1)
