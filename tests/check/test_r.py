"""Where R packages come from, decided as a build decides it, against a real repository on this machine."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pyrlab.model import lists
from pyrlab.model.locked import Locked
from pyrlab.model.problem import Problem
from pyrlab.steps import debs, r
from servers import WebServer, free_port, serve_files

AGENT = "R/4.5.0 R (4.5.0 x86_64-pc-linux-gnu x86_64 linux-gnu)"
DEBIAN = {"ggplot2": "3.5.1", "rlang": "1.1.5", "zoo": "1.8-14", "irkernel": "1.3.2"}
CALLED = {"irkernel": "IRkernel", "ggplot2": "ggplot2", "zoo": "zoo"}  # the same as R writes it
BUILT_IN = {"R": "4.5.0", "stats": "4.5.0", "methods": "4.5.0"}

# name, version, what it needs
CRAN = [
    ("gbm", "2.2.2", "Imports: lattice, zoo (>= 1.8)"),
    ("lattice", "0.22-7", "Depends: R (>= 4.4.0)\nImports: stats"),
    ("ggplot2", "4.0.0", "Imports: rlang (>= 1.1.6)"),
    ("rlang", "1.1.6", ""),
    ("tomorrow", "1.0", "Depends: R (>= 5.0.0)"),
    ("broken", "1.0", "Imports: nowhere"),
    ("modern", "1.0", "Imports: gbm (>= 2.2)"),
    ("gbm", "2.2.0", "Imports: lattice"),  # of several, which a repository of one's own may have, R takes the latest
]


def archive(name: str, version: str, needs: str, folder: str = "", commit: str = "") -> bytes:
    """The archive of an R package, with a commit such as git makes it."""
    text = f"Package: {name}\nVersion: {version}\n{needs}\n".encode()
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w:gz", pax_headers={"comment": commit} if commit else {}) as tree:
        member = tarfile.TarInfo(f"{folder or name}/DESCRIPTION")
        member.size = len(text)
        tree.addfile(member, io.BytesIO(text))
    return result.getvalue()


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was fetched before."""
    monkeypatch.setattr(debs, "ARCHIVES", tmp_path / "fetched")


@pytest.fixture
def cran(tmp_path: Path, fetched: None) -> Iterator[WebServer]:
    """A CRAN-shaped repository with the packages of CRAN, and others in its archive."""
    contrib = tmp_path / "src/contrib"
    replaced = [("ggplot2", "3.4.4", "Imports: rlang"), ("gbm", "2.1.9", "Imports: lattice"), ("retired", "1.0", "")]
    for name, version, needs in replaced:
        (contrib / "Archive" / name).mkdir(parents=True)
        (contrib / f"Archive/{name}/{name}_{version}.tar.gz").write_bytes(archive(name, version, needs))
    for name, version, needs in CRAN:
        (contrib / f"{name}_{version}.tar.gz").write_bytes(archive(name, version, needs))
    index = "\n\n".join(f"Package: {name}\nVersion: {version}\n{needs}".strip() for name, version, needs in CRAN)
    (contrib / "PACKAGES.gz").write_bytes(gzip.compress(index.encode()))
    (tmp_path / "own.tar.gz").write_bytes(archive("own", "0.1", "Imports: zoo, lattice", folder="own-main"))
    with serve_files(tmp_path) as server:
        yield server


def resolve(url: str, *texts: str, locked: dict[str, Locked] | None = None) -> r.Plan:
    """What a list of these lines would come to."""
    web = r.Web(AGENT)
    cran, bioc = (r.Repository(f"{url}/src/contrib", web, source) for source in ("cran", "bioc"))
    resolver = r.Resolver(cran, bioc, DEBIAN, BUILT_IN, {**(locked or {})}, CALLED)
    return resolver.want_all([lists.Line(text, "r_packages.txt", number) for number, text in enumerate(texts, start=1)])


def versions(plan: r.Plan) -> dict[str, str]:
    """What would be fetched, in which version."""
    return {name: package.version for name, package in plan.fetched.items()}


@pytest.mark.parametrize(
    "line", ["ggplot2", "ggplot2>=3.5", "ggplot2@>=3.5.1", "ggplot2@3.5.1", "ggplot2 >= 3.5", "cran::ggplot2"]
)
def test_debian_is_enough(line: str) -> None:
    """What Debian's package satisfies comes from Debian, and no repository is asked."""
    nobody = f"http://127.0.0.1:{free_port()}"
    plan = resolve(nobody, line, "stats")
    assert (plan.debian, plan.fetched, plan.notes) == ({"ggplot2": "3.5.1"}, {}, [])


def test_the_rest_comes_from_cran(cran: WebServer) -> None:
    """What Debian lacks is fetched with what it needs, but for what Debian or R itself has."""
    plan = resolve(cran.url, "gbm")
    assert versions(plan) == {"gbm": "2.2.2", "lattice": "0.22-7"}
    assert plan.debian == {"zoo": "1.8-14"}
    assert cran.agents == {AGENT}  # which earns binaries


def test_a_newer_version_stands_before_debians(cran: WebServer) -> None:
    """Only where a newer version is needed does one shadow Debian's, and the user is told which line is why."""
    plan = resolve(cran.url, "rlang", "ggplot2>=4")
    assert versions(plan) == {"ggplot2": "4.0.0", "rlang": "1.1.6"}
    assert plan.debian == {}
    assert plan.notes == [
        "ggplot2 4.0.0 stands before Debian's 3.5.1, as r_packages.txt line 2 wants 'ggplot2>=4'",
        "rlang 1.1.6 stands before Debian's 1.1.5, as ggplot2 needs 'rlang >= 1.1.6'",
    ]


def test_an_old_version_comes_from_the_archive(cran: WebServer) -> None:
    """An exact version is found among those that the repository has replaced."""
    plan = resolve(cran.url, "ggplot2@3.4.4")
    assert versions(plan) == {"ggplot2": "3.4.4"}
    assert plan.debian == {"rlang": "1.1.5"}


@pytest.mark.parametrize(
    ("line", "locked", "version"),
    [("gbm", "2.1.9", "2.1.9"), ("gbm>=2.2", "2.1.9", "2.2.2"), ("gbm", "2.0.0", "2.2.2")],
    ids=["stays", "must-go", "is-gone"],
)
def test_a_locked_version_stays(cran: WebServer, line: str, locked: str, version: str) -> None:
    """What is locked is taken, from among the replaced ones too, as long as it is there and will do."""
    plan = resolve(cran.url, line, locked={"gbm": Locked(locked, source="cran")})
    assert versions(plan)["gbm"] == version


def test_a_retired_package_stays(cran: WebServer) -> None:
    """What is locked can still be had when the repository has no current version of it any more."""
    assert versions(resolve(cran.url, "retired", locked={"retired": Locked("1.0", source="cran")})) == {
        "retired": "1.0"
    }


def test_a_locked_version_gives_way(cran: WebServer) -> None:
    """What only the lock asks for does not stand in the way of a new line, and nothing else moves for it."""
    locked = {name: Locked(version, source="cran") for name, version in (("gbm", "2.1.9"), ("lattice", "0.22-7"))}
    plan = resolve(cran.url, "gbm", "modern", locked=locked)
    assert versions(plan) == {"gbm": "2.2.2", "lattice": "0.22-7", "modern": "1.0"}


def test_an_archive_by_its_address(cran: WebServer) -> None:
    """url:: takes the package that the archive holds, with what it needs."""
    assert versions(resolve(cran.url, f"url::{cran.url}/own.tar.gz")) == {"own": "0.1", "lattice": "0.22-7"}


def test_an_address_counts_wherever_it_stands(cran: WebServer, tmp_path: Path) -> None:
    """Before or after the name of a package, an address says where that comes from, or that the lines contradict."""
    for name, version in (("rlang", "1.0"), ("modern", "0.5")):
        (tmp_path / f"{name}.tar.gz").write_bytes(archive(name, version, ""))
    rlang, modern = (f"url::{cran.url}/{name}.tar.gz" for name in ("rlang", "modern"))
    for texts in (["modern", modern], [modern, "modern"]):
        assert versions(resolve(cran.url, *texts)) == {"modern": "0.5"}  # and not gbm, which CRAN's needs
    for texts in (["ggplot2>=4", rlang], [rlang, "ggplot2>=4"]):
        with pytest.raises(Problem, match=r"contradicts rlang 1\.0, which another line needs"):
            resolve(cran.url, *texts)


def test_two_addresses_of_a_package(cran: WebServer, tmp_path: Path) -> None:
    """The same package from two addresses is refused with the second line."""
    (tmp_path / "other.tar.gz").write_bytes(archive("own", "0.2", ""))
    first, second = (f"url::{cran.url}/{name}.tar.gz" for name in ("own", "other"))
    with pytest.raises(Problem) as stopped:
        resolve(cran.url, first, second)
    assert str(stopped.value) == (f"r_packages.txt line 2: '{second}' contradicts own 0.1, which another line needs")


def test_an_archive_that_is_cut_off(cran: WebServer, tmp_path: Path) -> None:
    """What came of an archive only in part is said to be none."""
    (tmp_path / "own.tar.gz").write_bytes(archive("own", "0.1", "")[:60])
    with pytest.raises(Problem, match=r"^r_packages\.txt line 1: \S+/own\.tar\.gz is no archive of an R package$"):
        resolve(cran.url, f"url::{cran.url}/own.tar.gz")


def test_which_line_a_package_is_there_for() -> None:
    """A line with an address, a part of the page in it perhaps, leads to its package and all that this needs."""
    address = "url::https://packages.invalid/own.tar.gz#v1"
    fetched = {"own": Locked("0.1", source=address, needs=("lattice",)), "lattice": Locked("0.22-7", source="cran")}
    line = lists.Line(address, "r_packages.txt", 1)
    assert r.needed_for([line], fetched) == {"own": line, "lattice": line}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("latice", "neither Debian nor the R repository has a package named 'latice'; did you mean lattice?"),
        ("gbm>=3", "no version of gbm satisfies 'gbm >= 3': Debian has none; the R repository has 2.2.2"),
        ("zoo>=2", "no version of zoo satisfies 'zoo >= 2': Debian has 1.8-14"),
        (
            "ggplot2@3.4.5",
            "no version of ggplot2 satisfies 'ggplot2 == 3.4.5': Debian has 3.5.1; the R repository has 4.0.0",
        ),
        ("tomorrow", "tomorrow needs R >= 5.0.0, but this R is 4.5.0"),
        ("broken", "neither Debian nor the R repository has a package named 'nowhere', which broken needs"),
        ("ggplot2=>3", "'ggplot2=>3' names no R package; write ggplot2, ggplot2>=3.5, "),
        ("irkernel", "R has no package named 'irkernel'; it is called IRkernel"),
        ("irkernle", "neither Debian nor the R repository has a package named 'irkernle'; did you mean IRkernel?"),
        ("r-cran-irkernel", "'r-cran-irkernel' is Debian's or conda's name; write IRkernel"),
        ("zoo, ggplot2", "'zoo, ggplot2' is no name; write one name a line: zoo, ggplot2"),
        ("library(zoo)", "'library(zoo)' is no name; write one name a line: zoo"),
        (
            'install.packages(c("zoo", "gbm"), repos = "https://host.invalid")',
            """'install.packages(c("zoo", "gbm"), repos = "https://host.invalid")' is no name; """
            "write one name a line: zoo, gbm",
        ),
        ('BiocManager::install("ab")', """'BiocManager::install("ab")' is no name; write one name a line: bioc::ab"""),
        (
            "devtools::install_github('a/b')",
            "'devtools::install_github('a/b')' is no name; write one name a line: github::a/b",
        ),
        ("zoo (>= 1.8)", "'zoo (>= 1.8)' is no name; write zoo>=1.8"),
        ("zoo 1.8-12", "'zoo 1.8-12' is no name; write zoo@1.8-12"),
        ("pacman::p_load(dplyr, zoo)", "'pacman::p_load(dplyr, zoo)' is no name; write one name a line: dplyr, zoo"),
        (
            "https://github.com/r-lib/cli",
            "'https://github.com/r-lib/cli' is the address of a page; write github::r-lib/",
        ),
        ("url::./zoo.tar.gz", "'url::./zoo.tar.gz' has no address that begins with http:// or https://"),
        ("url::https://me:s3cret@host.invalid/a.tar.gz", "the user and password of the address would be in the lock; "),
        ("./zoo_1.8-12.tar.gz", "'./zoo_1.8-12.tar.gz' names no R package; write ggplot2, "),
    ],
)
def test_mistakes(cran: WebServer, line: str, sentence: str) -> None:
    """A line that cannot be had is named, with what is wrong with it."""
    with pytest.raises(Problem) as stopped:
        resolve(cran.url, "zoo", line)
    assert str(stopped.value).startswith(f"r_packages.txt line 2: {sentence}")


def test_all_mistakes_at_once(cran: WebServer) -> None:
    """All lines that cannot be had are named, and what is said twice names both lines."""
    with pytest.raises(Problem) as stopped:
        resolve(cran.url, "zoo", "latice", "irkernel", "gbm", "irkernel")
    assert str(stopped.value) == (
        "r_packages.txt line 2: neither Debian nor the R repository has a package named 'latice'; "
        "did you mean lattice?\n"
        "r_packages.txt lines 3 and 5: R has no package named 'irkernel'; it is called IRkernel"
    )


@pytest.mark.usefixtures("fetched")
def test_no_repository() -> None:
    """Where the repository cannot be reached the sentence says so, and what it was needed for, without a password."""
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(Problem) as stopped:
        resolve(f"http://ada:s3cret@{host}", "gbm")
    start = f"r_packages.txt line 1: Debian has no R package named 'gbm', and http://{host}/src/contrib/PACKAGES.gz"
    assert str(stopped.value).startswith(f"{start} cannot be reached: ")


@pytest.mark.parametrize("content", [b"<html>", gzip.compress(b"Package: gbm\n")[:-4]], ids=["a page", "cut off"])
def test_no_index(content: bytes, cran: WebServer, tmp_path: Path) -> None:
    """What a repository gives in the place of its index is said to be none."""
    (tmp_path / "src/contrib/PACKAGES.gz").write_bytes(content)
    with pytest.raises(Problem, match=r"/PACKAGES\.gz is no index of R packages"):
        resolve(cran.url, "gbm")


def test_two_lines_contradict(cran: WebServer) -> None:
    """Of two lines that cannot both be had the second is named, with what contradicts it."""
    with pytest.raises(Problem) as stopped:
        resolve(cran.url, "ggplot2>=4", "ggplot2@3.4.4")
    sentence = "'ggplot2 == 3.4.4' contradicts ggplot2 4.0.0, which another line needs"
    assert str(stopped.value) == f"r_packages.txt line 2: {sentence}"


def test_what_debian_calls_it() -> None:
    """Debian's names are lower case, and begin with where the package comes from."""
    known = {"r-cran-ggplot2", "r-cran-data.table", "r-bioc-limma", "r-cran-both", "r-bioc-both", "ggplot3"}
    expected = ["r-cran-ggplot2", "r-cran-data.table", "r-bioc-limma", "r-cran-both"]
    assert r.debian_packages(["GGplot2", "data.table", "limma", "both"], known) == expected


@pytest.mark.parametrize(
    ("debian", "own"), [("1.8-14-1", "1.8-14"), ("3.5.1+dfsg-1", "3.5.1"), ("1:4.5.0-3", "4.5.0"), ("2.0~rc1-2", "2.0")]
)
def test_versions_of_debian(debian: str, own: str) -> None:
    """Debian's version says which of R's it is."""
    assert r.upstream(debian) == own


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("x.c:1:10: fatal error: glpk.h: No such file or directory", ", for want of the header glpk.h: "),
        (" * deb: libcurl4-openssl-dev (Debian, Ubuntu, etc)", ", for want of Debian's libcurl4-openssl-dev: "),
        ("/usr/bin/ld: cannot find -lgsl: No such file or directory", ", for want of the library gsl: "),
        ("./configure: line 12: cmake: command not found", ", for want of the program cmake: "),
        ("/bin/sh: 1: xml2-config: not found", ", for want of the program xml2-config: "),
        ("error: expected ';' before '}' token", ""),
    ],
)
def test_what_a_compiler_misses(words: str, hint: str) -> None:
    """What a compiler misses is named in the sentence, with the list to put it in."""
    assert r.hint(words).startswith(hint)
    assert ("r_debs.txt" in r.hint(words)) == bool(hint)


def test_an_archive_is_called_after_its_package(tmp_path: Path) -> None:
    """R finds a package in the folder of its name, which GitHub's archives do not have."""
    long = f"tests/{'snapshot' * 20}.md"  # of which git, as Python here, has the name in a header of its own
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tree:
        for name in ("DESCRIPTION", long):
            tree.addfile(tarfile.TarInfo(f"own-main/{name}"))
    r.renamed(content.getvalue(), "own").extractall(tmp_path, filter="data")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")} | {"own/DESCRIPTION"} == {
        "own/DESCRIPTION",
        f"own/{long}",
    }
    assert (tmp_path / "own/DESCRIPTION").exists()


def test_a_branch_moves_on(cran: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a branch named when it was locked stays, whatever it names since; an upgrade takes what it names now."""
    monkeypatch.setattr(r, "GITHUB_ADDRESS", cran.url)
    archives = tmp_path / "somebody/own/archive"
    archives.mkdir(parents=True)

    def push(version: str, commit: str) -> None:
        content = archive("own", version, "", folder=f"own-{commit}", commit=commit)
        for name in ("main", commit):
            (archives / f"{name}.tar.gz").write_bytes(content)

    line = "github::somebody/own@main"
    push("0.1", "a" * 40)
    first = resolve(cran.url, line).fetched["own"]
    assert (first.version, first.source) == ("0.1", f"{line}#{'a' * 40}")
    locked = {"own": Locked(first.version, source=first.source)}
    push("0.2", "b" * 40)
    assert resolve(cran.url, line, locked=locked).fetched["own"] == first
    assert versions(resolve(cran.url, line)) == {"own": "0.2"}
    assert versions(resolve(cran.url, "github::somebody/own@" + "a" * 40, locked=locked)) == {"own": "0.1"}


def test_what_a_package_prints_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that says something when it is loaded works; of one that does not, R's reason is told."""
    asked = {name: lists.Line(name, "r_packages.txt", number) for number, name in enumerate(("loud", "gone"), 1)}
    monkeypatch.setattr(r, "r", lambda code, *names: "This is loud\t1.0\n\npyrlab\tgone\tno such thing\n")
    with pytest.raises(Problem, match=r"^r_packages.txt line 2: R cannot load the package 'gone' \(no such thing\)$"):
        r.check(asked)
    monkeypatch.setattr(r, "r", lambda code, *names: "This is loud\t1.0\n")
    r.check(asked)


@pytest.mark.parametrize("own", ["", "options(repos = 'https://cran.company.invalid')\n"], ids=["pyrlab's", "others"])
def test_what_a_build_notes_of_r(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What R says of itself is noted where it has the settings with which lists are resolved, and no others."""
    profile = "options(Ncpus = 2)\n"
    for name, text in (("SETTINGS", f"# Debian's\n{profile}{own}"), ("PROFILE", profile)):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(r, name, tmp_path / name)
    monkeypatch.setattr(r, "TOLD", tmp_path / "told")
    monkeypatch.setattr(r, "r", lambda *_, **__: "agent\nhttps://cran\nhttps://bioc\nR 4.5.0\n")
    monkeypatch.setattr(debs, "installed", lambda: {"r-base-core": "4.5.0-3"})
    r.Repositories.note({"r-base-core": "4.5.0-3"})
    assert (tmp_path / "told").exists() == (not own)


def test_packages_that_need_each_other_many_times() -> None:
    """What a tree of R packages is known by takes no time, and a change is one of all that needs it."""

    def keys(sha256: str) -> dict[str, str]:
        names = [f"p{number:02}" for number in range(40)]
        packages = {name: Locked(sha256="a", needs=tuple(names[:number])) for number, name in enumerate(names)}
        packages["p20"] = replace(packages["p20"], sha256=sha256)
        return r.cache_keys(r.Fetched(packages, {}, {}, "r_packages.lock"))

    one, other = keys("b"), keys("c")
    assert [name for name in one if one[name] != other[name]] == [f"p{number}" for number in range(20, 40)]
