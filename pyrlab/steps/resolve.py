#!/usr/bin/env python3
"""Lock Python lists with uv: resolve.py LOCKS TARGET LIST[,LIST] [BELOW[,BELOW] …].

Resolve the lists of one lock together, the user's own the last, so that all that they bring agrees, for every Python
and processor that pyrlab supports; and write it into the folder TARGET, what the first list needs in the first of
the SECTIONS. What the lists BELOW have, as their locks in the folder LOCKS say, is there already. What a lock of LOCKS
names stays as it is, but for the packages of UPGRADE. The lists are in a folder with the lists and wheels that they
point at; where something must be compiled to know what it needs, the Debian packages of base_debs.txt are there.
"""

from __future__ import annotations

import netrc
import os
import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import getproxies

from packaging.utils import canonicalize_name

from pyrlab.model import events, lists
from pyrlab.model.lists import Line
from pyrlab.model.locked import Lock, Packages, name_of, pinned, reached, requirement
from pyrlab.model.problem import Problem
from pyrlab.steps import compiled, debs, network, wheels
from pyrlab.steps.network import Run
from pyrlab.steps.requirements import INDEXES, Demands, Package
from pyrlab.steps.wheels import because, plain

# A lock is for all of these, whatever Python and processor it is made on.
SUPPORTED = """\
[tool.uv]
environments = ["sys_platform == 'linux'"]
"""
OLDEST = "{}.{}".format(*wheels.PYTHON)
ENVIRONMENTS = [
    {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": machine}
    | {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0", "implementation_name": "cpython"}
    for machine in ("x86_64", "aarch64")
    for minor in range(wheels.PYTHON[1], wheels.PYTHON[1] + 6)
]
OTHER_SYSTEM = re.compile("sys_platform|platform_system|os_name")
EVERYWHERE = re.compile(r" (and|;) sys_platform == 'linux'(?= |$)", re.MULTILINE)
RESOLVE = Path("/tmp/resolve")
BOTH = ("jupyter.txt", "requirements.txt")
LOCKED_OPTIONS = ("--index-url", "--extra-index-url", "--find-links", "--trusted-host", "--no-binary")

# What uv says where it would have had to ask, and was told not to.
UNHEARD = re.compile("network was disabled|[Nn]etwork connectivity is disabled")

# Names under which people import a package, or knew it once, where the index has another or none.
RENAMED = {
    "bs4": "beautifulsoup4",
    "crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "pil": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
SYSTEMS = {"Windows": "win32", "macOS": "darwin"}  # as people and as Python call them
NONE_SATISFIES = "no version of {0} satisfies '{1}'"
OLD_PYTHON = "there is no '{1}' for Python {python} and later, for which the lists are locked"
SINGLE = [  # what uv says of one package, and what is said of its line
    (r"Because ([\w.-]+) was not found in the package registry", "the Python index has no package named '{0}'"),
    (r"Because there are no versions of ([\w.-]+) and you require", "the Python index has no package named '{0}'"),
    (r"there is no version of ([\w.-]+)(?:\[.*?\])?[=<>!~]", NONE_SATISFIES),
    (r"Because only ([\w.-]+)(?:\[.*?\])?[=<>!~]\S* is available and you require", NONE_SATISFIES),
    (r"(?:[Bb]ecause|available and) ([\w.-]+)\S* has no Linux-compatible wheels(?: and you require|,)", "{0} {system}"),
    (
        r"(?:[Bb]ecause|available and) ([\w.-]+)\S* has no wheels with a matching Python version tag "
        r"\(e\.g\., `\w+`\)(?: and you require|,)",
        OLD_PYTHON,
    ),
    (r"does not satisfy Python\S+ and ([\w.-]+)\S* depends on Python", OLD_PYTHON),
]
# A package in uv's proofs, which are sentences: any other word may be the name of a package, too.
BEFORE = r"(?:[Bb]ecause|that|and|or|of|require|depends on|either|only) "
AFTER = r"(?=[=<>!~\[{,.]| depends| and you| are| is | was| has| cannot|$)"
SUBJECT = rf"{BEFORE}([A-Za-z][\w.-]*?){AFTER}"


def check_indexes(asked: Demands) -> None:
    """Note which indexes give nothing: uv takes those that want another password for ones that have no packages."""
    logins = netrc.netrc(os.environ["NETRC"]).hosts if "NETRC" in os.environ else {}
    for url, line in asked.indexes.items():
        parts = urlsplit(url)
        user, _, password = logins.get(parts.hostname or "", ("", "", ""))
        login = f"{quote(user, safe='')}:{quote(password or '', safe='')}@" if user else ""
        address = urlunsplit(parts._replace(netloc=f"{login}{parts.netloc}"))
        code, reason, _ = network.ask(address, getproxies())
        if (code == 401 or (reason and not code)) and (problem := network.trouble(address, "", b"")):
            asked.problems.note(problem, line)


def check_markers(packages: list[Package]) -> None:
    """Say which lines bring nothing, but for those that say that they are for another system."""
    conditions = [(p.line, p.marker) for p in packages if p.marker and not OTHER_SYSTEM.search(str(p.marker))]
    idle = [line for line, marker in conditions if not any(map(marker.evaluate, ENVIRONMENTS))]
    if idle:
        said = "bring nothing, since their conditions hold" if idle[1:] else "brings nothing, since its condition holds"
        events.note(f"{said} for no Python here", lists.place(idle))


class Resolver:
    """Resolves the lists, and says what is wrong with them."""

    def __init__(self, own: Demands, asked: Demands, base_debs: Path, below: Collection[Lock]) -> None:
        self.own, self.asked, self.base_debs = own, asked, base_debs
        there = [package for lock in below for package in lock.of("Python").items()]
        self.below = [requirement(key, replace(locked, hashes=())) for key, locked in there if not locked.url]
        self.packages, self.constraints = [*asked.packages], [*asked.constraints]
        theirs = wheels.options_of(below)
        if "--index-url" in asked.options and "--index-url" in theirs:  # uv takes one
            theirs["--extra-index-url"] = [*theirs.pop("--index-url"), *theirs.get("--extra-index-url", ())]
        self.options = [*dict.fromkeys(uv_options(asked.options) + uv_options(theirs))]
        if "--pre" in asked.options:  # of what the lists name, and not of the Jupyter stack
            self.options += [f"--prerelease-package={package.name}=allow" for package in self.packages if package.name]
        if own_host := os.environ.get("UV_INSECURE_HOST"):  # PIPHOST; the option would stand before it
            self.options.append(f"--allow-insecure-host={own_host}")
        self.compilers = False

    def write(self) -> None:
        """Write what uv reads."""
        (RESOLVE / "pyproject.toml").write_text(SUPPORTED)
        for name, lines in {
            "jupyter.txt": [package.text for package in self.own.packages],
            "requirements.txt": [package.text for package in self.packages],
            "constraints.txt": [package.text for package in self.constraints],
            "below.txt": self.below,
        }.items():
            (RESOLVE / name).write_text("".join(f"{line}\n" for line in lines))

    def run(self, names: list[str], *options: str | Path, universal: bool = True, alone: bool = False) -> Run:
        """Let uv resolve the lists `names`, `alone` or with what is there already."""
        self.write()
        fixed = ["--universal", f"--python-version={OLDEST}", "--no-header"] if universal else []
        limits = ["--constraints=constraints.txt"] if self.constraints else []
        limits += ["--constraints=below.txt"] if self.below and not alone else []
        given = [*names, *limits, *fixed, "--emit-index-annotation", *self.options, *options]
        return wheels.uv("pip", "compile", "--directory", RESOLVE, *given, explains=False)

    def resolve(self, names: list[str], output: Path, *options: str | Path) -> Run:
        """Resolve the lists `names` to `output`, or stop with a sentence on each line that is in the way."""
        given = ["--output-file", output, *options]
        run = self.run(names, *given)
        while run.returncode:
            self.diagnose(run.stderr)
            # What else is wrong uv mostly knows from what it has just heard: some indexes let it keep nothing.
            run = self.run(names, "--offline", *given)
            if not run.returncode:
                self.checked(run)
            if not run.returncode or UNHEARD.search(plain(run.stderr)):
                run = self.run(names, *given)
        return self.checked(run)

    def checked(self, run: Run) -> Run:
        """What has resolved, or stop with a sentence on each line that is wrong all the same.

        Of an extra that does not exist, as in dask[complete], uv only warns.
        """
        lacking = re.findall(r"The package `([\w.-]+)[^`]*` does not have an extra named `([^`]+)`", run.stderr)
        for name, extra in lacking:
            known = [package for package in self.packages if package.name == canonicalize_name(name)]
            if lines := [package.line for package in known if extra in package.line.text]:
                self.asked.problems.note(f"{name} has no extra named '{extra}'", *lines)
        self.asked.problems.stop()
        return run

    def resolve_new(self, before: Packages, output: Path, *options: str | Path) -> Run | None:
        """Resolve what is not locked, where all that is may stay: None, and `output` as it was, where it may not.

        Of what is locked uv knows enough: to ask an index for news of some hundred packages may take long.
        """
        draft, known = output.read_text(), {*map(name_of, before)}
        new = [package.text for package in [*self.own.packages, *self.packages] if package.name not in known]
        (RESOLVE / "new.txt").write_text("".join(f"{line}\n" for line in new))
        if new and self.run(["new.txt"], "--output-file=new.lock", "--constraints", output).returncode:
            return None
        run = self.run([*BOTH], "--output-file", output, "--offline", *options)
        found = {} if run.returncode else resolved(output)
        if not found or any(found[key].version != before[key].version for key in found.keys() & before.keys()):
            output.write_text(draft)
            return None
        return self.checked(run)

    def diagnose(self, stderr: str, alone: bool = False) -> None:
        """Note what uv's words say is wrong, and take out the lines that are, or do what helps.

        `alone` says that nothing but the user's own lists was resolved.
        """
        words = plain(stderr)
        lines = self.at_addresses_in(words)
        if offline := network.explain(stderr):
            if lines := [line for line in lines if offline.split()[0] in line.text]:
                return self.wrong(lines, offline)
            raise Problem(offline)
        reason = re.findall(r"^\W*(?:cause: )?(fatal: .*|HTTP status .*)", stderr, re.MULTILINE)
        if lines and reason:
            return self.wrong(lines, f"this address cannot be fetched: {reason[-1]}")
        if failed := re.search(r"Failed to (?:build|download and build|prepare) `?([\w.-]+)", words):
            return self.not_built(failed[1], stderr)
        for pattern, problem in SINGLE:
            if (match := re.search(pattern, words)) and (lines := self.named({match[1]})):
                system = self.system(match[1]) if "system" in problem else ""
                said = problem.format(match[1], lines[0].text, python=OLDEST, system=system)
                return self.wrong(lines, said + hint(match[1], problem))
        if not alone:  # so that no line of another list is named where these contradict each other
            run = self.run(["requirements.txt"], "--output-file=alone.txt", alone=True)
            if "No solution found" in run.stderr:
                return self.diagnose(run.stderr, alone=True)
        return self.contradiction(words, alone)

    def not_built(self, name: str, stderr: str) -> None:
        """Note that a package could not be compiled, once that was tried with all that base_debs.txt has."""
        words = plain(stderr)
        if right := re.search(rf"`{name}` is often confused for `([\w.-]+)`", words):
            return self.wrong(self.named({name}), f"{name} is called {right[1]}")
        # Where lines contradict each other, uv may have come down to a version that nobody could compile today.
        run = self.run([*BOTH], "--output-file=wheel.txt", f"--only-binary={name}")
        if re.search(rf"{name}<\S+ has no usable wheels", plain(run.stderr)):
            return self.diagnose(run.stderr)
        if not self.compilers:
            self.compilers = True
            return compiled.prepare(self.base_debs)
        needing = re.search(rf"`{name}`[^`]* was included because (.*?) depends on", words)
        names = {name, *re.findall(r"`([\w.-]+)", needing[1] if needing else "")}
        return self.wrong(self.named(names), compiled.sentence(name, stderr))

    def wrong(self, lines: list[Line], problem: str) -> None:
        """Note what is wrong with some lines, and take them out."""
        if not lines:
            self.asked.problems.stop()
            raise Problem(f"the Python packages of the lists cannot be had: {problem}")
        self.asked.problems.note(problem, *lines)
        self.packages = [package for package in self.packages if package.line not in lines]
        self.constraints = [package for package in self.constraints if package.line not in lines]

    def at_addresses_in(self, words: str) -> list[Line]:
        """The lines that have an address which is among uv's words."""
        found = [(package.line, re.search(r"\w+://[^\s@#;]+", package.text)) for package in self.packages]
        return [line for line, address in found if address and address[0] in words]

    def named(self, names: Iterable[str]) -> list[Line]:
        """The lines that ask for one of some packages; of several on one, those that say in which version."""
        wanted = {canonicalize_name(name) for name in names}
        found = [package for package in [*self.packages, *self.constraints] if package.name in wanted]
        strict = {package.name for package in found if package.limits}
        return [package.line for package in found if package.limits or package.name not in strict]

    def contradiction(self, words: str, alone: bool) -> None:
        """Note which lines cannot be had with each other or with the Jupyter stack."""
        lines = self.named(re.findall(SUBJECT, words))
        if not lines:
            return self.wrong([], because(words))
        texts = " and ".join(f"'{text}'" for text in dict.fromkeys(line.text for line in lines))
        together = "together" if lines[1:] else "with what it needs"
        there = "what the image's parent has" if self.below else "the JupyterLab that every image has"
        stack = f"{'do' if lines[1:] else 'does'} not go with {there}"
        reason = because(words, [package.name for package in self.packages if package.line in lines])
        return self.wrong(lines, f"{texts} {f'cannot be had {together}' if alone else stack}: {reason}")

    def system(self, name: str) -> str:
        """For which system a package is that has nothing for Linux."""
        nothing = "has nothing for Linux; take it out"
        if any(package.name == canonicalize_name(name) and "://" in package.text for package in self.packages):
            return nothing  # what the index has of this name may be another
        (RESOLVE / "one.txt").write_text(f"{name}\n")
        for system, platform in SYSTEMS.items():
            options = ["--no-deps", f"--python-platform={system.lower()}", "--output-file=one.lock"]
            if not self.run(["one.txt"], *options, universal=False).returncode:
                return f"is for {system} only; take it out, or say so after it: ; sys_platform == '{platform}'"
        return nothing


def resolved(output: Path) -> Packages:
    """The packages that uv has written to a file, without the condition that all of them have."""
    return pinned(EVERYWHERE.sub("", output.read_text()))


def hint(name: str, problem: str) -> str:
    """What a name that the index does not know may mean."""
    if "no package named" not in problem:
        return ""
    if right := RENAMED.get(canonicalize_name(name)):
        return f"; it is called {right}"
    if name == "python":
        return "; which Python there is, PYTHONBASE says"
    if name in sys.stdlib_module_names:
        return "; it is part of Python itself"
    known = debs.known_packages()  # none, where apt was not asked before
    if name in known:
        return "; Debian packages go into base_debs.txt"
    return debs.other_list(name, known - {f"python3-{name}"})


def uv_options(options: dict[str, list[str]]) -> list[str]:
    """The options of a list, as uv calls them."""
    names = {
        "--index-url": "--default-index",
        "--extra-index-url": "--index",
        "--trusted-host": "--allow-insecure-host",
    }
    given = ((name, value) for name in (*LOCKED_OPTIONS, "--only-binary") for value in options.get(name, ()))
    found = [f"{names.get(name, name)}={value}" for name, value in given]
    # As pip does: the best version of all indexes, not that of the first which has any.
    return [*found, "--index-strategy=unsafe-best-match"] if "--extra-index-url" in options else found


def as_listed(found: Packages, asked: Demands) -> Packages:
    """What was found: an index where the lists name it, wheels by their place, checksums as they demand; or stop."""
    indexes = {each.rstrip("/") for name in INDEXES for each in asked.options.get(name, ())}
    demanded: dict[str, list[Package]] = {}  # a line each for some systems or Pythons, or of a list of constraints
    for package in (package for package in [*asked.packages, *asked.constraints] if package.hashes):
        demanded.setdefault(package.name, []).append(package)
    for key, locked in found.items():
        index = locked.index if locked.index.rstrip("/") in indexes else ""
        url, hashes = locked.url.replace(f"file://{asked.root}/", "./"), locked.hashes
        if packages := demanded.get(name_of(key)):
            hashes = tuple(each for each in hashes if any(each in package.hashes for package in packages))
            if not hashes:
                what = f"no file of {name_of(key)} {locked.version} has the checksum that the line demands"
                lines = [package.line for package in packages]
                asked.problems.note(f"{what}; if the index is to be trusted, take out the --hash", *lines)
        found[key] = replace(locked, index=index, url=url, hashes=hashes)
    asked.problems.stop()
    return found


def note_yanked(stderr: str, packages: list[Package]) -> None:
    """Tell what the makers of a package have withdrawn."""
    for name, version, reason in re.findall(r"`([\w.-]+)==(\S+?)` is yanked(?: \(reason: \"(.*?)\"\))?", stderr):
        lines = [package.line for package in packages if package.name == canonicalize_name(name)]
        why = f": {reason}" if reason else ""
        events.note(f"{name} {version} was withdrawn by its makers{why}", lists.place(lines))


CUDA = re.compile(r"(nvidia|cuda)-")


def note_cuda(resolver: Resolver, locked: Packages, previous: Packages, draft: Path) -> None:
    """Tell what CUDA costs where a list has not had it before."""
    new = {name for name in locked if CUDA.match(name)}
    if not new or any(CUDA.match(name) for name in previous):
        return
    options = ["--format=pylock.toml", "--output-file=pylock.toml", f"--constraints={draft}"]
    if resolver.run(["requirements.txt"], *options, universal=False).returncode:
        return
    blocks = (RESOLVE / "pylock.toml").read_text().split("[[packages]]")
    sizes = [re.search(r"\bsize = (\d+)", block) for block in blocks if re.search(rf'name = "{CUDA.pattern}', block)]
    size = sum(int(found[1]) for found in sizes if found) / 1e6
    needing = reached(new, lambda name: (name_of(key) for key, each in locked.items() if name in each.needs))
    lines = [package.line for package in resolver.packages if package.name in needing]
    events.note(
        f"brings CUDA libraries of {size:,.0f} MB, which only an NVIDIA GPU uses; "
        "without them, PyTorch and its like come from the index for CPUs that pytorch.org names, by a line "
        "--extra-index-url …",
        lists.place(lines),
    )


def lock(
    paths: list[Path], root: Path, base_debs: Path, sections: list[str], below: list[Path], previous: Path
) -> Lock:
    """The lock: the exact version of all that lists of the checkout `root` need, with the hashes of its files."""
    *others, requirements = paths
    own, asked = Demands(root), Demands(root)
    for path in others:
        own.read(path)
    own.problems.stop()
    asked.read(requirements)
    if "--require-hashes" in asked.options:
        for package in asked.packages:
            if not package.hashes:
                asked.problems.note("--require-hashes stands in the list, and this line has no --hash", package.line)
    check_indexes(asked)
    if any(re.match(r"-\S", line.text) for lines in asked.problems.found.values() for line in lines):
        asked.problems.stop()  # without an option, more lines may seem wrong than are
    check_markers(asked.packages)
    before = Lock.read(previous).of("Python")
    draft = RESOLVE / "draft.txt"
    RESOLVE.mkdir(exist_ok=True)
    # uv keeps to what it finds there.
    kept = [requirement(key, each) for key, each in before.items() if not each.url.startswith("./")]
    draft.write_text("".join(f"{line}\n" for line in kept))
    upgrades = {*os.environ.get("UPGRADE", "").split()}
    named = sorted(upgrades & {*map(name_of, before)})
    upgrade = ["--upgrade"] if "*" in upgrades else [f"--upgrade-package={name}" for name in named]
    if any("git+" in package.text for package in asked.packages):
        debs.update()
        debs.install(["git"], requirements.name)
    there = [Lock.read(path) for path in below]
    resolver = Resolver(own, asked, base_debs, there)
    may_stay = before and not upgrade and not asked.problems.found
    run = resolver.resolve_new(before, draft, "--generate-hashes") if may_stay else None
    run = run or resolver.resolve([*BOTH], draft, "--generate-hashes", *upgrade)
    note_yanked(run.stderr, asked.packages)
    found = as_listed(resolved(draft), asked)
    note_cuda(resolver, found, before, draft)
    known = {name_of(key) for each in there for key in each.of("Python")}
    shared: set[str] = set()
    if others:
        output = RESOLVE / "shared.txt"
        # Of this uv has just heard all there is to know, but for an index that lets nothing be kept, as devpi.
        if resolver.run(["jupyter.txt"], "--output-file", output, "--constraints", draft, "--offline").returncode:
            resolver.resolve(["jupyter.txt"], output, "--constraints", draft)
        shared = {name_of(key) for key in resolved(output)}
    packages: dict[str, Packages] = {section: {} for section in sections}
    for key, locked in found.items():
        if name_of(key) not in known:
            packages[sections[0 if name_of(key) in shared else -1]][key] = locked
    options = tuple(f"{name} {value}" for name in LOCKED_OPTIONS for value in asked.options.get(name, ()))
    return Lock(packages, options=options)


def main() -> None:
    """Lock; see the module's docstring."""
    network.connect()
    locks, target, *images = sys.argv[1:]
    paths, *below = debs.paths_of(images)
    others = [debs.lock_of(Path(locks), each) for each in below]
    sections, before = os.environ["SECTIONS"].split(","), debs.lock_of(Path(locks), paths)
    found = lock(paths, Path.cwd(), Path("../base_debs.txt"), sections, others, before)
    found.write(debs.lock_of(Path(target), paths))


if __name__ == "__main__":
    events.run(main)
