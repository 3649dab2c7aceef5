"""What a user writes into local.mk as it would stand in a shell, the lab has."""

from __future__ import annotations

from pathlib import Path

from bare import files_of
from checkout import PROJECT, TINY, Run, docker, run_make, running_lab
from servers import free_port


def test_folder(checkout: Path, tmp_path: Path) -> None:
    """A folder with blanks and quotation marks is the lab's, and none is made in the checkout."""
    folder = tmp_path / "Ada's  Notebooks"
    (checkout / "local.mk").write_text(f'FILES = "{folder}"\nPORT = "{free_port()}"  # mine\nTBPORT = {free_port()}\n')
    before = {name for name in files_of(checkout) if not name.startswith(".cache")}

    def make(*targets: str) -> Run:
        return run_make(checkout, *targets, TAG=TINY, PROJECT=f"{PROJECT}-mk")

    with running_lab("pylab", make, f"{PROJECT}-mk", folder, 0) as lab:
        docker("exec", lab.container, "sh", "-c", "cd work && touch made")
        assert f"notebooks: {folder} " in lab.output
    assert (folder / "made").exists()
    assert (folder / "samples").is_dir()
    assert {name for name in files_of(checkout) if not name.startswith(".cache")} == before
