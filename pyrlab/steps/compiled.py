"""Wheels of Python packages that have none: made where the compilers and the Debian packages of base_debs.txt are."""

from __future__ import annotations

import functools
import hashlib
import platform
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pyrlab.model import lists
from pyrlab.steps import debs, network
from pyrlab.steps.pieces import EPOCH

COMPILERS = ["build-essential", "python3-dev", "git"]
# What a compiler or a package's own script misses, and the Debian package that has it.
DEBIAN = {name: name for name in ("cargo", "cmake", "gfortran", "pkg-config", "rustc", "swig")} | {
    "Python.h": "python3-dev",
    "cairo": "libcairo2-dev",
    "cairo.h": "libcairo2-dev",
    "cblas.h": "libopenblas-dev",
    "curl-config": "libcurl4-openssl-dev",
    "ffi.h": "libffi-dev",
    "fftw3.h": "libfftw3-dev",
    "gdal-config": "libgdal-dev",
    "geos_c.h": "libgeos-dev",
    "gmp.h": "libgmp-dev",
    "graphviz/cgraph.h": "libgraphviz-dev",
    "gssapi/gssapi.h": "libkrb5-dev",
    "hdf5.h": "libhdf5-dev",
    "krb5-config": "libkrb5-dev",
    "lber.h": "libldap-dev",
    "libpq-fe.h": "libpq-dev",
    "libxml/xmlversion.h": "libxml2-dev",
    "libxslt/xsltconfig.h": "libxslt1-dev",
    "magic.h": "libmagic-dev",
    "mpfr.h": "libmpfr-dev",
    "mysql.h": "default-libmysqlclient-dev",
    "mysql_config": "default-libmysqlclient-dev",
    "mysqlclient": "default-libmysqlclient-dev",
    "openssl/ssl.h": "libssl-dev",
    "pg_config": "libpq-dev",
    "portaudio.h": "portaudio19-dev",
    "proj.h": "libproj-dev",
    "sasl/sasl.h": "libsasl2-dev",
    "snappy-c.h": "libsnappy-dev",
    "sndfile.h": "libsndfile1-dev",
    "sql.h": "unixodbc-dev",
    "xmlsec1": "libxmlsec1-dev",
    "zlib.h": "zlib1g-dev",
}
MISSING = (
    r"fatal error: ([\w./+-]+): No such file or directory",
    r"([\w.-]+) executable not found",
    r"([\w.-]+): (?:command )?not found",
    r"No such file or directory: '([\w./+-]+)'",
    r"Package '?([\w.+-]+?)'? (?:was not found|not found)",
    r"Dependency \"?([\w.+-]+)\"? not found",
)
# What uv and pip say around the words of a compiler.
FRAME = r"subprocess|^(ERROR|error): Failed|^hint:|^cause:|^note:|exit(ed| code| status)|finished with status"


@functools.cache
def prepare(base_debs: Path) -> None:
    """Install the compilers and what base_debs.txt names."""
    debs.update()
    debs.install([*COMPILERS, *(line.text for line in debs.wanted([base_debs]))], base_debs.name)


def sentence(name: str, words: str) -> str:
    """Why a package could not be compiled: what it misses, or its last words."""
    lines = [line.strip() for line in words.splitlines()]
    for line in lines:
        if missing := next((found[1] for pattern in MISSING if (found := re.search(pattern, line))), ""):
            remedy = f"; add {DEBIAN[missing]} to base_debs.txt" if missing in DEBIAN else ""
            return f"{name} could not be compiled: {line.removeprefix('Error: ').rstrip('.')}{remedy}"
    said = [line for line in lines if re.search(r"[Ee]rror\b|^\w*Exception:", line) and not re.search(FRAME, line)]
    said = said or lines[-1:] or ["it says nothing"]
    last = said[-1].removeprefix("error: ")
    if last.endswith(":"):  # what it is stands below
        last += next((f" {line}" for line in lines[lines.index(said[-1]) + 1 :] if re.search(r"\w", line)), "")
    return f"{name} could not be compiled: {last}"


@dataclass(frozen=True)
class Cache:
    """The wheels that were compiled before, with the same Debian packages and the same Python."""

    folder: Path
    base_debs: Path
    there: debs.Versions = field(default_factory=dict)  # Debian's packages of the image's parent

    def wheel(self, pin: str, options: list[str]) -> tuple[Path | None, str]:
        """The wheel of the package that the line `pin` names, or the words with which its compilation failed."""
        asked = [line.text for line in lists.read(self.base_debs)]
        asked += [f"{name} {version}" for name, version in self.there.items() if name.endswith("-dev")]
        key = "\n".join([pin, sys.version, platform.machine(), *sorted(asked)])
        place = self.folder / hashlib.sha256(key.encode()).hexdigest()[:16]
        if not any(place.glob("*.whl")):
            prepare(self.base_debs)
            part = Path("/tmp/wheel")
            shutil.rmtree(part, ignore_errors=True)
            if words := compile_to(part, pin, options):
                return None, words
            whole = place.with_suffix(".part")  # a copy that is cut short would be taken for the wheel
            for old in (place, whole):
                shutil.rmtree(old, ignore_errors=True)
            shutil.copytree(part, whole)
            whole.rename(place)
        return next(place.glob("*.whl")), ""


def compile_to(folder: Path, pin: str, options: list[str]) -> str:
    """Let pip make the wheel of a package in `folder`; its words where it fails."""
    pins = Path("/tmp/pin.txt")
    pins.write_text(f"{pin}\n")
    # No debugging information, which would name the folder of chance that pip compiles in.
    ways = ["env", f"SOURCE_DATE_EPOCH={EPOCH}", "CFLAGS=-g0", "CXXFLAGS=-g0"]
    name = re.match(r"[\w.-]+", pin)[0]  # type: ignore[index]
    uv = ["/pyrlab/tools/uv", "tool", "run", "--quiet", "--python", sys.executable]
    pip = [*uv, "pip", "--disable-pip-version-check"]
    own = ["--no-deps", "--no-cache-dir", f"--no-binary={name}", f"--wheel-dir={folder}", f"--requirement={pins}"]
    run = network.run([*ways, *pip, "wheel", *own, *options])
    return run.stderr if run.returncode else ""
