"""R packages that Debian lacks, built into rlab from real repositories and installed in a running lab."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from checkout import PROJECT, TINY, copy_checkout, docker, forge, layers, run_make, tagged
from remote import execute
from servers import WebServer, free_port, serve_files

OWN = f"{TINY}-r-packages"  # the tag of images that these tests rebuild, and the end of their labs' names
AGENT = "R/4.5.0 R (4.5.0 x86_64-pc-linux-gnu x86_64 linux-gnu)"
LISTED = ["IRkernel", "glue>=99", "zoo@99.1"]


@pytest.fixture(scope="module")
def source(r_repositories: Path, gateway: str) -> Iterator[WebServer]:
    """A repository of sources, as CRAN is."""
    with serve_files(r_repositories / "source", gateway) as server:
        yield server


@pytest.fixture(scope="module")
def binary(r_repositories: Path, gateway: str) -> Iterator[WebServer]:
    """A repository of binaries for this R and system, as Package Manager is; only the address differs."""
    with serve_files(r_repositories / "binary", gateway) as server:
        yield server


@pytest.fixture(scope="module")
def checkout(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout whose r_packages.txt a test may write, with the images under a tag of their own."""
    with tagged(OWN):
        yield copy_checkout(tmp_path_factory.mktemp("r") / "pyrlab", tiny)


def build(checkout: Path, server: WebServer, *lines: str) -> subprocess.CompletedProcess[str]:
    """Build rlab with these lines as r_packages.txt."""
    (checkout / "r_packages.txt").write_text("".join(f"{line}\n" for line in lines))
    return run_make(checkout, "build_rlab", TAG=OWN, CRAN=server.url)


def in_rlab(command: str) -> str:
    """What a shell command prints in the rlab that was built."""
    return docker("run", "--rm", f"rlab:{OWN}", "sh", "-c", command)


FORGET = """
FROM pyrlab-base:{}
USER 0
ARG NOW
RUN --mount=type=cache,id=pyrlab,target=/opt,sharing=locked \\
    grep -lE '"ecosystem": "R", .*"version": "99[.]1"' /opt/pieces/r-*.json | sed 's/[.]json$//' | xargs -r rm -f
"""


def forget_compiled() -> None:
    """Let what was compiled before, by another run perhaps, be compiled again."""
    # With --no-cache, BuildKit would empty the mount first.
    command = ["docker", "buildx", "build", "--quiet", f"--build-arg=NOW={time.time()}", "--output=type=cacheonly", "-"]
    subprocess.run(command, input=FORGET.format(TINY), check=True, text=True, capture_output=True)


VERSIONS = """Rscript -e 'cat(sprintf("%s %s", c("glue", "zoo"), c(packageVersion("glue"), packageVersion("zoo"))))'"""


def test_compiled_from_source(checkout: Path, source: WebServer) -> None:
    """What Debian has not in this version is compiled from source, stripped, and no compiler stays.

    Compiled again, elsewhere and in another order, it has the same bytes; with another package beside it, it is not.
    """
    forget_compiled()
    built = build(checkout, source, *LISTED)
    assert built.returncode == 0, built.stderr
    assert in_rlab(VERSIONS) == "glue 99.1 zoo 99.1"
    assert in_rlab("ls /usr/local/lib/R/site-library").split() == ["glue", "zoo"]  # lattice is Debian's
    assert in_rlab("command -v gcc cc g++ gfortran || echo none") == "none"
    library = "/usr/local/lib/R/site-library/glue/libs/glue.so"
    assert ".debug_info" not in in_rlab(f'python -c \'print(open("{library}", "rb").read())\'')
    assert compiled(checkout)
    assert source.agents == {AGENT}
    for name, version, line, text in (("glue", "1.8.0", 2, "glue>=99"), ("zoo", "1.8-14", 3, "zoo@99.1")):
        note = f"pyrlab: {name} 99.1 stands before Debian's {version}, as r_packages.txt line {line} wants '{text}'"
        assert note in built.stderr.splitlines()

    before = layers(f"rlab:{OWN}")
    forget_compiled()
    docker("image", "rm", f"rlab:{OWN}")  # which the same lock would leave alone
    assert build(checkout, source, *reversed(LISTED)).returncode == 0
    assert compiled(checkout)
    assert layers(f"rlab:{OWN}") == before

    built = build(checkout, source, *LISTED, "docopt>=99")
    assert built.returncode == 0, built.stderr
    assert not compiled(checkout)  # docopt has nothing to compile
    assert in_rlab("ls /usr/local/lib/R/site-library").split() == ["docopt", "glue", "zoo"]
    assert in_rlab(VERSIONS) == "glue 99.1 zoo 99.1"


def compiled(checkout: Path) -> bool:
    """Whether the last build has compiled anything, or got ready to."""
    return "Setting up r-base-dev" in (checkout / ".cache/build.log").read_text()


def test_binaries(checkout: Path, binary: WebServer, tmp_path: Path) -> None:
    """Where the repository has binaries nothing is compiled, and R's user agent says for what system they must be.

    install.packages() in a notebook takes several packages from there, and they survive a restart of the lab.
    """
    built = build(checkout, binary, *LISTED)
    assert built.returncode == 0, built.stderr
    assert in_rlab(VERSIONS) == "glue 99.1 zoo 99.1"
    assert not compiled(checkout)
    assert binary.agents == {AGENT}

    settings: dict[str, str | int] = {"TAG": OWN, "PROJECT": f"{PROJECT}-{OWN}", "FILES": str(tmp_path / "books")}
    settings |= {"CRAN": binary.url, "RPORT": free_port(), "PORT": free_port(), "TBPORT": free_port()}

    def make(target: str) -> str:
        made = run_make(checkout, target, **settings)
        assert made.returncode == 0, made.stderr
        return made.stdout

    def run(code: str) -> str:
        url, _, token = make("url_rlab").strip().partition("lab?token=")
        cell = new_code_cell(code)  # type: ignore[no-untyped-call]
        done = execute(new_notebook(cells=[cell]), url, token, kernel="ir")  # type: ignore[no-untyped-call]
        return "".join(output.get("text", "") for output in done.cells[0].outputs)

    try:
        make("start_rlab")
        run('install.packages(c("glue", "zoo"))')
        where = 'cat(dirname(find.package(c("glue", "zoo"))), getOption("Ncpus") == parallel::detectCores())'
        library = "/home/jovyan/R/x86_64-pc-linux-gnu-library/4.5"
        assert run(where) == f"{library} {library} TRUE"
        make("stop_rlab")
        make("start_rlab")
        assert run('library(glue); cat(glue("{1 + 1}"), format(packageVersion("glue")))') == "2 99.1"
    finally:
        subprocess.run(["docker", "rm", "--force", f"{PROJECT}-{OWN}-rlab"], capture_output=True)
        for kind, name in (("volume", "_rlab-home"), ("volume", "_pylab-home"), ("network", "_default")):
            subprocess.run(["docker", kind, "rm", f"{PROJECT}-{OWN}{name}"], capture_output=True)


def refused(checkout: Path, source: WebServer, line: str) -> tuple[str, str]:
    """What pyrlab says of a line that cannot be had, and all that was printed; the image stays what it was."""
    before = docker("image", "inspect", f"rlab:{OWN}", "--format", "{{.Id}}")
    built = build(checkout, source, "IRkernel", line)
    assert built.returncode != 0
    assert docker("image", "inspect", f"rlab:{OWN}", "--format", "{{.Id}}") == before
    return [said for said in built.stderr.splitlines() if said.startswith("pyrlab: ")][-1], built.stderr


def test_failures_are_loud(checkout: Path, source: WebServer) -> None:
    """What cannot be had stops the build with the line, and of a compiler with its last words."""
    said, words = refused(checkout, source, "bitops>=99")
    assert said == "pyrlab: r_packages.txt line 2: bitops 99.1 could not be installed; R's own words stand above"
    assert "unknown type name" in words


def test_missing_library(checkout: Path, binary: WebServer) -> None:
    """A binary whose system library no list names stops the build, which says what to add."""
    built = build(checkout, binary, "IRkernel", "bitops>=97")
    assert built.returncode != 0
    assert built.stderr.splitlines()[-2] == (  # before make's own
        "pyrlab: r_packages.txt line 2: R cannot load the package 'bitops', for want of the library libglpk.so.40: "
        "add its Debian package, libglpk40 by Debian's naming, to r_debs.txt"
    )


def test_another_archive_than_locked(checkout: Path, source: WebServer) -> None:
    """What the repository serves in the place of what was locked does not get into an image."""
    (checkout / "r_packages.txt").write_text("IRkernel\ndocopt>=99\n")
    locked = run_make(checkout, "lock", TAG=OWN, CRAN=source.url)
    assert locked.returncode == 0, locked.stderr
    forge(checkout, "r_packages", "docopt")
    built = run_make(checkout, "build_rlab", TAG=OWN, CRAN=source.url)
    assert built.returncode != 0
    said = [said for said in built.stderr.splitlines() if said.startswith("pyrlab: ")]
    what = f"docopt 99.1 from {source.url}/src/contrib/docopt_99.1.tar.gz is not what r_packages.lock has"
    assert said == [f"pyrlab: r_packages.txt line 2: {what}; if it is to be trusted, type make upgrade P=docopt"]


def test_headers_of_the_lists(checkout: Path, source: WebServer) -> None:
    """What r_debs.txt names is there where R packages are compiled, and what it names no more is not."""
    listed = checkout / "r_debs.txt"  # of rlab-base, which is built anew: no other test is to build upon it
    before = listed.read_text()
    listed.write_text(f"{before}libglpk-dev\n")
    try:
        built = build(checkout, source, "IRkernel", "bitops@98.1")
        assert built.returncode == 0, built.stderr
        assert in_rlab("Rscript -e 'cat(bitops::bitAnd(12, 10))'") == "8"
    finally:
        listed.write_text(before)
    said, words = refused(checkout, source, "bitops@98.1")
    assert said == (
        "pyrlab: r_packages.txt line 2: bitops 98.1 could not be installed, for want of the header glpk.h: add the "
        "Debian package that has it to r_debs.txt; R's own words stand above"
    )
    assert "compilation failed for package" in words
