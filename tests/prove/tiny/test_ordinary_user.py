"""Someone in the engine's group without root, in a company without a registry, builds and works like anyone else."""

from __future__ import annotations

import json
import os
import re

import pytest
from nbformat.v4 import new_code_cell, new_notebook, writes

from checkout import CHANGED, succeeded
from conftest import Clean
from host import HOME, PROJECT
from servers import Squid

CELLS = {
    "pylab": ("python3", "import os; print(os.getuid()); open('made', 'w').close()"),
    "rlab": ("ir", "cat(system('id -u', intern = TRUE)); invisible(file.create('made'))"),
}

# What gets online in a company, with no further setting.
ONLINE = {
    "pylab": [
        "pip install --quiet pyjokes && python -c 'import pyjokes'",
        "python -c 'import requests; requests.get(\"{url}\").raise_for_status()'",
        "curl --silent --show-error --fail --output /dev/null {url}",
        "wget --quiet --output-document /dev/null {url}",
        # No repository is there; what matters is that git asks, and is answered.
        "! git ls-remote {url} 2>/tmp/said; grep --quiet 'not found' /tmp/said",
    ],
    "rlab": ["Rscript -e 'stopifnot(length(readLines(url(\"{url}\"), warn = FALSE)) > 0)'"],
}


@pytest.mark.parametrize("lab", list(CELLS))
def test_a_lab(lab: str, clean: Clean, squid: Squid, company: dict[str, str]) -> None:
    """The lab runs as her, its files are hers, the server answers where make says, and all gets online."""
    page = re.findall(r"GET (https://\S+/cowsay/)", squid.log.read_text())[0]
    host, (kernel, code) = clean.host, CELLS[lab]
    notebook = new_notebook(cells=[new_code_cell(code)])  # type: ignore[no-untyped-call]
    books = host.home / f"books-{lab}"
    host.run("mkdir", books.name)
    (books / "own.ipynb").write_text(writes(notebook))  # type: ignore[no-untyped-call]
    (books / "own.ipynb").chmod(0o644)
    parameters = {"TAG": CHANGED, "FILES": str(HOME / books.name), **company}
    try:
        started = host.make(clean.checkout, f"start_{lab}", **parameters)
        url = next(word for word in succeeded(started).split() if word.startswith("http://127.0.0.1:"))
        address = url.partition("lab?")[0]
        assert "version" in json.loads(host.run("curl", "--silent", "--fail", f"{address}api").stdout)
        convert = ["jupyter", "nbconvert", "--to=notebook", "--execute", "--stdout"]
        convert += [f"--ExecutePreprocessor.kernel_name={kernel}", "own.ipynb"]
        done = json.loads(host.docker("exec", "--workdir=/home/jovyan/work", f"{PROJECT}-{lab}", *convert))
        [output] = done["cells"][0]["outputs"]
        uid = os.getuid() or 1000
        assert "".join(output["text"]).strip() == str(uid)
        assert (books / "made").stat().st_uid == uid
        for command in ONLINE[lab]:
            host.docker("exec", f"{PROJECT}-{lab}", "bash", "-ec", command.format(url=page))
    finally:
        host.make(clean.checkout, "stop")


def test_nothing_is_roots(clean: Clean) -> None:
    """What the build left on the host is hers, though it was made by the engine's root."""
    assert clean.host.run("find", str(HOME / "pyrlab"), "!", "-user", "ada", user="root").stdout == ""
