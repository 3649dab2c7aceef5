"""The images, labs and servers that tests share; each is made when the first test asks for it by name."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

import colleague
from caches import Caches, run_caches
from checkout import (
    CHANGED,
    CHECKOUT,
    NAMES,
    PROJECT,
    ROOT,
    TAG,
    TINY,
    TINY_LISTS,
    WORKER,
    Lab,
    Make,
    Run,
    copy_checkout,
    docker,
    remove_images,
    run_make,
    running_lab,
    succeeded,
    tagged,
    write_lists,
)
from host import Host, run_host
from left import left_behind
from pyrlab.host import bake, base, state
from pyrlab.host.project import Project
from rlab import RlabBuilds
from servers import Squid, WebServer, free_ports, serve_files, serve_squid

# A background job of a script ignores Ctrl-C and hands that down to what it starts; here some test types it.
signal.signal(signal.SIGINT, signal.default_int_handler)

LEFT = pytest.StashKey[list[str]]()
BEFORE = pytest.StashKey[Collection[str]]()

# One worker runs the modules that share another machine.
ON_ONE_HOST = (
    "test_ill_engine",
    "test_ordinary_user",
    "test_proxies",
    "test_reproducible",
    "test_uninstall",  # at last
)
FIRST = (*ON_ONE_HOST, "test_registry")  # since they take longest
BUILT = "/built/"  # in the place of what builds nothing but the default images


class ByModule(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Lets one worker run all tests of a module, which share what they start, but cases wherever there is room."""

    def _split_scope(self, nodeid: str) -> str:
        module = Path(nodeid.partition("::")[0])
        if module.stem.endswith("_cases"):
            return nodeid
        if module.parent.name == "whole":  # which begins with an engine that has nothing
            return "whole"
        return "host" if module.stem in ON_ONE_HOST else str(module)

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Give a worker what only looks, where the others build already: of one user's builds one waits for another."""
        others = (work for other, work in self.assigned_work.items() if other is not node)
        building = sum(BUILT not in scope and not all(done.values()) for work in others for scope, done in work.items())
        if scope := next((scope for scope in self.workqueue if (BUILT in scope) == (building > 1)), ""):
            self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    """Say which tests belong together where several workers share them out."""
    return ByModule(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left alone with it."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what could not run, with what it needs and the number of tests, or note it for the end of all lanes."""
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])
    )
    for reason, count in reasons.items():
        line = f"NOT RUN: {count} test{'s' * (count > 1)}: {reason}"
        if "NOT_RUN" in os.environ and not WORKER:
            with Path(os.environ["NOT_RUN"]).open("a") as noted:
                noted.write(f"{line}\n")
        else:
            terminalreporter.write_line(line, yellow=True, bold=True)
    for thing in terminalreporter.config.stash.get(LEFT, []):
        terminalreporter.write_line(f"LEFT BEHIND: {thing}", red=True, bold=True)


def tries_engine(config: pytest.Config) -> bool:
    """Whether this is the process that sees what all workers leave on an engine."""
    return not (hasattr(config, "workerinput") or config.option.collectonly or shutil.which("docker") is None)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Note what whoever works in this checkout has on the engine already."""
    if tries_engine(session.config):
        session.config.stash[BEFORE] = left_behind()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the tiny images and their steps, which no test needs any more; fail where anything else is left."""
    if not tries_engine(session.config):
        return
    if any(lane in argument for argument in session.config.args for lane in ("tiny", "prove")):
        remove_images(CHANGED, TINY)
        shown = bake.shown_records(CHECKOUT.engine)
        if not bake.IN_USE.search(shown):
            bake.prune(CHECKOUT.engine, bake.used_up(bake.cache_records(shown)))
    session.config.stash[LEFT] = left_behind(session.config.stash[BEFORE])
    if session.config.stash[LEFT]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make a folder that all workers share, whichever comes first."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if WORKER else shared

    def get(name: str, make: Callable[[Path], object]) -> Path:
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (shared / f"{name}.made").exists():
                make(shared / name)
                (shared / f"{name}.made").touch()
        return shared / name

    return get


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A checkout with the table of images, empty lists and nothing else, and nobody who wants anything of it."""
    shutil.copy(ROOT / "images.toml", tmp_path)
    made = Project(tmp_path, {})
    for path in made.table.files:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    return made


@pytest.fixture(scope="session")
def ports() -> dict[str, int]:
    """Ports for the tests' labs."""
    return free_ports()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks folder of the tests' labs: not there yet, make creates it."""
    return tmp_path_factory.mktemp("home") / "notes" / "books"


@pytest.fixture(scope="session")
def make(ports: dict[str, int], files: Path) -> Make:
    """Run make in this checkout with the ports and folder of the tests."""

    def run(*targets: str, **parameters: str | int) -> Run:
        return run_make(ROOT, *targets, **{**ports, "FILES": str(files), **parameters})

    return run


@pytest.fixture(scope="session")
def handed_over(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The packages that a colleague hands over, by the kernel that they are for."""
    folder = tmp_path_factory.mktemp("colleague")
    return {"python3": colleague.wheel(folder), "ir": colleague.r_package(folder)}


@pytest.fixture(scope="session")
def images(make: Make, debian: Path) -> str:
    """All four images of the default lists, built; what make printed."""
    subprocess.run(["docker", "volume", "rm", f"pyrlab_tag_{TAG}"], capture_output=True)  # another checkout's, perhaps
    return succeeded(make("build"))


@pytest.fixture(scope="session")
def debian(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The Python image as bootstrapped from Debian's archive, also where the images are there without."""
    once("debian", lambda _: base.bootstrap(CHECKOUT))
    return base.archive(CHECKOUT)


@pytest.fixture(scope="session")
def pylab(images: str, make: Make, files: Path, ports: dict[str, int]) -> Iterator[Lab]:
    """A running pylab."""
    with running_lab("pylab", make, PROJECT, files, ports["PORT"]) as lab:
        yield lab


@pytest.fixture(scope="session")
def rlab(images: str, make: Make, files: Path, ports: dict[str, int]) -> Iterator[Lab]:
    """A running rlab."""
    with running_lab("rlab", make, PROJECT, files, ports["RPORT"]) as lab:
        yield lab


@pytest.fixture(params=["pylab", "rlab"])
def name(request: pytest.FixtureRequest) -> str:
    """The lab's name."""
    return str(request.param)


@pytest.fixture
def lab(name: str, request: pytest.FixtureRequest) -> Lab:
    """The running lab of that name."""
    running: Lab = request.getfixturevalue(name)
    return running


@pytest.fixture(scope="session")
def gateway() -> str:
    """The address at which builds and labs find this machine."""
    return docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")


@pytest.fixture(scope="session")
def tiny(once: Callable[[str, Callable[[Path], object]], Path], debian: Path) -> Path:
    """A checkout with the tiny lists, built."""

    def make(folder: Path) -> None:
        remove_images(CHANGED, TINY)  # of a run that was killed
        write_lists(copy_checkout(folder), TINY_LISTS)
        succeeded(run_make(folder, "build", TAG=TINY, BASE="debian"))

    return once("tiny", make)


@pytest.fixture
def checkout(tmp_path: Path, tiny: Path) -> Path:
    """A copy of the checkout with the tiny lists, which a test may change."""
    return copy_checkout(tmp_path / "pyrlab", tiny)


@pytest.fixture(scope="session")
def changed(once: Callable[[str, Callable[[Path], object]], Path], tiny: Path) -> Path:
    """A checkout with a package more in each of the tiny lists, and the large one bumped: built upon what is cached."""
    version = docker("run", "--rm", f"pylab:{TINY}", "python", "-c", "import duckdb; print(duckdb.__version__)")

    def make(folder: Path) -> None:
        copy_checkout(folder, tiny)
        more = {"base_debs.txt": "tree", "r_packages.txt": "docopt", "requirements.txt": "cowsay"}
        lists = {name: [*TINY_LISTS[name], package] for name, package in more.items()}
        lists["requirements.txt"][0] = f"duckdb<{version}"
        write_lists(folder, lists)
        for name in NAMES:
            docker("tag", f"{name}:{TINY}", f"{name}:{CHANGED}")
        succeeded(run_make(folder, "build", TAG=CHANGED, BASE="debian"))

    return once("changed", make)


@pytest.fixture(scope="session")
def r_repositories(tiny: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """CRAN-shaped repositories, source and binary, of real packages that are newer than Debian's; made once."""
    script = ROOT / "tests/make/cran.sh"
    folder = ROOT / f".cache/r-repositories-{state.digest(script)}"

    def make(part: Path) -> None:
        if folder.exists():
            return
        steps = ["FROM rlab:{}", "USER 0", "COPY cran.sh /", "RUN bash /cran.sh /repositories"]
        steps += ["FROM scratch", "COPY --from=0 /repositories /"]
        command = ["docker", "buildx", "build", "--quiet", f"--output={part}", "--file=-", str(script.parent)]
        subprocess.run(command, input="\n".join(steps).format(TINY), check=True, text=True, capture_output=True)
        shutil.move(part, folder)

    once("r-repositories", make)
    return folder


@pytest.fixture(scope="module")
def cran(r_repositories: Path, gateway: str) -> Iterator[WebServer]:
    """A repository of sources, as CRAN is."""
    with serve_files(r_repositories / "source", gateway) as server:
        yield server


@pytest.fixture(scope="module")
def binaries(r_repositories: Path, gateway: str) -> Iterator[WebServer]:
    """A repository of binaries for this R and system, as Package Manager is; only the address differs."""
    with serve_files(r_repositories / "binary", gateway) as server:
        yield server


@pytest.fixture(scope="module")
def rlab_builds(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RlabBuilds]:
    """A checkout whose r_packages.txt a test may write, with the images under a tag of their own."""
    tag = f"{TINY}-r{WORKER}"
    with tagged(tag):
        yield RlabBuilds(copy_checkout(tmp_path_factory.mktemp("r") / "pyrlab", tiny), tag)


@pytest.fixture(scope="session")
def host(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Another machine with another engine, whose network leads to this machine's proxies only."""
    with run_host(tmp_path_factory.mktemp("ada")) as machine:
        yield machine


@pytest.fixture(scope="session")
def squid(gateway: str) -> Iterator[Squid]:
    """A company's proxy: with a password, and looking into TLS with an authority that only CACERT names."""
    with serve_squid(gateway) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a hotel's network answers to everything."""
    folder = tmp_path_factory.mktemp("portal")
    (folder / "login.html").write_text("<html>Please log in</html>")
    with serve_files(folder, page="login.html") as server:
        yield server.url


@pytest.fixture(scope="session")
def company(squid: Squid) -> dict[str, str]:
    """The parameters in that company."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "APTPROXY"), squid.with_password)
    return {**proxies, "CACERT": str(squid.authority)}


@pytest.fixture(scope="session")
def caches(
    debian: Path, gateway: str, company: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Caches]:
    """The caches of make proxies, on the engine of this machine; what they lack they fetch through the company's."""
    checkout = copy_checkout(tmp_path_factory.mktemp("caches") / "pyrlab")
    with run_caches(checkout, PROJECT, gateway, **company) as running:
        yield running


@dataclass(frozen=True)
class Clean:
    """The images of the changed tiny lists, built from nothing on another machine."""

    host: Host
    checkout: Path
    parameters: dict[str, str]  # of the proxies
    said: str  # what make printed, and the log


@pytest.fixture(scope="session")
def clean(changed: Path, host: Host, caches: Caches, company: dict[str, str]) -> Clean:
    """The changed lists from nothing: on another machine, by an ordinary user, through caches only."""
    checkout = host.adopt(changed, "pyrlab")
    parameters = {**company, **caches.parameters}
    built = host.make(checkout, "build", TAG=CHANGED, **parameters)
    succeeded(built)
    said = built.stdout + built.stderr + (checkout / ".cache/build.log").read_text()
    return Clean(host, checkout, parameters, said)
