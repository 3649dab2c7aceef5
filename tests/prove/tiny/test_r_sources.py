"""R packages that Debian lacks, compiled for rlab from a real repository of sources."""

from __future__ import annotations

from checkout import docker, layers
from rlab import AGENT, LISTED, VERSIONS, RlabBuilds, in_cache
from servers import WebServer


def forget_compiled() -> None:
    """Let what was compiled before, by another run perhaps, be compiled again."""
    compiled = """grep -lE '"ecosystem": "R", .*"version": "99[.]1"' /opt/pieces/r-*.json"""
    in_cache(f"{compiled} | sed 's/[.]json$//' | xargs -r rm -f")


def test_compiled_from_source(rlab_builds: RlabBuilds, cran: WebServer) -> None:
    """What Debian has not in this version is compiled from source, stripped, and no compiler stays.

    Compiled again, elsewhere and in another order, it has the same bytes; with another package beside it, it is not.
    """
    forget_compiled()
    built = rlab_builds.build(cran, *LISTED)
    assert built.returncode == 0, built.stderr
    assert rlab_builds.says(VERSIONS) == "glue 99.1 zoo 99.1"
    assert rlab_builds.says("ls /usr/local/lib/R/site-library").split() == ["glue", "zoo"]  # lattice is Debian's
    assert rlab_builds.says("command -v gcc cc g++ gfortran || echo none") == "none"
    library = "/usr/local/lib/R/site-library/glue/libs/glue.so"
    assert ".debug_info" not in rlab_builds.says(f'python -c \'print(open("{library}", "rb").read())\'')
    assert rlab_builds.compiled
    assert cran.agents == {AGENT}
    for name, version, line, text in (("glue", "1.8.0", 2, "glue>=99"), ("zoo", "1.8-14", 3, "zoo@99.1")):
        note = f"pyrlab: {name} 99.1 stands before Debian's {version}, as r_packages.txt line {line} wants '{text}'"
        assert note in built.stderr.splitlines()

    before = layers(f"rlab:{rlab_builds.tag}")
    forget_compiled()
    docker("image", "rm", f"rlab:{rlab_builds.tag}")  # which the same lock would leave alone
    assert rlab_builds.build(cran, *reversed(LISTED)).returncode == 0
    assert rlab_builds.compiled
    assert layers(f"rlab:{rlab_builds.tag}") == before

    built = rlab_builds.build(cran, *LISTED, "docopt>=99")
    assert built.returncode == 0, built.stderr
    assert not rlab_builds.compiled  # docopt has nothing to compile
    assert rlab_builds.says("ls /usr/local/lib/R/site-library").split() == ["docopt", "glue", "zoo"]
    assert rlab_builds.says(VERSIONS) == "glue 99.1 zoo 99.1"


def test_failures_are_loud(rlab_builds: RlabBuilds, cran: WebServer) -> None:
    """What cannot be had stops the build with the line, and of a compiler with its last words."""
    said, words = rlab_builds.refused(cran, "bitops>=99")
    assert said == "pyrlab: r_packages.txt line 2: bitops 99.1 could not be installed; R's own words stand above"
    assert "unknown type name" in words


def test_headers_of_the_lists(rlab_builds: RlabBuilds, cran: WebServer) -> None:
    """What r_debs.txt names is there where R packages are compiled, and what it names no more is not."""
    listed = rlab_builds.checkout / "r_debs.txt"  # of rlab-base, which is built anew: no other test is to build upon it
    before = listed.read_text()
    listed.write_text(f"{before}libglpk-dev\n")
    try:
        built = rlab_builds.build(cran, "IRkernel", "bitops@98.1")
        assert built.returncode == 0, built.stderr
        assert rlab_builds.says("Rscript -e 'cat(bitops::bitAnd(12, 10))'") == "8"
    finally:
        listed.write_text(before)
    said, words = rlab_builds.refused(cran, "bitops@98.1")
    assert said == (
        "pyrlab: r_packages.txt line 2: bitops 98.1 could not be installed, for want of the header glpk.h: add the "
        "Debian package that has it to r_debs.txt; R's own words stand above"
    )
    assert "compilation failed for package" in words
