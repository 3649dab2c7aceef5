"""R packages that Debian lacks, built into rlab from a real repository of binaries and installed in a running lab."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nbformat.v4 import new_code_cell, new_notebook

from checkout import PROJECT, TINY, copy_checkout, docker, forge, remove_lab, run_make, succeeded, tagged
from remote import execute
from rlab import AGENT, LISTED, VERSIONS, RlabBuilds, in_cache
from servers import WebServer, free_ports

OWN = f"{PROJECT}-r"  # prefix of the labs


def test_binaries(rlab_builds: RlabBuilds, binaries: WebServer, tmp_path: Path) -> None:
    """Where the repository has binaries nothing is compiled, and R's user agent says for what system they must be.

    install.packages() in a notebook takes several packages from there, and they survive a restart of the lab.
    A password in the repository's address is in nothing that the build leaves behind.
    """
    in_cache("rm -rf /opt/r")  # what R has told in another run
    private = replace(binaries, url=binaries.url.replace("//", "//reader:canary@"))
    built = rlab_builds.build(private, *LISTED)
    assert built.returncode == 0, built.stderr
    in_cache("test -d /opt/r && ! find /opt -type f -mmin -60 -size -1000k -exec grep -l canary {} + | grep .")
    assert "canary" not in built.stderr + (rlab_builds.checkout / ".cache/build.log").read_text()
    assert rlab_builds.says(VERSIONS) == "glue 99.1 zoo 99.1"
    assert not rlab_builds.compiled
    assert binaries.agents == {AGENT}

    settings: dict[str, str | int] = {"TAG": rlab_builds.tag, "PROJECT": OWN, "FILES": str(tmp_path / "books")}
    settings |= {"CRAN": private.url, **free_ports()}

    def make(target: str) -> str:
        made = run_make(rlab_builds.checkout, target, **settings)
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
        remove_lab("rlab", OWN)


def test_missing_library(rlab_builds: RlabBuilds, binaries: WebServer) -> None:
    """A binary whose system library no list names stops the build, which says what to add."""
    built = rlab_builds.build(binaries, "IRkernel", "bitops>=97")
    assert built.returncode != 0
    assert built.stderr.splitlines()[-2] == (  # before make's own
        "pyrlab: r_packages.txt line 2: R cannot load the package 'bitops', for want of the library libglpk.so.40: "
        "add its Debian package, libglpk40 by Debian's naming, to r_debs.txt"
    )


def test_another_archive_than_locked(rlab_builds: RlabBuilds, cran: WebServer) -> None:
    """What the repository serves in the place of what was locked does not get into an image."""
    lines = ("IRkernel", "docopt>=99")
    locked = rlab_builds.make("lock", cran, *lines)
    assert locked.returncode == 0, locked.stderr
    forge(rlab_builds.checkout, "r_packages", "docopt")
    built = rlab_builds.build(cran, *lines)
    assert built.returncode != 0
    said = [said for said in built.stderr.splitlines() if said.startswith("pyrlab: ")]
    what = f"docopt 99.1 from {cran.url}/src/contrib/docopt_99.1.tar.gz is not what r_packages.lock has"
    assert said == [f"pyrlab: r_packages.txt line 2: {what}; if it is to be trusted, type make upgrade P=docopt"]


def test_r_is_asked_where_it_is(tiny: Path, tmp_path: Path) -> None:
    """Whose list of R packages changes for the first time waits for no R to be installed: a build has asked its own."""
    checkout, tag = copy_checkout(tmp_path / "pyrlab", tiny), f"{TINY}-told"
    with tagged(tag):
        in_cache("rm -rf /opt/r")
        docker("image", "rm", f"rlab:{tag}")
        succeeded(run_make(checkout, "build", TAG=tag, BASE="debian"))
        in_cache("ls /opt/r | grep .")
