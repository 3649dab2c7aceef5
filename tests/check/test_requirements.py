"""What a list of Python packages demands is read as pip reads it, and what uv and compilers say becomes a sentence."""

from __future__ import annotations

import os
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from bare import write_script
from pyrlab.host import online
from pyrlab.host.project import Project
from pyrlab.model.checkout import Checkout
from pyrlab.model.images import Image, List, Table
from pyrlab.model.lists import Problems
from pyrlab.model.locked import Lock, Locked
from pyrlab.model.problem import Problem
from pyrlab.steps import compiled, network, resolve, wheels
from pyrlab.steps.requirements import Demands
from pyrlab.steps.resolve import Resolver

# What uv 0.13.8 says, word for word.
UNKNOWN = """\
error: No solution found when resolving dependencies
  cause: Because pandsa was not found in the package registry and you require pandsa, \
we can conclude that your requirements are unsatisfiable.
"""
NO_VERSION = """\
error: No solution found when resolving dependencies
  cause: Because there is no version of scikit-learn[foo]==99.9 and you require scikit-learn[foo]==99.9, \
we can conclude that your requirements are unsatisfiable.
"""
TOO_HIGH = """error: No solution found when resolving dependencies
  cause: Because only pandas<=3.1.1 is available and you require pandas>=99, we can conclude that your \
requirements are unsatisfiable.
"""
NO_VERSIONS = """error: No solution found when resolving dependencies
  cause: Because there are no versions of nosuchpkgxyz and you require nosuchpkgxyz, we can conclude that your \
requirements are unsatisfiable.
"""
SKLEARN = """error: Failed to build `sklearn==0.0.post12`
  cause: The build backend returned an error

         [stderr]
         More information is available at

hint: `sklearn` is often confused for `scikit-learn`. Did you mean to install `scikit-learn` instead?
"""
CONFLICT = """\
error: No solution found when resolving dependencies
  cause: Because pandas==2.2.3 depends on numpy{python_full_version < '3.12'}>=1.23.2 and you require numpy==1.20, \
we can conclude that your requirements and pandas==2.2.3 are incompatible.
         And because you require pandas==2.2.3, we can conclude that your requirements are unsatisfiable.
"""
OLD_JINJA = """error: No solution found when resolving dependencies for split (markers: sys_platform == 'linux')
  cause: Because jupyterlab>=4.4.0 depends on jinja2>=3.0.3 and you require jinja2==2.11.3, we can conclude that \
your requirements and jupyterlab>=4.4.0 are incompatible.
         And because you require jupyterlab>=4.4, we can conclude that your requirements are unsatisfiable.
"""


def demands(folder: Path, *texts: str, name: str = "requirements.txt") -> Demands:
    """What a list asks for that has these lines."""
    (folder / name).write_text("".join(f"{text}\n" for text in texts))
    found = Demands(folder)
    found.read(folder / name)
    return found


def sentences(problems: Problems) -> str:
    """What a build that stops tells its user of some problems."""
    with pytest.raises(Problem) as stop:
        problems.stop()
    return str(stop.value)


def told(folder: Path, words: str, *texts: str, alone: str = "") -> str:
    """What is said of a list after uv's `words`; where it resolves the list alone, it says `alone`."""

    class Resolved(Resolver):
        def run(self, *_: object, **__: object) -> network.Run:
            return subprocess.CompletedProcess([], int(bool(alone)), stderr=alone)

    asked = demands(folder, *texts)
    Resolved(Demands(folder), asked, folder, []).diagnose(words)
    return sentences(asked.problems)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's archive has gdal-bin."""
    (tmp_path / "bin").mkdir()
    write_script(tmp_path / "bin/apt-cache", "#!/bin/sh\necho gdal-bin\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize(
    ("words", "texts", "expected"),
    [
        (UNKNOWN, ["requests", "Pandsa>=1"], "line 2: the Python index has no package named 'pandsa'"),
        (
            NO_VERSION,
            ["requests", "Scikit_Learn[foo]==99.9"],
            "line 2: no version of scikit-learn satisfies 'Scikit_Learn[foo]==99.9'",
        ),
        (TOO_HIGH, ["pandas", "pandas>=99"], "line 2: no version of pandas satisfies 'pandas>=99'"),
        (
            NO_VERSIONS,
            ["nosuchpkgxyz; python_version > '3'"],
            "line 1: the Python index has no package named 'nosuchpkgxyz'",
        ),
        (
            UNKNOWN.replace("pandsa", "json"),
            ["json"],
            "line 1: the Python index has no package named 'json'; it is part of Python itself",
        ),
        (
            UNKNOWN.replace("pandsa", "gdal-bin"),
            ["gdal-bin"],
            "line 1: the Python index has no package named 'gdal-bin'; Debian packages go into base_debs.txt",
        ),
        (SKLEARN, ["pip", "sklearn"], "line 2: sklearn is called scikit-learn"),
    ],
    ids=["unknown", "no-version", "too-high", "no-versions", "standard", "debian", "renamed"],
)
def test_the_line_that_uv_rejects_is_named(tmp_path: Path, words: str, texts: list[str], expected: str) -> None:
    """A user who mistypes a requirement reads its list and line, not a resolver's proof."""
    assert told(tmp_path, words, *texts) == f"requirements.txt {expected}"


def test_only_lines_at_fault_are_named(tmp_path: Path) -> None:
    """Lines that contradict each other are named, and none whose name is a word of uv's."""
    texts = ["requests", "Pandas==2.2.3", "numpy", "numpy==1.20", "cause", "you", "python-full-version"]
    assert told(tmp_path, OLD_JINJA, *texts, alone=CONFLICT) == (
        "requirements.txt lines 2 and 4: 'Pandas==2.2.3' and 'numpy==1.20' cannot be had together: "
        "pandas==2.2.3 depends on numpy{python_full_version < '3.12'}>=1.23.2 and the lists require numpy==1.20"
    )


def test_a_line_that_the_lab_cannot_bear(tmp_path: Path) -> None:
    """A line that contradicts the Jupyter stack is named, and not the list of that."""
    assert told(tmp_path, OLD_JINJA, "pip", "jinja2==2.11.3") == (
        "requirements.txt line 2: 'jinja2==2.11.3' does not go with the JupyterLab that every image has: "
        "jupyterlab>=4.4.0 depends on jinja2>=3.0.3 and the lists require jinja2==2.11.3"
    )


def test_lines_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    """Continued lines, comments in them and options count as in pip, and a line has the number of its first."""
    found = demands(
        tmp_path, "# as pip-compile writes it", "tabulate==0.9.0 \\", f"    --hash=sha256:{'a' * 64} \\", "    # via x",
        "", "Own_Package[b] >= 1 ; python_version > '3'  # why", "own @ https://packages.invalid/own-1.0.whl#egg=own",
        "https://packages.invalid/other-1.0-py3-none-any.whl", "--trusted-host=a --trusted-host b --pre", "-i https://gone.invalid/",
        "-i https://packages.invalid/",
    )  # fmt: skip
    assert not found.problems.found
    assert [(package.name, package.line.number) for package in found.packages] == [
        ("tabulate", 2),
        ("own-package", 6),
        ("own", 7),
        ("other", 8),
    ]
    assert found.packages[0].hashes == {f"sha256:{'a' * 64}"}
    options = {"--trusted-host": ["a", "b"], "--pre": [True], "--index-url": ["https://packages.invalid/"]}
    assert found.options == options


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pandas = {version = '>=2'}", "'pandas = {version = '>=2'}' is not a requirement pip would understand"),
        (
            "conda install -y gdal",
            "'conda install -y gdal' is not a requirement pip would understand; did you mean gdal?",
        ),
        ("[[source]]", "this is a file in TOML; pip list --format=freeze prints what can stand in a list"),
        (
            "./cut-1.0-py3-none-any.whl",
            "./cut-1.0-py3-none-any.whl is no wheel, or an incomplete one; copy it here again",
        ),
        ("C:\\wheels\\a-1.0-py3-none-any.whl", "a file of the machine where the list was written is on no other; "),
        (
            "-e git+https://packages.invalid/own@v1#egg=own",
            "'-e git+https://packages.invalid/own@v1#egg=own' would be a link to a folder that no image has; "
            "write it without the -e",
        ),
        (
            "own @ https://packages.invalid/${PROJECT}/own-1.0-py3-none-any.whl",
            "${PROJECT} is filled in only as user or password of an address; write out what it stands for",
        ),
        (
            f"https://packages.invalid/own-1.0.tar.gz --hash=sha256:{'0' * 64}",
            "https://packages.invalid/own-1.0.tar.gz does not say of which package the --hash is; write NAME @ https:",
        ),
        (
            "./own-1.0-py3-none-any.whl ; python_version => '3'",
            "'./own-1.0-py3-none-any.whl ; python_version => '3'' is not a requirement pip would understand",
        ),
        ("-c 'limits.txt", "'-c 'limits.txt' cannot be read: no closing quotation"),
        (
            "six --hash=md5:529d",
            "'--hash=md5:529d' is not supported here; of options a package may have --hash=sha256: ",
        ),
    ],
)
def test_what_is_no_line_of_a_list(tmp_path: Path, text: str, problem: str) -> None:
    """Whoever pastes what is for something else reads what it is, or what to write instead."""
    (tmp_path / "cut-1.0-py3-none-any.whl").write_text("PK")
    zipfile.ZipFile(tmp_path / "own-1.0-py3-none-any.whl", "w").close()
    found = demands(tmp_path, "pandas", text)
    assert sentences(found.problems).startswith(f"requirements.txt line 2: {problem}")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "x.c:5:10: fatal error: libpq-fe.h: No such file or directory\nerror: command 'gcc' failed",
            "x.c:5:10: fatal error: libpq-fe.h: No such file or directory; add libpq-dev to base_debs.txt",
        ),
        (
            "Error: pg_config executable not found.\n\nhint",
            "pg_config executable not found; add libpq-dev to base_debs.txt",
        ),
        ("fatal error: own.h: No such file or directory", "fatal error: own.h: No such file or directory"),
        (
            "/bin/sh: 1: mysql_config: not found",
            "/bin/sh: 1: mysql_config: not found; add default-libmysqlclient-dev to base_debs.txt",
        ),
        ("wheel for own: finished with status 'error'\n  Exception: It is named its", "Exception: It is named its"),
        ("RuntimeError:\n\n***\nnot any more", "RuntimeError: not any more"),
        ("note\nSyntaxError: invalid syntax\nerror: subprocess-exited-with-error", "SyntaxError: invalid syntax"),
    ],
)
def test_why_a_package_cannot_be_compiled(words: str, expected: str) -> None:
    """A user reads what the compiler misses, and the Debian package that has it where that is known."""
    assert compiled.sentence("own", words) == f"own could not be compiled: {expected}"


@pytest.mark.parametrize("index", ["https://packages.invalid/simple", "https://packages.invalid/simple/"])
def test_an_index_is_asked_for_its_packages(index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that a list names is asked where something is installed that comes from it."""
    monkeypatch.setattr(wheels, "BESIDE", tmp_path / "wheels")
    pins = wheels.pins_of({"common": Locked("1.0"), "own": Locked("2.0", index=index)})
    options = wheels.options_of([Lock({}, options=(f"--extra-index-url {index}", "--trusted-host packages.invalid"))])
    packages = wheels.Packages(pins, options, tmp_path, tmp_path, compiled.Cache(tmp_path, tmp_path))
    assert packages.index_options(["common"]) == []
    own = [f"--extra-index-url={index}", "--trusted-host=packages.invalid"]
    assert packages.index_options(["common", "own"]) == own


def test_a_lock_names_no_index_but_the_lists(tmp_path: Path) -> None:
    """The address of a company's index, which is a parameter, is in no lock; a list's own is."""
    found = {name: Locked("1", index=f"https://{name}.invalid/simple/") for name in ("proxy", "own")}
    asked = demands(tmp_path, "--extra-index-url https://own.invalid/simple")
    kept = resolve.as_listed({**found}, asked)
    assert kept == {"proxy": Locked("1"), "own": found["own"]}


def test_what_a_list_points_at(project: Project) -> None:
    """A build sees the files of the checkout that a list points at, and no others."""
    folder = project.root
    files = {
        "requirements.txt": "\ufeff-r sub/a.txt -c limits.txt -c more.txt\n-r ../out.txt\n"
        "./wheels/one-1-py3-none-any.whl[x]\nhere @ ./wheels/here-1-py3-none-any.whl\n",
        "sub/a.txt": "-rb.txt\n-r /etc/passwd\n#-r other.txt\na @ file:wheels/two-1-py3-none-any.whl ; os_name=='nt'\n",
        "sub/b.txt": f"-r 'a.txt'\n-r {folder}/other.txt\nhttps://packages.invalid/wheels/three-1.0-py3-none-any.whl\n",
        "limits.txt": "numpy<3\n",
        "more.txt": "pandas<4\n",
        "other.txt": "",
        "wheels/here-1-py3-none-any.whl": "",
        "wheels/one-1-py3-none-any.whl": "",
        "wheels/two-1-py3-none-any.whl": "",
        "wheels/three-1.0-py3-none-any.whl": "",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder.parent / "out.txt").write_text("")
    project.checkout.stage(folder / "staged")
    staged = {str(path.relative_to(folder / "staged/python")) for path in (folder / "staged/python").rglob("*.*")}
    assert staged - {*project.table.files} == files.keys() - {
        *project.table.files,
        "other.txt",
        "wheels/three-1.0-py3-none-any.whl",
    }
    assert list(project.checkout.texts("requirements.txt", constraints=False)) == [
        "requirements.txt",
        "sub/a.txt",
        "sub/b.txt",
    ]


def test_a_list_that_is_a_link(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A list may be a link to the one of another project."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "wanted.txt"
    elsewhere.write_text("cowsay\n")
    (project.root / "requirements.txt").unlink(missing_ok=True)
    (project.root / "requirements.txt").symlink_to(elsewhere)
    project.checkout.stage(project.root / "staged")
    assert (project.root / "staged/python/requirements.txt").read_text() == "cowsay\n"
    assert "cowsay" in project.checkout.wanted("requirements")


def test_passwords_are_kept_apart(project: Project) -> None:
    """What a build sees of a list has no password; those that it needs come by another way, variables filled in."""
    folder = project.root
    (folder / "requirements.txt").write_text(
        "--index-url https://me:se%2Fcret@One.invalid/simple\n--find-links https://${TOKEN}@two.invalid:8080/x\n"
        "own @ git+ssh://git@three.invalid/a/own@v1\n"
    )
    project.checkout.stage(folder / "staged")
    assert (folder / "staged/python/requirements.txt").read_text() == (
        "--index-url https://One.invalid/simple\n--find-links https://two.invalid:8080/x\n"
        "own @ git+ssh://git@three.invalid/a/own@v1\n"
    )
    assert online.netrc(replace(project, environment={"TOKEN": "canary-token"})) == (
        "machine one.invalid login me password se/cret\nmachine two.invalid login canary-token\n"
    )


def test_passwords_of_a_list_beside_its_dockerfile(project: Project) -> None:
    """A list of one's own may stand where its image's Dockerfile does."""
    folder = project.root / "docker/course"
    folder.mkdir(parents=True)
    (folder / "course.txt").write_text("--index-url https://me:secret@one.invalid/simple\n-r more.txt\n")
    (folder / "more.txt").write_text("cowsay\n")
    course = List("course", "docker/course/course.txt", "Python", 4, lock="course")
    table = Table({**project.table, "course": Image("course", (course,), parent="pylab")})
    own = Checkout(project.root, table)
    own.stage(project.root / "staged")
    own.stage_asked("course", project.root / "asked")
    for place in ("staged/python", "asked/Python"):
        staged = project.root / place / "docker/course"
        assert (staged / "course.txt").read_text() == "--index-url https://one.invalid/simple\n-r more.txt\n"
        assert (staged / "more.txt").read_text() == "cowsay\n"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("-i https://me:${NOT_SET}@one.invalid/", "the variable NOT_SET is not set in the environment"),
        ("a @ git+https://token@one.invalid/a/a", "what is in the address of a git repository would be in every image; "
         "build a wheel of it and name that, as in ./wheels/NAME.whl"),
        ("-i https://me:a%20b@one.invalid/", "a user or password with a blank, a backslash, or a quotation mark at its "
         "beginning cannot be handed on to uv and pip"),
    ],
    ids=["variable", "git", "blank"],
)  # fmt: skip
def test_passwords_that_cannot_be_had(project: Project, line: str, sentence: str) -> None:
    """A password that is not there, or could not be kept out of an image, is refused with its line."""
    (project.root / "requirements.txt").write_text(f"pandas\n{line}\n")
    with pytest.raises(Problem) as refused:
        online.netrc(project)
    assert str(refused.value) == f"requirements.txt line 2: {sentence}"
