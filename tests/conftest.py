"""The images and labs that the tests share, built and started with make, apart from the user's own."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cut import Caches, Cut, run_caches, run_cut_engine, users_environment
from pyrlab import base, build, locks
from servers import Squid, free_port, serve_squid

ROOT = Path(__file__).resolve().parent.parent
TAG = "test"  # of the images that are built here
NAMES = tuple(build.INPUTS)  # of the images, parents first
CHANGED = "changed"  # the tag of the images whose lists were changed
PROJECT = "pyrlab-test"  # prefix of the containers and volumes that are started here

# Fast checks first, so that they fail first; what waits for a clean build, and at last removes it, last.
ORDER = [
    "documentation",
    "layers",
    "lists",
    "locks",
    "r",
    "online",
    "progress",
    "images",
    "contents",
    "labs",
    "notebooks",
    "browser",
    "pdf",
    "build",
    "upgrade",
    "r_packages",
    "reproducible",
    "proxies",
    "clean",
]

Make = Callable[..., "subprocess.CompletedProcess[str]"]


# A background job of a script ignores Ctrl-C and hands that down to what it starts; here some test types it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the modules in ORDER."""

    def place(item: pytest.Item) -> int:
        name = item.path.stem.removeprefix("test_")
        return ORDER.index(name) if name in ORDER else len(ORDER) - 1

    items.sort(key=place)


def docker(*arguments: str) -> str:
    """The output of a docker command that must succeed."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def git(folder: Path, *arguments: str) -> str:
    """The output of a git command that must succeed in `folder`."""
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
    run = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return run.stdout.strip()


def layers(image: str, engine: Callable[..., str] = docker) -> list[str]:
    """The digests of an image's layers, lowest first."""
    found: list[str] = json.loads(engine("image", "inspect", image, "--format", "{{json .RootFS.Layers}}"))
    return found


def build_records(word: str, engine: Callable[..., str] = docker) -> list[str]:
    """The records of the build cache whose description has the word, each beginning with its id."""
    records = re.split(r"^ID:\s+", engine("buildx", "du", "--verbose"), flags=re.MULTILINE)[1:]
    return [record for record in records if word in record]


def copy_checkout(copy: Path) -> Path:
    """Copy this checkout to `copy`, with what has been bootstrapped."""
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", "screenshots", "__pycache__"))
    return copy


def run_make(checkout: Path, *targets: str, **parameters: str | int) -> subprocess.CompletedProcess[str]:
    """Run make in `checkout` as a user would, with the tests' own names; nobody is there to answer questions."""
    settings = {"TAG": TAG, "PROJECT": PROJECT, **{name: str(value) for name, value in parameters.items()}}
    arguments = [f"{name}={value}" for name, value in settings.items()]
    command = ["make", "--no-print-directory", *targets, *arguments]
    return subprocess.run(
        command, cwd=checkout, env=users_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


@dataclass(frozen=True)
class Lab:
    """A running lab."""

    name: str
    container: str
    url: str
    token: str
    files: Path
    port: int
    output: str  # what make printed when it was started


@pytest.fixture(scope="session")
def ports() -> dict[str, int]:
    """Ports for the tests' labs."""
    return {"PORT": free_port(), "RPORT": free_port(), "TBPORT": free_port()}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks folder of the tests' labs: not there yet, make creates it."""
    return tmp_path_factory.mktemp("home") / "notes" / "books"


@pytest.fixture(scope="session")
def make(ports: dict[str, int], files: Path) -> Make:
    """Run make in this checkout with the ports and folder of the tests."""

    def run(*targets: str, **parameters: str | int) -> subprocess.CompletedProcess[str]:
        return run_make(ROOT, *targets, **{**ports, "FILES": str(files), **parameters})

    return run


@pytest.fixture(scope="session")
def debian() -> Path:
    """The Python image as bootstrapped from Debian's archive, also where the images are there without."""
    base.bootstrap()
    return base.ARCHIVE


@pytest.fixture(scope="session")
def images(make: Make, debian: Path) -> str:
    """All four images, built; what make printed."""
    built = make("build")
    assert built.returncode == 0, built.stdout + built.stderr
    return built.stdout


@pytest.fixture(scope="session")
def r_repositories(images: str) -> Path:
    """CRAN-shaped repositories, source and binary, of real packages that are newer than Debian's; made once."""
    script = ROOT / "tests" / "cran.sh"
    folder = ROOT / f".cache/r-repositories-{build.digest(script)}"
    if not folder.exists():
        steps = ["FROM rlab:{}", "USER 0", "COPY cran.sh /", "RUN bash /cran.sh /repositories"]
        steps += ["FROM scratch", "COPY --from=0 /repositories /"]
        command = ["docker", "buildx", "build", "--quiet", f"--output={folder}", "--file=-", str(script.parent)]
        subprocess.run(command, input="\n".join(steps).format(TAG), check=True, text=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def cut(gateway: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cut]:
    """Another engine, with nothing in it, whose network leads to this machine's proxies only."""
    if os.geteuid():
        pytest.skip("a network namespace needs root")
    with run_cut_engine(tmp_path_factory.mktemp("cut"), gateway) as engine:
        yield engine


@pytest.fixture(scope="session")
def squid(gateway: str) -> Iterator[Squid]:
    """A company's proxy: with a password, and looking into TLS with an authority that only CACERT names."""
    with serve_squid(gateway) as proxy:
        yield proxy


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
    with run_caches(functools.partial(run_make, checkout), PROJECT, gateway, **company) as running:
        yield running


@contextmanager
def tagged(tag: str) -> Iterator[None]:
    """The images under another tag, too, so that a test can rebuild them."""
    for name in NAMES:
        docker("tag", f"{name}:{TAG}", f"{name}:{tag}")
    try:
        yield
    finally:
        for name in reversed(NAMES):
            subprocess.run(["docker", "image", "rm", f"{name}:{tag}"], capture_output=True)


def forge(checkout: Path, name: str, package: str) -> None:
    """Let the lock `name` of a checkout have other checksums for a package than its files have."""
    lock = locks.Lock.read(checkout, name)
    block = re.search(rf"^{package}\b.*\n( .*\n)*", lock.content, re.MULTILINE)
    assert block
    forged = lock.content.replace(block[0], re.sub(r"\b[0-9a-f]{64}\b", "0" * 64, block[0]))
    assert forged != lock.content
    locks.Lock(lock.name, lock.inputs, lock.python, forged).write(checkout)


@pytest.fixture(scope="session")
def changed(images: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout with a package more in each list, and a large one bumped: built upon what is cached."""
    checkout = copy_checkout(tmp_path_factory.mktemp("changed") / "pyrlab")
    for path, package in (("base_debs.txt", "tree"), ("r_packages.txt", "docopt"), ("requirements.txt", "cowsay")):
        (checkout / path).write_text((checkout / path).read_text() + f"{package}\n")
    version = docker("run", "--rm", f"pylab:{TAG}", "python", "-c", "import duckdb; print(duckdb.__version__)")
    requirements = (checkout / "requirements.txt").read_text()
    assert "\nduckdb\n" in requirements
    (checkout / "requirements.txt").write_text(requirements.replace("\nduckdb\n", f"\nduckdb<{version}\n"))
    with tagged(CHANGED):
        built = run_make(checkout, "build", TAG=CHANGED)
        assert built.returncode == 0, built.stdout + built.stderr
        yield checkout


@dataclass(frozen=True)
class Clean:
    """The images of the changed lists, built from nothing on another engine."""

    engine: Cut
    checkout: Path
    parameters: dict[str, str]  # of the proxies
    said: str  # what make printed, and the log


@pytest.fixture(scope="session")
def clean_begun(
    changed: Path, cut: Cut, caches: Caches, company: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[Clean]]:
    """The build of `clean`, running."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "somebody-elses-pyrlab"
    shutil.copytree(changed, elsewhere, ignore=shutil.ignore_patterns(".cache"))
    parameters = {**company, **caches.parameters}

    def run() -> Clean:
        built = cut.make(elsewhere, "clean", "build", TAG=CHANGED, **parameters)
        assert built.returncode == 0, built.stdout + built.stderr
        said = built.stdout + built.stderr + (elsewhere / ".cache/build.log").read_text()
        return Clean(cut, elsewhere, parameters, said)

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run)


@pytest.fixture(scope="session")
def clean(clean_begun: Future[Clean]) -> Clean:
    """The changed lists from nothing: on another engine, in another folder, at another time, through caches only."""
    return clean_begun.result()


@pytest.fixture(autouse=True)
def begin_clean(request: pytest.FixtureRequest) -> None:
    """Let the clean build, which takes minutes, run beside the tests that come before those which wait for it."""
    if "images" in request.fixturenames and any(
        "clean" in getattr(item, "fixturenames", ()) for item in request.session.items
    ):
        request.getfixturevalue("clean_begun")


@pytest.fixture(scope="session")
def gateway() -> str:
    """The address at which builds and labs find this machine."""
    return docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")


def start(lab: str, make: Make, files: Path, port: int) -> Iterator[Lab]:
    """Start `lab` with make, and remove its container and volume afterwards."""
    started = make(f"start_{lab}")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        url = make(f"url_{lab}").stdout.strip()
        address, _, token = url.partition("lab?token=")
        yield Lab(lab, f"{PROJECT}-{lab}", address, token, files, port, started.stdout)
    finally:
        make(f"stop_{lab}")
        subprocess.run(["docker", "rm", "--force", "--volumes", f"{PROJECT}-{lab}"], capture_output=True)
        subprocess.run(["docker", "volume", "rm", f"{PROJECT}_{lab}-home"], capture_output=True)
        subprocess.run(["docker", "network", "rm", f"{PROJECT}_default"], capture_output=True)  # after the last lab


@pytest.fixture(scope="session")
def pylab(images: str, make: Make, files: Path, ports: dict[str, int]) -> Iterator[Lab]:
    """A running pylab."""
    yield from start("pylab", make, files, ports["PORT"])


@pytest.fixture(scope="session")
def rlab(images: str, make: Make, files: Path, ports: dict[str, int]) -> Iterator[Lab]:
    """A running rlab."""
    yield from start("rlab", make, files, ports["RPORT"])


@pytest.fixture(params=["pylab", "rlab"])
def name(request: pytest.FixtureRequest) -> str:
    """The lab's name."""
    return str(request.param)


@pytest.fixture
def lab(name: str, request: pytest.FixtureRequest) -> Lab:
    """The running lab of that name."""
    running: Lab = request.getfixturevalue(name)
    return running


@pytest.fixture
def checkout(tmp_path: Path, debian: Path) -> Path:
    """A copy of this checkout whose lists a test may change."""
    return copy_checkout(tmp_path / "pyrlab")
