"""Packages as somebody's colleague may hand them over, for Python and for R: each knows a greeting."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path


def wheel(folder: Path) -> Path:
    """A wheel with one module, made in the folder."""
    path = folder / "colleague-1.0-py3-none-any.whl"
    about = "colleague-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("colleague.py", "greeting = 'hello'\n")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: colleague\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", f"colleague.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    return path


def r_package(folder: Path) -> Path:
    """An R package with one object, made in the folder."""
    path = folder / "colleague_1.0.tar.gz"
    files = {
        "DESCRIPTION": "Package: colleague\nVersion: 1.0\nTitle: Greeting\nDescription: Greets.\nLicense: MIT\n"
        "Author: A. Colleague\nMaintainer: A. Colleague <colleague@example.invalid>\n",
        "NAMESPACE": "export(greeting)\n",
        "R/greeting.R": 'greeting <- "hello"\n',
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"colleague/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path
