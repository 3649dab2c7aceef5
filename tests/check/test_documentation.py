"""What the documentation promises is there, and what is there is documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import CHECKOUT, ROOT, refusal, run_make, succeeded
from pyrlab.host import help as makefile_help

MAKEFILE = (ROOT / "Makefile").read_text()


def public_targets() -> list[str]:
    """The targets that a user may type, those of every image or lab as patterns, without other names of the same."""
    phony = re.search(r"^TARGETS :=((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
    assert phony
    names = re.sub(r"\$\(IMAGES(?::%=(\w+%))?\)", lambda found: found[1] or "%", phony[1].replace("\\\n", " ")).split()
    return [name for name in names if name not in ("engine-ready", "build_base", "build_rbase")]


def pages() -> list[Path]:
    """The pages of the documentation, those about to be added included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def readme() -> str:
    """The README."""
    return (ROOT / "README.md").read_text()


def test_help_has_every_target_and_parameter() -> None:
    """A user who types `make` finds every target, with what it does, and every parameter, with what it means."""
    printed = succeeded(run_make(ROOT))
    targets = [target.replace("%", "IMAGE" if target == "build_%" else "LAB") for target in public_targets()]
    parameters = re.findall(r"^(\w+)\s*\?=", MAKEFILE, re.MULTILINE)
    expected = [*(f"make {target}" for target in targets), *parameters]
    assert [name for name in expected if not re.search(rf"^  {name} +\S", printed, re.MULTILINE)] == []
    assert f"LAB is {', '.join(CHECKOUT.table.labs)}\n" in printed


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("pylap", "did you mean make pylab?"),
        ("xyzzy", "make help shows what there is"),
        ("build_rlab_base", "did you mean make build_rlab-base?"),
    ],
)
def test_a_target_that_is_not_there(target: str, meant: str) -> None:
    """Who mistypes a target reads which may be meant."""
    assert refusal(run_make(ROOT, target)) == f"pyrlab: there is no target {target}; {meant}"


def test_a_package_in_the_place_of_a_target() -> None:
    """Who forgets the P= of make upgrade P=pandas is told before everything is upgraded."""
    steps = succeeded(run_make(ROOT, "--dry-run", "upgrade", "pandas")).splitlines()
    [upgrade] = [step for step in steps if "upgrade upgrade" in step]
    assert upgrade.index("pyrlab.host.help pandas &&") < upgrade.index("upgrade upgrade")


def test_every_image_has_its_targets() -> None:
    """Whatever images.toml names can be built by its name, and worked in if it is a lab."""
    verbs = ("", "start_", "stop_", "url_", "logs_", "bash_")
    names = [
        *(f"build_{name}" for name in CHECKOUT.table),
        *(f"{verb}{name}" for name in CHECKOUT.table.labs for verb in verbs),
    ]
    succeeded(run_make(ROOT, "--dry-run", *names))


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
    work = "import sys; from pyrlab.host.project import run_main; run_main(lambda _: print('on it', file=sys.stderr))"
    assert subprocess.run([sys.executable, "-c", work], cwd=ROOT, stderr=unread).returncode == 141


def test_tables_of_readme() -> None:
    """A reader of README.md finds the commands, images and parameters that there are, as make has them."""
    assert all(f"\n<!-- {name} -->\n" in readme() for name in makefile_help.tables(CHECKOUT))
    assert makefile_help.with_tables(CHECKOUT, readme()) == readme(), (
        "type python3 -m pyrlab.host.help --readme, which mends them"
    )


def test_lists_of_readme() -> None:
    """A reader of README.md finds every list that there is, and learns which images it is for."""
    table = CHECKOUT.table
    for path in ROOT.glob("*.txt"):
        owners = [name for name, image in table.items() if any(path.name in each.files for each in image.lists)]
        with_it = [name for name in table if any(image.name in owners for image in table.lineage(name))]
        said = "all" if with_it == [*table] else ", ".join(name for name in table.labs if name in with_it)
        assert re.search(rf"^\| `{path.name}` \| .* \| {said} \|$", readme(), re.MULTILINE), path.name
    named = set(re.findall(r"`([\w/-]+\.txt)`", readme()))
    assert not [name for name in sorted(named) if not (ROOT / name).is_file()]


def test_digests_of_readme() -> None:
    """What README.md shows of a build looks as a build prints it, and names images that there are."""
    shown = re.search(r"<!-- digests.*-->\n```\n(.*\n)((?:.*\n)+?)```\n<!-- end of digests -->", readme())
    assert shown
    assert shown[1].split() == ["image", "size", "layers", "seconds", "digest"]
    for row in shown[2].splitlines():
        image = re.fullmatch(r"(\S+):latest +[\d,]+ MB +\d+ +(?:\d+ +)?[0-9a-f]{12}  (?:up to date|rebuilt: .+)", row)
        assert image
        assert image[1] in CHECKOUT.table


def test_commands_that_are_told_of() -> None:
    """Whatever a reader is told to type after make is a target, of an image of his own, too, if it is told how."""
    for page in pages():
        text = page.read_text()
        names = [*CHECKOUT.table, "LAB", "IMAGE", *re.findall(r"^\[images\.(\w+)\]$", text, re.MULTILINE)]
        known = {target.replace("%", name) for target in public_targets() for name in names}
        told = re.findall(r"(?:^|`)(?:\$ )?make ([A-Za-z_-]+)", text, re.MULTILINE)
        assert not {*told} - known, page


def test_functions_that_contributing_names() -> None:
    """Who follows a change through the code finds each function where CONTRIBUTING.md says that it is."""
    told = re.findall(r"`(?:(\w+)\.)?(?:\w+\.)?(\w+)\(\)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert told
    for module, function in told:
        code = "".join(path.read_text() for path in (ROOT / "pyrlab").rglob(f"{module or '*'}.py"))
        assert re.search(rf"^ *def {function}\(", code, re.MULTILINE), f"{module}.{function}"


def test_links_lead_somewhere() -> None:
    """A reader who follows a link to another file of the repository finds it."""
    form = re.compile(r"\]\(([^)\s]+)|^\[[^\]]+\]: *(\S+)|(?:src|href)=\"([^\"]+)\"", re.MULTILINE)
    for page in pages():
        targets = {next(filter(None, link)).partition("#")[0] for link in form.findall(page.read_text())}
        relative = {target for target in targets if target and not re.match(r"[a-z]+:", target)}
        assert not [target for target in sorted(relative) if not (page.parent / target).exists()], page
