"""Measure pyrlab beside the plain way to build the same images, and beside no images at all (make bench).

bench.py [RUNS]      writes RESULTS.md, results.json and results.svg beside this file

pyrlab   make build, in a copy of this checkout
plain    the Dockerfiles of plain/: chained, pip install --no-cache-dir, one docker build after another
floor    apt-get install and uv pip install from warm caches in a chroot: no image, no isolation

All three install the same lists onto the same bootstrapped Debian. What the network does to one it does to
the others, in turns. Needs root, for the chroot, and half an hour a run.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import date
from pathlib import Path
from urllib.request import urlopen

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from checkout import CHECKOUT, NAMES, ROOT
from pyrlab.host import base, locks
from pyrlab.host.clean import forget_builds
from pyrlab.model.checkout import stripped
from remote import execute
from servers import free_port, serve_registry

HERE = Path(__file__).resolve().parent
TAG = "bench"
ARCHIVE = base.archive(CHECKOUT)
docker = CHECKOUT.engine.run
BOTH = "pull of pyrlab, where pylab and rlab are there, MB"
BUMPED = "duckdb"  # a large package without dependencies
VERSION = locks.Lock.read(CHECKOUT.table, ROOT, "requirements").versions()["Python", BUMPED]
CHANGES = (  # one upon the other: what is done, the list, what there gives way to what, the lab, the tag of its image
    ("one small package added", "requirements.txt", r"\Z", "cowsay\n", "pylab", "added"),
    ("one large package bumped", "requirements.txt", f"{BUMPED}<.*", f"{BUMPED}=={VERSION}", "pylab", "bumped"),
    ("one R package of Debian's added", "r_packages.txt", r"\Z", "docopt\n", "rlab", "docopt"),
    ("one Debian package added", "base_debs.txt", r"\Z", "tree\n", "pylab", "tree"),
)
STARTS = 3  # of a lab in each run: they take seconds, and a moment's load on the machine counts most there
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

Samples = dict[str, dict[str, list[float]]]  # work → way → one value a run
Identical = dict[str, tuple[int, int]]  # way → how many of its layers were the same in all clean builds, of how many


def seconds(action: Callable[[], object]) -> float:
    """How long `action` takes."""
    started = time.monotonic()
    action()
    return time.monotonic() - started


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    """Run a command that must succeed; what it says is shown if it does not."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"bench: {' '.join(map(str, command))} failed\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


class Images:
    """A way whose result is images."""

    called: str  # in the engine's store, by name

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout

    def image(self, name: str) -> str:
        """The name of an image in the engine's store."""
        return self.called.format(name)

    @contextmanager
    def lab(self, port: int) -> Iterator[None]:
        """Start pylab with docker run, as the image itself starts it."""
        options = ["--detach", "--rm", f"--publish=127.0.0.1:{port}:8888", "--env=JUPYTER_TOKEN=bench"]
        container = docker("run", *options, self.image("pylab")).strip()
        try:
            yield
        finally:
            docker("rm", "--force", container)


class Pyrlab(Images):
    """make, as a user types it."""

    called = f"{{}}:{TAG}"

    def make(self, target: str) -> None:
        """Type make."""
        run("make", target, f"TAG={TAG}", f"PROJECT=pyrlab-{TAG}", "BASE=debian", cwd=self.checkout)

    def forget(self) -> None:
        """Remove the images and the build cache, other checkouts' too, but not what both start from."""
        self.make("clean")
        forget_builds(CHECKOUT.engine)
        base.bootstrap(CHECKOUT)
        (self.checkout / ".cache").mkdir(exist_ok=True)
        shutil.copy2(ARCHIVE, self.checkout / ".cache")

    def build(self) -> None:
        """Build what is necessary."""
        self.make("build")


class Plain(Images):
    """docker build, image after image."""

    called = "plain-{}"
    options: tuple[str, ...] = ()

    def forget(self) -> None:
        """Remove the images, and let the next build use no cache."""
        docker("image", "rm", "--force", *map(self.image, NAMES), check=False)
        self.options = ("--no-cache",)

    def build(self) -> None:
        """Build all images, as docker's own cache allows."""
        secret = f"id=ca,src={CERTIFICATES}"
        for name in NAMES:
            dockerfile = HERE / "plain" / name / "Dockerfile"
            # Without provenance, whose time stamp would make every build of a parent a new one to its children.
            command = ["docker", "build", "--provenance=false", *self.options, "--secret", secret]
            run(*command, "--tag", self.image(name), "--file", dockerfile, ".", cwd=self.checkout)
        self.options = ()


class Floor:
    """The same packages in a chroot."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.checkout, self.root, self.caches = checkout, folder / "root", folder / "caches"

    def chroot(self, *command: str) -> list[str]:
        """The command that runs `command` in the chroot."""
        variables = ["PATH=/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root"]
        variables += ["DEBIAN_FRONTEND=noninteractive", "UV_CACHE_DIR=/caches/uv", "UV_PYTHON=/opt/venv"]
        return ["chroot", str(self.root), "env", "-i", *variables, f"SSL_CERT_FILE={CERTIFICATES}", *command]

    def forget(self) -> None:
        """Start from the bare system again, with the caches."""
        self.close()
        self.root.mkdir(parents=True)
        run("tar", "xf", ARCHIVE, "-C", self.root)
        if self.caches.exists():
            self.caches.rename(self.root / "caches")
        (self.root / "caches/apt/archives/partial").mkdir(parents=True, exist_ok=True)
        for place in ("proc", "dev"):
            run("mount", "--bind", f"/{place}", self.root / place)
        shutil.copy("/etc/resolv.conf", self.root / "etc/resolv.conf")
        shutil.copy(Path(sys.executable).parent / "uv", self.root / "usr/bin/uv")

    def build(self) -> None:
        """Install what the lists say; what is there already is left alone."""
        debs = [*names(ROOT / "docker/pyrlab-base/debs.txt"), *names(self.checkout / "base_debs.txt")]
        debs += names(self.checkout / "r_debs.txt")
        debs += [f"r-cran-{name.lower()}" for name in names(self.checkout / "r_packages.txt")]
        if not (self.root / "opt/venv").exists():
            run(*self.chroot("apt-get", "-q=2", "update"))
            keep = ["Binary::apt-get::APT::Keep-Downloaded-Packages=true", "Dir::Cache=/caches/apt"]
            options = ["-y", "--no-install-recommends", *(f"--option={option}" for option in keep)]
            run(*self.chroot("apt-get", "-q=2", "install", *options, *debs))
            shutil.copy(CERTIFICATES, self.root / CERTIFICATES[1:])
            run(*self.chroot("uv", "venv", "--quiet", "--python", "/usr/bin/python3", "/opt/venv"))
        for source in (ROOT / "docker/pyrlab-base/jupyter.txt", self.checkout / "requirements.txt"):
            shutil.copy(source, self.root / "tmp")
        lists = ["-r", "/tmp/jupyter.txt", "-r", "/tmp/requirements.txt"]
        run(*self.chroot("uv", "pip", "install", "--quiet", "--compile-bytecode", "--link-mode=copy", *lists))

    @contextmanager
    def lab(self, port: int) -> Iterator[None]:
        """Start jupyter lab in the chroot."""
        command = ["jupyter", "lab", "--allow-root", "--no-browser", f"--port={port}", "--IdentityProvider.token=bench"]
        with subprocess.Popen(self.chroot(*command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield
            finally:
                process.terminate()

    def close(self) -> None:
        """Remove the system, but for the caches; nothing stays mounted."""
        for place in ("proc", "dev"):
            if os.path.ismount(self.root / place):
                run("umount", self.root / place)
        if (self.root / "caches").exists():
            (self.root / "caches").rename(self.caches)
        shutil.rmtree(self.root, ignore_errors=True)


def names(path: Path) -> list[str]:
    """The packages of a list."""
    return stripped(path.read_text())


class Registry:
    """A real registry on this machine, and a puller that keeps what it has fetched."""

    def __init__(self, address: str, log: Path, store: Path) -> None:
        self.address, self.log, self.store = address, log, store

    def push(self, image: str, name: str) -> None:
        """Push an image of the engine's store as `name`, as in pyrlab/rlab:clean."""
        docker("tag", image, f"{self.address}/{name}")
        docker("push", "--quiet", f"{self.address}/{name}")
        docker("image", "rm", f"{self.address}/{name}")

    def pulled(self, name: str) -> float:
        """Pull `name` into the puller's store of that way; the megabytes that the registry sent."""
        self.store.mkdir(exist_ok=True)
        before = len(self.log.read_text())
        way, _, image = name.partition("/")
        target = f"oci:{self.store / way}:{image.replace(':', '-')}"
        run("skopeo", "copy", "--src-tls-verify=false", f"docker://{self.address}/{name}", target)
        sent = 0
        for line in self.log.read_text()[before:].splitlines():
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("msg") == "response completed" and entry.get("http.request.method") == "GET":
                sent += int(entry["http.response.written"])
        return sent / 1e6


def sizes(image: str) -> tuple[float, float]:
    """Unpacked and compressed megabytes of an image."""
    unpacked = sum(map(int, docker("history", "--human=false", "--format={{.Size}}", image).split()))
    compressed = int(docker("image", "inspect", "--format={{.Size}}", image))
    return unpacked / 1e6, compressed / 1e6


def layers(image: str) -> list[str]:
    """The digests of the layers of an image."""
    found: list[str] = (CHECKOUT.engine.inspect("image", image) or {})["RootFS"]["Layers"]
    return found


def wait(url: str) -> None:
    """Return as soon as a Jupyter server answers."""
    deadline = time.monotonic() + 120
    while True:
        try:
            urlopen(url, timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def first_answer(lab: Callable[[int], AbstractContextManager[None]]) -> tuple[float, float]:
    """Seconds until the JupyterLab that `lab` starts on a port answers, and until its first cell is executed."""
    port = free_port()
    started = time.monotonic()
    with lab(port):
        wait(f"http://127.0.0.1:{port}/api?token=bench")
        answered = time.monotonic() - started
        cell = new_notebook(cells=[new_code_cell("print(6 * 7)")])  # type: ignore[no-untyped-call]
        done = execute(nbformat.from_dict(cell), f"http://127.0.0.1:{port}/", "bench", kernel="python3")  # type: ignore[no-untyped-call]
        assert done.cells[0].outputs[0].text == "42\n", done.cells[0].outputs
        return answered, time.monotonic() - started


def remove(folder: Path) -> None:
    """Remove a folder, but first what a bench that was killed has left mounted there: the machine's own /dev."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        if (place := line.split()[1]).startswith(f"{folder}/"):
            run("umount", "--lazy", place)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for everything that the bench makes, gone afterwards as are its images."""
    folder = Path("/var/tmp/pyrlab-bench")
    remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        Pyrlab(folder / "pyrlab").make("clean")
        for image in (*map(Plain.called.format, reversed(NAMES)), "pyrlab-debian"):
            docker("image", "rm", "--force", image, check=False)
        remove(folder)


def note(samples: Samples, work: str, way: str, value: float) -> None:
    """Keep one figure, and show it."""
    samples.setdefault(work, {}).setdefault(way, []).append(value)
    print(f"{work:<52} {way:<7} {value:8.2f}", flush=True)


def measure_images(samples: Samples, ways: dict[str, Pyrlab | Plain | Floor]) -> None:
    """How large the images are, and how fast their labs start."""
    for name in NAMES:
        for way, subject in ways.items():
            if isinstance(subject, Images):
                unpacked, compressed = sizes(subject.image(name))
                note(samples, f"{name} unpacked, MB", way, unpacked)
                note(samples, f"{name} compressed, MB", way, compressed)
    for turn in range(1 + STARTS):  # the first start brings the files into memory
        for way, subject in ways.items():
            os.sync()  # a disk that still takes in what was built or removed would be measured, too
            answered, executed = first_answer(subject.lab)
            if turn:
                note(samples, "from start to an answering JupyterLab, s", way, answered)
                note(samples, "from start to the first executed cell, s", way, executed)


def measure_pulls(samples: Samples, registry: Registry, way: str) -> None:
    """How much a puller fetches, who begins with nothing."""
    shutil.rmtree(registry.store / way, ignore_errors=True)
    for work, name in (
        ("first pull of pylab", "pylab:clean"),
        ("pull after one small package added", "pylab:added"),
        ("pull after one large package bumped", "pylab:bumped"),
        ("pull after one Debian package added", "pylab:tree"),
        ("first pull of rlab besides", "rlab:clean"),
        ("pull after one R package added", "rlab:docopt"),
    ):
        note(samples, f"{work}, MB", way, registry.pulled(f"{way}/{name}"))


def measure(runs: int, folder: Path) -> tuple[Samples, Identical]:
    """Every work in every way, `runs` times in turns."""
    samples: Samples = {}
    checkout = folder / "pyrlab"
    ignored = shutil.ignore_patterns(".venv", ".git", ".cache", "__pycache__", "screenshots")
    shutil.copytree(ROOT, checkout, ignore=ignored)
    base.bootstrap(CHECKOUT)
    run("docker", "import", ARCHIVE, "pyrlab-debian")
    lists = {path: (checkout / path).read_text() for _, path, *_ in CHANGES}
    lists["requirements.txt"] = re.sub(f"(?m)^{BUMPED}$", f"{BUMPED}<{VERSION}", lists["requirements.txt"])

    def write_lists() -> None:
        for path, text in lists.items():
            (checkout / path).write_text(text)

    write_lists()
    with (
        closing(Floor(checkout, folder / "floor")) as floor,
        serve_registry(folder / "registry") as (address, log),
    ):
        floor.forget()
        floor.build()  # fills its caches
        registry = Registry(address, log, folder / "puller")
        ways: dict[str, Pyrlab | Plain | Floor] = {"pyrlab": Pyrlab(checkout), "plain": Plain(checkout), "floor": floor}
        clean: dict[str, list[list[str]]] = {way: [] for way in ways}  # the layers of each clean build
        for _ in range(runs):
            for way, subject in ways.items():
                write_lists()
                subject.forget()
                note(samples, "clean build of all four images, s", way, seconds(subject.build))
                if isinstance(subject, Images):
                    clean[way].append([layer for name in NAMES for layer in layers(subject.image(name))])
                    for lab in ("pylab", "rlab"):
                        registry.push(subject.image(lab), f"{way}/{lab}:clean")
                note(samples, "nothing changed, s", way, seconds(subject.build))
                for work, path, old, new, lab, tag in CHANGES:
                    if isinstance(subject, Images) or path == "requirements.txt":
                        text = (checkout / path).read_text()
                        (checkout / path).write_text(re.sub(old, new, text, count=1))
                        note(samples, f"{work}, s", way, seconds(subject.build))
                    if isinstance(subject, Images):
                        registry.push(subject.image(lab), f"{way}/{lab}:{tag}")
                if isinstance(subject, Images):
                    measure_pulls(samples, registry, way)
                if isinstance(subject, Pyrlab):
                    write_lists()
                    subject.build()
                    subject.make("build_pyrlab")
                    registry.push(subject.image("pyrlab"), f"{way}/pyrlab:clean")
                    note(samples, BOTH, way, registry.pulled(f"{way}/pyrlab:clean"))
            measure_images(samples, ways)
    same = {way: [len({*layer}) == 1 for layer in zip(*builds, strict=True)] for way, builds in clean.items() if builds}
    return samples, {way: (sum(each), len(each)) for way, each in same.items()}


COLOURS = {"pyrlab": "#2563eb", "plain": "#cbd5e1", "floor": "#94a3b8"}
BARS = {  # ratios to the plain way, or to the floor where a bar says so; of pyrlab alone a figure
    "clean build of all four images, s": ("plain", 0.22),
    "one small package added, s": ("plain", 0.02),
    "one R package of Debian's added, s": ("plain", 0.06),
    "one Debian package added, s": ("plain", 0.15),
    "nothing changed, s": ("", 0.5),
    "pull after one small package added, MB": ("plain", 0.01),
    "pull after one Debian package added, MB": ("plain", 0.01),
    "pull after one R package added, MB": ("plain", 0.01),
    BOTH: ("", 1),
    "pylab unpacked, MB": ("plain", 0.9),
    "rlab unpacked, MB": ("plain", 0.9),
    "from start to an answering JupyterLab, s": ("floor", 1.25),
}


def machine() -> str:
    """What the figures were measured on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    engine = docker("version", "--format", "{{.Server.Version}}").strip()
    buildx = docker("buildx", "version").split()[1]
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    return (
        f"{model[1] if model else platform.machine()}, {os.cpu_count()} processors, {memory:.0f} GB of memory; "
        f"{system}, Linux {platform.release()}; engine {engine}, Buildx {buildx}, Python {platform.python_version()}"
    )


def report(samples: Samples, identical: Identical, runs: int) -> str:
    """RESULTS.md."""
    lines = [
        "# What pyrlab costs, measured",
        "",
        f"{f'Medians of {runs} runs' if runs > 1 else 'One run'}, written by `make bench` on {date.today()}.",
        f"{machine()}.",
        "",
        "* **pyrlab**: `make build`.",
        "* **plain**: [chained Dockerfiles](plain), `pip install --no-cache-dir`, one `docker build` after another.",
        "* **floor**: `apt-get install` and `uv pip install` from warm caches in a chroot; no image at all.",
        "",
        "All three install the same lists onto the same Debian, in turns over the same network; only the floor's",
        "downloads are cached, pyrlab and plain fetch theirs anew for each clean build.",
        "",
        "![The medians as bars](results.svg)",
        "",
        "| work | pyrlab | plain | floor | ratio | bar |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for work, ways in samples.items():
        medians = {way: statistics.median(values) for way, values in ways.items()}
        cells = [f"{medians[way]:,.1f}" if way in medians else "" for way in ("pyrlab", "plain", "floor")]
        other, bar = BARS.get(work, ("plain", None))
        ratio = f"{medians['pyrlab'] / medians[other]:.3f} of {other}" if other in medians else ""
        unit = "" if other else f" {work.rpartition(', ')[2]}"
        lines.append(f"| {work} | {' | '.join(cells)} | {ratio} | {f'≤ {bar}{unit}' if bar else ''} |")
    same = {way: "{} of {}".format(*numbers) for way, numbers in identical.items()}
    lines.append(f"| identical layers of clean builds | {same['pyrlab']} | {same['plain']} | | | all |")
    return "\n".join(lines) + "\n"


def picture(samples: Samples) -> str:
    """The medians as bars, a panel a work, in SVG."""
    shown = [work for work in samples if "compressed" not in work and "base" not in work]
    found = ['<rect width="100%" height="100%" fill="white"/>']
    for number, work in enumerate(shown):
        left, top = number % 3 * 310 + 10, number // 3 * 85 + 20
        title, _, unit = work.rpartition(", ")
        found.append(f'<text x="{left}" y="{top}" font-weight="bold">{title}</text>')
        medians = {way: statistics.median(values) for way, values in samples[work].items()}
        for line, (way, value) in enumerate(medians.items(), start=1):
            y, length = top + 18 * line, 150 * value / max(medians.values())
            found += [
                f'<text x="{left + 40}" y="{y}" text-anchor="end">{way}</text>',
                f'<rect x="{left + 45}" y="{y - 11}" width="{length:.1f}" height="14" fill="{COLOURS[way]}"/>',
                f'<text x="{left + length + 50:.1f}" y="{y}">{value:,.1f} {unit}</text>',
            ]
    size = f'width="930" height="{-(-len(shown) // 3) * 85 + 10}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return "\n".join([head, *found, "</svg>"]) + "\n"


def main() -> None:
    """Measure and write."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    if os.geteuid():
        sys.exit("bench: the chroot that pyrlab is compared with needs root; run make bench as root")
    with workplace() as folder:
        samples, identical = measure(runs, folder)
        results = {"runs": runs, "samples": samples, "identical layers": identical}
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "results.svg").write_text(picture(samples))
        (HERE / "RESULTS.md").write_text(report(samples, identical, runs))


if __name__ == "__main__":
    main()
