"""What the documentation promises is there, and what is there is documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import ROOT, run_make
from pyrlab import help as makefile_help
from pyrlab.images import labs, lineage, table

MAKEFILE = (ROOT / "Makefile").read_text()
PARAMETERS = re.findall(r"^(\w+)\s*\?=", MAKEFILE, re.MULTILINE)


def public_targets() -> list[str]:
    """The targets that a user may type, those of every image or lab as patterns, without other names of the same."""
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
    assert phony
    names = re.sub(r"\$\(IMAGES(?::%=(\w+%))?\)", lambda found: found[1] or "%", phony[1].replace("\\\n", " ")).split()
    return [name for name in names if name not in ("engine-ready", "build_base", "build_rbase")]


def files(*patterns: str) -> list[Path]:
    """The files of the repository, those about to be added included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def name_of(path: Path) -> str:
    """A file's name within the repository."""
    return str(path.relative_to(ROOT))


def readme() -> str:
    """The README."""
    return (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def printed() -> str:
    """What `make` prints where no target is named."""
    run = run_make(ROOT)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("target", public_targets())
def test_help_has_every_target(target: str, printed: str) -> None:
    """A user who types `make` finds every target, with what it does."""
    assert re.search(rf"^(\$\(IMAGES\S*\): )?{target}:.* ## \S", MAKEFILE, re.MULTILINE)
    shown = target.replace("%", "IMAGE" if target == "build_%" else "LAB")
    assert re.search(rf"^  make {shown} +\S", printed, re.MULTILINE)


def test_help_names_the_labs(printed: str) -> None:
    """A user who reads LAB finds the names that it stands for."""
    assert f"LAB is {', '.join(labs())}\n" in printed


@pytest.mark.parametrize("name", table())
def test_every_image_has_its_targets(name: str) -> None:
    """Whatever images.toml names can be built by its name, and worked in if it is a lab."""
    verbs = ("", "start_", "stop_", "url_", "logs_", "bash_") if name in labs() else ()
    run = run_make(ROOT, "--dry-run", *(f"{verb}{name}" for verb in ("build_", *verbs)))
    assert run.returncode == 0, run.stderr


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe that nobody reads from."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def test_reader_who_has_seen_enough(unread: int) -> None:
    """Where what make prints goes to a program that has ended, as head does early, nothing is said of it."""
    run = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, stdout=unread, stderr=subprocess.PIPE, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_unheard(unread: int) -> None:
    """Work that ends because nobody listens to how it goes is no success."""
    work = "import sys; from pyrlab.docker import run_main; run_main(lambda: print('on it', file=sys.stderr))"
    assert subprocess.run([sys.executable, "-c", work], cwd=ROOT, stderr=unread).returncode == 141


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_help_has_every_parameter(parameter: str, printed: str) -> None:
    """A user who types `make` finds every parameter, with what it means."""
    assert parameter in {name for name, *_ in makefile_help.parameters(MAKEFILE)}
    assert re.search(rf"^  {parameter} +\S", printed, re.MULTILINE)


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_readme_has_every_parameter(parameter: str) -> None:
    """A reader of README.md finds every parameter in the first column of a table."""
    assert re.search(rf"^\|[^|]*`{parameter}`[^|]*\|", readme(), re.MULTILINE)


def test_tables_of_readme() -> None:
    """A reader of README.md finds the commands, images and parameters that there are, as make has them."""
    assert all(f"\n<!-- {name} -->\n" in readme() for name in makefile_help.tables())
    assert makefile_help.with_tables(readme()) == readme(), "type python3 -m pyrlab.help --readme, which mends them"


def test_lists_of_readme() -> None:
    """A reader of README.md learns which images a list is for."""
    for path in ROOT.glob("*.txt"):
        with_it = [
            name for name in table() if any(path.name in each.files for image in lineage(name) for each in image.lists)
        ]
        said = "all" if with_it == [*table()] else ", ".join(name for name in labs() if name in with_it)
        assert re.search(rf"^\| `{path.name}` \| .* \| {said} \|$", readme(), re.MULTILINE), path.name


def test_digests_of_readme() -> None:
    """What README.md shows of a build looks as a build prints it, and names images that there are."""
    shown = re.search(r"<!-- digests.*-->\n```\n(.*\n)((?:.*\n)+?)```\n<!-- end of digests -->", readme())
    assert shown
    assert shown[1].split() == ["image", "size", "layers", "seconds", "digest"]
    for row in shown[2].splitlines():
        image = re.fullmatch(r"(\S+):latest +[\d,]+ MB +\d+ +(?:\d+ +)?[0-9a-f]{12}  (?:up to date|rebuilt: .+)", row)
        assert image
        assert image[1] in table()


@pytest.mark.parametrize("page", files("*.md"), ids=name_of)
def test_commands_that_are_told_of(page: Path) -> None:
    """Whatever a reader is told to type after make is a target, of an image of his own, too, if it is told how."""
    text = page.read_text()
    names = [*table(), "LAB", "IMAGE", *re.findall(r"^\[images\.(\w+)\]$", text, re.MULTILINE)]
    known = {target.replace("%", name) for target in public_targets() for name in names}
    told = re.findall(r"(?:^|`)(?:\$ )?make ([A-Za-z_-]+)", text, re.MULTILINE)
    assert not {*told} - known


def test_functions_that_contributing_names() -> None:
    """Who follows a change through the code finds each function where CONTRIBUTING.md says that it is."""
    told = re.findall(r"`(?:(\w+)\.)?(?:\w+\.)?(\w+)\(\)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert told
    for module, function in told:
        places = [ROOT / folder for folder in ("pyrlab", "docker/build")]
        code = "".join(path.read_text() for place in places for path in place.glob(f"{module or '*'}.py"))
        assert re.search(rf"^ *def {function}\(", code, re.MULTILINE), f"{module}.{function}"


@pytest.mark.parametrize("page", files("*.md"), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """A reader who follows a link to another file of the repository finds it."""
    links = re.findall(r"\]\(([^)\s]+)|^\[[^\]]+\]: *(\S+)|(?:src|href)=\"([^\"]+)\"", page.read_text(), re.MULTILINE)
    targets = {next(filter(None, link)).partition("#")[0] for link in links}
    relative = {target for target in targets if target and not re.match(r"[a-z]+:", target)}
    assert not [target for target in sorted(relative) if not (page.parent / target).exists()]


def test_lists_that_readme_names_exist() -> None:
    """A reader who is told to write into a list finds it, and every list that there is, is told of."""
    named = set(re.findall(r"`([\w/-]+\.txt)`", readme()))
    assert not [name for name in sorted(named) if not (ROOT / name).is_file()]
    assert {path.name for path in ROOT.glob("*.txt")} <= named


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_no_line_ends_in_blanks(path: Path) -> None:
    """A change shows nothing but what it changes: editors have no blanks at line ends to remove."""
    content = path.read_bytes()
    if b"\0" in content:
        pytest.skip("not a text file")
    lines = content.decode().split("\n")
    assert not [number for number, line in enumerate(lines, start=1) if line != line.rstrip()]
