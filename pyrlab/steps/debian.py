"""Debian packages as pieces: most are streamed from their archives, the others apt installs in this very step.

A package that asks nothing of dpkg but to unpack it is its files: its piece is made from its archive, once, and dpkg's
database is completed by the text that dpkg would write. What has scripts, triggers or configuration, or meets what is
there already, apt installs with what it depends on; its files come from disk, and what installing has written
besides is the state, the last Debian layer. Nothing is installed where that is known already.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import os
import re
import stat
import subprocess
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

from pyrlab.model import events
from pyrlab.model.locked import reached
from pyrlab.model.problem import Problem
from pyrlab.steps import chance, debs, trees
from pyrlab.steps.pieces import EPOCH, FOLDER, FORMAT, Folders, Mode, Piece, Tar, content_of, decompress, unpack, write
from pyrlab.steps.trees import EMPTIED, EXCLUDED, is_left_out

STATUS = "var/lib/dpkg/status"
EXTENDED = "var/lib/apt/extended_states"  # which packages apt has installed of its own accord
DIVERSIONS = "var/lib/dpkg/diversions"
TRIGGERS = "var/lib/dpkg/triggers/File"
OVERRIDES = "var/lib/dpkg/statoverride"
INFO = "var/lib/dpkg/info"
GITCONFIG = "etc/gitconfig"
LFS = re.compile(r'(?m)(?<=^\[filter "lfs"\]\n)(?:\t.*\n)+')  # the settings there that git-lfs writes, in no order
# As dpkg writes them (lib/dpkg/parse.c); what is not named follows.
FIELDS = (
    *("Package", "Essential", "Protected", "Status", "Priority", "Section", "Installed-Size", "Origin", "Maintainer"),
    *("Bugs", "Architecture", "Multi-Arch", "Source", "Version", "Config-Version", "Replaces", "Provides", "Depends"),
    *("Pre-Depends", "Recommends", "Suggests", "Breaks", "Conflicts", "Enhances", "Conffiles", "Description"),
)
RELATIONS = FIELDS[FIELDS.index("Replaces") : FIELDS.index("Conffiles")]
RELATION = rf"{debs.NAME}(:[a-z0-9]+)?( \((<<|<=|=|>=|>>) [^\s()]+\))?"
CANONICAL = re.compile(rf"{RELATION}((, | \| ){RELATION})*")  # what dpkg writes as it stands
# The parts of a package with which it asks something of dpkg.
ASKING = {"preinst", "postinst", "prerm", "postrm", "config", "conffiles", "triggers"}


@dataclass(frozen=True)
class Result:
    """The pieces of what was ordered."""

    packages: dict[str, Piece] = field(default_factory=dict)  # by name
    state: Piece | None = None  # what belongs to no package, dpkg's database first, and whiteouts; the last layer
    folders: Folders = field(default_factory=dict)  # as apt has left them, whatever the pieces say of them
    lacking: list[Piece] = field(default_factory=list)  # what this step's own file system lacks of all that
    archives: Mapping[str, Deb] = field(default_factory=dict)  # what they were made of, by name


@dataclass(frozen=True)
class Deb:
    """What the archive of a package says of it; kept by its digest."""

    digest: str
    name: str
    architecture: str
    text: str  # its paragraph in dpkg's database
    asks: bool  # something of dpkg but to unpack it
    interests: list[str]  # the paths below which files trigger it
    needs: list[str]  # names of what it depends on, alternatives included
    provides: list[str]


# --- what the tree is like


@dataclass(frozen=True)
class Filters:
    """The path-exclude and path-include lines of dpkg's configuration."""

    text: str

    @classmethod
    def of(cls, root: Path) -> Filters:
        """Those of the tree `root`, in the order in which dpkg reads them."""
        folder = root / "etc/dpkg/dpkg.cfg.d"
        files = sorted(path for path in folder.glob("*") if re.fullmatch(r"[\w-]+", path.name))
        texts = [path.read_text() for path in (*files, root / "etc/dpkg/dpkg.cfg") if path.is_file()]
        lines = "\n".join(texts).split("\n")
        rules = (re.fullmatch(r"(path-(?:ex|in)clude)\s*[=\s]\s*(.*\S)\s*", line) for line in lines)
        return cls("".join(f"{rule[1]}={rule[2]}\n" for rule in rules if rule))

    @cached_property
    def rules(self) -> list[tuple[bool, re.Pattern[str], str]]:
        """Whether each excludes, its pattern, and what that begins with before its first wildcard."""
        pairs = (line.split("=", 1) for line in self.text.splitlines())
        return [
            (kind == "path-exclude", re.compile(fnmatch.translate(glob)), re.split(r"[*?[\\]", glob)[0].rstrip("/"))
            for kind, glob in pairs
        ]

    def skips(self, path: str, passage: bool) -> bool:
        """Whether dpkg leaves out an absolute path; a `passage`, a folder or link, may lead to what is included."""
        skipped = False
        for excludes, pattern, _ in self.rules:
            if skipped != excludes and pattern.match(path):
                skipped = excludes
        leads = passage and any(path.startswith(start) for excludes, _, start in self.rules if not excludes)
        return skipped and not leads


@dataclass
class Tree:
    """The parent's files: those of this step, as it has found them."""

    root: Path
    opt: Path | None = None  # where the parent's /opt is, if something is mounted over it
    found: dict[str, trees.Entry] | None = None  # what there was, once it may have changed

    def freeze(self) -> None:
        """Note what there is, before anything is installed."""
        if self.found is None:
            self.found = trees.scan(self.root)
            self.found.pop(os.environ.get("ADDED", ""), None)  # what run.sh has added

    @cached_property
    def links(self) -> dict[str, str]:
        """The links to folders at its top, as those of a merged /usr."""
        links = (path for path in sorted(self.root.iterdir()) if path.is_symlink())
        targets = {path.name: os.readlink(path).strip("/") for path in links}
        return {name: target for name, target in targets.items() if (self.root / target).is_dir()}

    def resolved(self, path: str) -> str:
        """A path without a leading slash as it is behind those links."""
        top, slash, rest = path.partition("/")
        return f"{self.links[top]}/{rest}" if slash and top in self.links else path

    def status(self, path: str) -> os.stat_result | None:
        """What the tree has at `path`."""
        within_opt = self.opt and (path == "opt" or path.startswith("opt/"))
        if self.found is not None and not within_opt and not is_left_out(f"/{path}", folder=False):
            entry = self.found.get(f"/{path}")
            return entry.status if entry else None
        place = f"{self.opt}{path.removeprefix('opt')}" if within_opt else f"{self.root}/{path}"
        try:
            return os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def mode(self, path: str) -> Mode:
        """The mode of a path as it is on disk now."""
        return Mode.of((self.root / path).lstat())

    def enclose(self, tar: Tar, path: str) -> None:
        """Add the folders that an absolute path is in, as they are on disk now."""
        for parent in Path(path[1:]).parents:
            if parent.name and str(parent) not in tar.folders:
                tar.folders[str(parent)] = self.mode(str(parent))

    def names(self, folder: str) -> list[str]:
        """The names of what is in one of its folders."""
        if self.found is None:
            return sorted(os.listdir(self.root / folder))
        start = f"/{folder}/"
        inside = (path.removeprefix(start) for path in self.found if path.startswith(start))
        return sorted(name for name in inside if "/" not in name)

    def folders_of(self, pieces: Iterable[Piece]) -> Folders:
        """The folders of some pieces that it has, as it has them."""
        statuses = {path: self.status(path) for path in {path for piece in pieces for path in piece.folders}}
        return {path: Mode.of(about) for path, about in statuses.items() if about and stat.S_ISDIR(about.st_mode)}


# --- archives


class Odd(Exception):
    """A package has files that dpkg alone can place."""


class Broken(Exception):
    """An archive is none, or not all of it is there."""


def control(archive: Path) -> dict[str, tuple[bytes, int]]:
    """The parts of a package that are dpkg's: content and mode, by name."""
    data = subprocess.run(["dpkg-deb", "--ctrl-tarfile", archive], check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tree:
        return {os.path.normpath(m.name): (content_of(tree, m), m.mode) for m in tree if m.isfile()}


@contextmanager
def unpacking(archive: Path) -> Iterator[tarfile.TarFile]:
    """The files of a package, to be read from front to end; raises CalledProcessError where they cannot be unpacked."""
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        with tarfile.open(fileobj=process.stdout, mode="r|", errors="surrogateescape", encoding="utf-8") as files:
            yield files
        while process.stdout.read(1 << 16):  # what stands behind the end of a tar file
            pass
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def read(parts: Mapping[str, tuple[bytes, int]], digest: str) -> Deb:
    """What these parts of a package say of it."""
    text = parts["control"][0].decode()
    found = re.findall(r"^([!-9;-~]+):[ \t]*(.*(?:\n[ \t].*)*)", text, re.MULTILINE)
    fields = {name: value.rstrip() for name, value in found}
    fields = {k: v for k, v in fields.items() if (k, v) not in (("Multi-Arch", "no"), ("Essential", "no"))}
    # What dpkg would write otherwise.
    odd = fields["Version"].startswith("0:") or any(not value or value.startswith("\n") for value in fields.values())
    odd |= any(not CANONICAL.fullmatch(fields[name]) for name in RELATIONS if name in fields)
    odd |= not {name.lower() for name in fields.keys() - {*FIELDS}}.isdisjoint(name.lower() for name in FIELDS)
    fields["Status"] = "install ok installed"
    order = [*(name for name in FIELDS if name in fields), *(name for name in fields if name not in FIELDS)]
    triggers = parts.get("triggers", (b"", 0))[0].decode()
    return Deb(
        digest=digest,
        name=fields["Package"],
        architecture=fields["Architecture"],
        text="".join(f"{name}: {fields[name]}\n" for name in order),
        asks=bool(parts.keys() & ASKING) or odd or "md5sums" not in parts or fields.get("Essential") == "yes",
        interests=re.findall(r"^\s*interest\S*\s+(/\S+)", triggers, re.MULTILINE),
        needs=debs.related(fields, "Pre-Depends", "Depends"),
        provides=debs.related(fields, "Provides"),
    )


def streamed(archive: Path, deb: Deb, parts: Mapping[str, tuple[bytes, int]], filters: Filters, tree: Tree) -> Tar:
    """The files of a package and what dpkg's database has of it in files, as dpkg would unpack them, or Odd."""
    tar = Tar()
    listing = ["/."]
    with unpacking(archive) as files:
        for member in files:
            name = os.path.normpath(member.name)
            if name == ".":
                continue
            listing.append(f"/{name}")
            path = tree.resolved(name)
            if filters.skips(f"/{name}", member.isdir() or member.issym()):
                continue
            if is_left_out(f"/{path}", folder=member.isdir()):
                continue
            if {member.uname or "root", member.gname or "root"} != {"root"} or (member.uid, member.gid) != (0, 0):
                raise Odd  # dpkg knows users by name
            if member.isdir():
                if path not in tree.links:
                    tar.folders[path] = Mode(member.mode)
                continue
            target = tree.resolved(os.path.normpath(member.linkname)) if member.islnk() else member.linkname
            if not (member.isreg() or member.issym() or (member.islnk() and target in tar.paths)):
                raise Odd  # a device, or a link to what is left out
            data, target = content_of(files, member), "" if member.isreg() else target
            tar.file(path, data, Mode(member.mode), int(member.mtime), member.type, target)
    called = f"{deb.name}:{deb.architecture}" if named(deb.text, "Multi-Arch") == "same" else deb.name
    own = {**parts, "list": (b"".join(os.fsencode(f"{line}\n") for line in listing), 0o644)}
    for part in sorted(own.keys() - {"control"}):
        tar.file(f"{INFO}/{called}.{part}", own[part][0], Mode(own[part][1]))
    return tar


@dataclass(frozen=True)
class Shelf:
    """Where what is known of packages is kept, and their pieces."""

    folder: Path
    filters: Filters
    tree: Tree

    def record(self, digest: str) -> Path:
        """The file of what the archive with this digest says."""
        return self.folder / "debs" / f"{digest}-{FORMAT}.json"

    def piece(self, *made_of: object) -> Piece:
        """The piece that is made of these."""
        key = hashlib.sha256(json.dumps([FORMAT, EXCLUDED.pattern, EMPTIED.pattern, *made_of]).encode()).hexdigest()
        return Piece(self.folder / "pieces" / key)

    def keep(self, tar: Tar) -> Piece:
        """The piece that has this content, made if there is none."""
        content = hashlib.file_digest(tar.end(), "sha256").hexdigest()  # type: ignore[arg-type]  # it can be read
        piece = self.piece("content", content, {path: vars(mode) for path, mode in sorted(tar.folders.items())})
        return piece if piece.exists else tar.save(piece)

    def streamed(self, digest: str) -> Piece:
        """The piece of the archive with this digest, made without dpkg."""
        return self.piece(digest, self.filters.text, self.tree.links)

    def read(self, digest: str) -> Deb | None:
        """What is known of an archive, if its piece is there, too, wherever it needs one."""
        record = self.record(digest)
        if not record.exists():
            return None
        deb = Deb(**json.loads(record.read_text()))
        return deb if deb.asks or self.streamed(digest).exists else None

    def make(self, job: tuple[Path, str]) -> Deb:
        """Read an archive, and make its piece, unless it asks for more than to be unpacked."""
        archive, digest = job
        try:
            parts = control(archive)
            deb = read(parts, digest)
            if not deb.asks:
                streamed(archive, deb, parts, self.filters, self.tree).save(self.streamed(digest))
        except Odd:
            Tar().save(self.streamed(digest), {"odd": True})
        except (subprocess.CalledProcessError, tarfile.ReadError) as error:
            raise Broken(archive) from error
        write(self.record(digest), json.dumps(vars(deb)).encode())
        return deb

    def debs(self, order: debs.Order) -> dict[str, Deb]:
        """What each archive (by package) says; what is not known yet is read on all processors, the largest first."""
        found = {name: self.read(package.sha256) for name, package in order.packages.items()}
        new = {name: order.packages[name] for name, deb in found.items() if deb is None}
        if new:
            files = debs.fetch(new, order.lock)
            jobs = [(files[name], new[name].sha256) for name in sorted(new, key=lambda name: -new[name].size)]
            with ProcessPoolExecutor(min(os.cpu_count() or 1, len(jobs)), get_context("fork")) as pool:
                try:
                    found |= {deb.name: deb for deb in pool.map(self.make, jobs)}
                except Broken as error:
                    broken = next(name for name, file in files.items() if file == error.args[0])
                    files[broken].unlink()
                    raise Problem(f"the archive of {broken} is no Debian package, or damaged", order.whose) from None
                except BrokenProcessPool:
                    what = "the packages are too large for the memory that the engine has; give it more"
                    raise Problem(what, order.whose) from None
        return {name: deb for name, deb in sorted(found.items()) if deb}


# --- which packages apt must install


@dataclass(frozen=True)
class Database:
    """dpkg's database as text: a paragraph each package and architecture."""

    paragraphs: dict[tuple[str, str], str]

    @classmethod
    def of(cls, text: str) -> Database:
        """What a status file has."""
        blocks = (f"{block}\n" for block in text.rstrip("\n").split("\n\n") if block)
        return cls({(named(block, "Package"), named(block, "Architecture")): block for block in blocks})

    @cached_property
    def names(self) -> set[str]:
        """The packages that it knows, whether they are installed or have left something behind."""
        return {name for name, _ in self.paragraphs}

    def text(self, more: Iterable[Deb]) -> str:
        """What dpkg writes of this and packages that it has unpacked."""
        names = {deb.name for deb in more}
        kept = {key: block for key, block in self.paragraphs.items() if key[0] not in names}
        both = kept | {(deb.name, deb.architecture): deb.text for deb in more}
        return "".join(f"{both[key]}\n" for key in sorted(both, key=lambda key: (key[0].encode(), key[1])))


def named(block: str, name: str) -> str:
    """The value of a field of one line in a paragraph."""
    found = re.search(rf"^{name}: (.*)$", block, re.MULTILINE)
    return found[1] if found else ""


def diverted(root: Path) -> list[str]:
    """The paths, without a leading slash, at which dpkg does not put what a package has there, or not as it is."""
    lines = text_of(root / DIVERSIONS).splitlines()  # three a diversion: from, to, by whom
    overrides = [line.split(" ", 3)[-1] for line in text_of(root / OVERRIDES).splitlines()]
    return [path.lstrip("/") for path in [*lines[::3], *lines[1::3], *overrides]]


def scripted(found: Mapping[str, Deb], shelf: Shelf, order: debs.Order, before: Database) -> set[str]:
    """The packages that apt must install, as far as can be told before it has installed any."""
    if order.removed:
        return set(found)  # to make room for what is told by apt only
    tree = shelf.tree
    watched = {line.split()[0] for line in text_of(tree.root / TRIGGERS).splitlines()}
    watched |= {path for deb in found.values() for path in deb.interests}
    watched = {tree.resolved(path.strip("/")) for path in watched}
    special = {tree.resolved(path) for path in diverted(tree.root)}
    libraries = library_folders(tree)
    asking = {name for name, deb in found.items() if deb.asks or name in before.names}
    owners: dict[str, str] = {}
    users: dict[str, set[str]] = {}  # of each folder
    for name in found.keys() - asking:
        piece = shelf.streamed(found[name].digest)
        paths, folders = piece.paths, piece.folders
        seen = (path in watched or trees.inside(path, watched) or is_library(path, libraries) for path in paths)
        odd = piece.about.get("odd") or not fits(paths, folders, tree) or not special.isdisjoint(paths)
        if odd or any(seen):  # by what a trigger looks for
            asking.add(name)
        for path in paths:
            if path in owners:
                asking |= {name, owners[path]}
            owners[path] = name
        for folder in folders:
            users.setdefault(folder, set()).add(name)
    for path in owners.keys() & users.keys():
        asking |= {owners[path], *users[path]}
    return asking


def library_folders(tree: Tree) -> set[str]:
    """Where the loader of libraries looks for them, by a list that only a trigger brings up to date."""
    files = sorted((tree.root / "etc/ld.so.conf.d").glob("*.conf"))
    lines = [line for file in files for line in file.read_text().splitlines() if line.startswith("/")]
    return {"usr/lib", "usr/lib64", *(tree.resolved(line.strip().strip("/")) for line in lines)}


def is_library(path: str, folders: Collection[str]) -> bool:
    """Whether the loader of libraries may have to know a file."""
    folder, _, name = path.rpartition("/")
    return folder in folders and name.startswith(("lib", "ld-")) and ".so." in name


def fits(paths: Iterable[str], folders: Folders, tree: Tree) -> bool:
    """Whether all is new to the tree, but for folders that are such there, too, and new folders are ordinary ones."""
    there = {folder: tree.status(folder) for folder in folders}
    inside = {folder for folder, status in there.items() if status}
    alike = (stat.S_ISDIR(about.st_mode) if about else folders[folder] == FOLDER for folder, about in there.items())
    if not all(alike):
        return False  # of two packages with a folder the first decides what it is like
    return all(path.rpartition("/")[0] not in inside or tree.status(path) is None for path in paths)


def closure(names: Collection[str], found: Mapping[str, Deb]) -> set[str]:
    """Some packages with all of the order that they may depend on."""
    providers: dict[str, set[str]] = {}
    for name, deb in found.items():
        for other in (name, *deb.provides):
            providers.setdefault(other, set()).add(name)
    return reached(names, lambda name: (other for need in found[name].needs for other in providers.get(need, ())))


# --- what apt has installed


@dataclass(frozen=True)
class Installed:
    """What apt has installed: the packages' own pieces, and the rest as the beginning of the state."""

    rest: Piece

    @cached_property
    def packages(self) -> dict[str, Piece]:
        """The pieces of the packages, whose names are those of their contents."""
        return {name: Piece(self.rest.path.with_name(key)) for name, key in self.rest.about["packages"].items()}

    @property
    def exists(self) -> bool:
        """Whether all of it is kept."""
        return self.rest.exists and all(piece.exists for piece in self.packages.values())

    @cached_property
    def taken(self) -> tuple[set[str], set[str]]:
        """The paths of all files, with those that dpkg diverts, and of all folders."""
        pieces = [self.rest, *self.packages.values()]
        files = {path for piece in pieces for path in piece.paths} | {*self.rest.about["special"]}
        return files, {path for piece in pieces for path in piece.folders}


def meets(piece: Piece, installed: Installed) -> bool:
    """Whether the piece of a package that was streamed has a path that what was installed has in another way."""
    taken, folders = installed.taken
    return not (taken.isdisjoint(piece.paths) and taken.isdisjoint(piece.folders) and folders.isdisjoint(piece.paths))


@dataclass(frozen=True)
class Step:
    """One step's root, and what is ordered there."""

    order: debs.Order
    shelf: Shelf
    parent_key: str
    found: Mapping[str, Deb]

    def installed(self, rounds: list[list[str]], own: Collection[str]) -> tuple[Installed, bool]:
        """What is written where apt installs each of `rounds`, and whether it had to; `own` are not streamed."""
        digests = [[self.found[name].digest for name in names] for names in rounds]
        made_of = [self.parent_key, self.shelf.filters.text, digests, sorted(own), self.order.removed]
        result = Installed(self.shelf.piece("rest", chance.DAY.pattern, made_of))
        if result.exists:
            return result, False
        since = trees.step_started()
        self.shelf.tree.freeze()
        for names in rounds:
            if names:
                archives = debs.fetch({name: self.order.packages[name] for name in names}, self.order.lock)
                gone = [f"{name}-" for name in self.order.removed]
                debs.install([*map(str, archives.values()), *gone], self.order.whose, *debs.ALONE)
        self.collect(result.rest, {name for names in rounds for name in names}, own, since)
        return Installed(result.rest), True

    def collect(self, kept: Piece, names: set[str], own: Collection[str], since: float) -> None:
        """Make the pieces of what apt has changed on disk: of each of `own`, and of the rest."""
        tree = self.shelf.tree
        if names:
            settle(tree.root)
        entries, gone = trees.changed(tree.root, tree.found or {}) if names else ({}, [])
        owners = trees.owners_of(tree.root, entries)
        left_out = chance.made_up(tree.root, entries, owners)
        entries = {p: e for p, e in entries.items() if p not in left_out and not trees.inside(p, left_out)}
        unpacked = [self.shelf.streamed(self.found[name].digest) for name in names.difference(own)]
        known = {f"/{path}" for piece in unpacked for path in piece.paths}
        tars = {name: Tar() for name in sorted(own)}
        rest = Tar()
        for path in sorted(path for path, entry in entries.items() if not trees.is_folder(entry)):
            record = path.startswith(f"/{INFO}/")
            generated = entries[path].status.st_mtime >= since
            if path[1:] in (STATUS, EXTENDED) or (path in known and (record or not generated)):
                continue
            tar = tars.get(owners.get(path, "").partition(":")[0], rest)
            tree.enclose(tar, path)
            tar.from_disk(tree.root, path[1:], EPOCH if generated or record else None)
        packages = {name: self.shelf.keep(tar) for name, tar in tars.items()}
        folders = {folder for tar in tars.values() for folder in tar.folders}
        folders |= {folder for piece in unpacked for folder in piece.folders}
        changed = (path for path, entry in entries.items() if trees.is_folder(entry))
        for path in sorted(path for path in changed if path[1:] not in folders):
            rest.from_disk(tree.root, path[1:])
            tree.enclose(rest, path)
        about = {
            "status": text_of(tree.root / STATUS),
            "packages": {name: piece.key for name, piece in packages.items()},
            "special": [tree.resolved(path) for path in diverted(tree.root)],
            "gone": [path[1:] for path in gone if not os.path.lexists(f"{tree.root}{path}")],
            "note": chance.note(left_out) if left_out else "",
            "folders": {path: vars(tree.mode(path)) for path in sorted(folders | rest.folders.keys())},
        }
        rest.save(kept, about)


def text_of(path: Path) -> str:
    """The text of a file, empty where there is none."""
    return path.read_text() if path.is_file() else ""


def settle(root: Path) -> None:
    """Give what installing writes in an order of chance one that is always the same."""
    keystore = root / chance.JAVA
    if keystore.is_file() and (content := chance.settled(was := keystore.read_bytes())) != was:
        keystore.write_bytes(content)
    shadow = root / chance.SHADOW
    if (text := chance.settled_accounts(before := text_of(shadow))) != before:
        shadow.write_text(text)
    config = root / GITCONFIG
    text = LFS.sub(lambda lines: "".join(sorted(lines[0].splitlines(keepends=True))), before := text_of(config))
    if text != before:
        config.write_text(text)


# --- the state


def automatic(text: str, order: debs.Order, found: Mapping[str, Deb], old: Database, new: Database) -> str:
    """What apt says of the packages that nobody has asked for, of which it has said `text` before."""
    blocks = (block for block in text.split("\n\n") if named(block, "Auto-Installed") == "1")
    before = {(named(block, "Package"), named(block, "Architecture")) for block in blocks}
    asked = {name.partition("=")[0] for name in order.names}
    virtual = asked - new.names
    asked |= {name for name, deb in found.items() if virtual & {*deb.provides}}
    native = next(where for name, where in new.paragraphs if name == "dpkg")
    after = before | {(name, native) for name in found.keys() - old.names}
    after = {(name, where) for name, where in after if name in new.names and name not in asked}
    if after == before:
        return text
    return "".join(f"Package: {name}\nArchitecture: {where}\nAuto-Installed: 1\n\n" for name, where in sorted(after))


def whiteouts(gone: Iterable[str], kept: Collection[str], tree: Tree) -> Iterator[str]:
    """What must be said to be gone, if folders that are `kept` are not."""
    for path in gone:
        if path in kept:
            yield from whiteouts((f"{path}/{name}" for name in tree.names(path)), kept, tree)
        else:
            yield path


def compose(rest: Piece, texts: Mapping[str, str], gone: list[str], shelf: Shelf) -> Piece | None:
    """The state: the `rest` of what apt has written, with the `texts` of files and what is `gone`."""
    if not (rest.paths or rest.folders or texts or gone):
        return None
    piece = shelf.piece("state", rest.key, texts, gone)
    if not piece.exists:
        tar = Tar(rest.folders, rest.paths)
        for frame in rest.frames():
            tar.write(decompress(frame))
        for path, text in sorted(texts.items()):
            tar.file(path, text.encode(), Mode(0o644))
        for path in gone:
            tar.gone(path)
        tar.save(piece)
    return piece


def pieces(order: debs.Order, cache: Path, parent_key: str, tree: Tree) -> Result:
    """The pieces of what is ordered on top of the parent, whose files `tree` has, and where apt installs what it must.

    `parent_key` tells one parent from another.
    """
    shelf = Shelf(cache, Filters.of(tree.root), tree)
    texts = {path: text_of(tree.root / path) for path in (STATUS, EXTENDED)}
    before = Database.of(texts[STATUS])
    found = shelf.debs(order)
    step = Step(order, shelf, parent_key, found)
    own = scripted(found, shelf, order, before)
    rounds: list[list[str]] = []
    while True:  # until apt has met nothing that moves what is streamed
        rounds.append(sorted(closure(own, found)))
        installed, ran = step.installed(rounds, own)
        streams = {name: shelf.streamed(deb.digest) for name, deb in found.items() if name not in own}
        if not (more := {name for name, piece in streams.items() if meets(piece, installed)}):
            break
        own |= more
    if note := installed.rest.about["note"]:
        events.note(note)
    packages = dict(sorted({**streams, **installed.packages}.items()))
    after = Database.of(installed.rest.about["status"])
    status = after.text([found[name] for name in streams])
    now = {STATUS: status, EXTENDED: automatic(texts[EXTENDED], order, found, before, Database.of(status))}
    folders = {path for piece in packages.values() for path in piece.folders}
    gone = [*whiteouts(installed.rest.about["gone"], folders, tree)]
    state = compose(installed.rest, {path: now[path] for path in now if now[path] != texts[path]}, gone, shelf)
    modes = {path: Mode(**mode) for path, mode in installed.rest.about["folders"].items()}
    here = {name for names in rounds for name in names} if ran else set()
    lacking = [piece for name, piece in packages.items() if name not in here]
    return Result(packages, state, modes, [*lacking, *([state] if state else [])], found)


def unpack_missing(result: Result, tree: Tree) -> None:
    """Complete the file system of the step with what was not installed there."""
    tree.freeze()
    unpack(result.lacking, tree.root)
