"""The default lists, built from nothing on two machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from caches import Caches
from checkout import NAMES, PROJECT, ROOT, TAG, Make, copy_checkout, succeeded
from compare import assert_same
from host import Host


@pytest.fixture(scope="module")
def here(make: Make, debian: Path) -> None:
    """The images of this machine, built from nothing."""
    assert debian.exists()
    succeeded(make("clean", PROJECT=f"{PROJECT}-clean"))  # not of the caches, which are there already
    succeeded(make("build", BASE="debian"))


@pytest.fixture(scope="module")
def there(
    here: None, host: Host, caches: Caches, company: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Host:
    """Another machine, whose ordinary user built the images of the same checkout from nothing, through caches only."""
    checkout = host.adopt(copy_checkout(tmp_path_factory.mktemp("there") / "pyrlab", ROOT), "default")
    succeeded(host.make(checkout, "build", TAG=TAG, **{**company, **caches.parameters}))
    return host


@pytest.mark.parametrize("name", NAMES)
def test_two_machines_build_the_same(name: str, there: Host, tmp_path: Path) -> None:
    """Everyone who builds from a committed lock has the very same image."""
    assert_same(f"{name}:{TAG}", f"{name}:{TAG}", there, tmp_path)
