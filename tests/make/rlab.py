"""An rlab that is built of other R packages than the tiny one, from repositories of the tests."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from checkout import TINY, Run, docker, run_make
from servers import WebServer

AGENT = "R/4.5.0 R (4.5.0 x86_64-pc-linux-gnu x86_64 linux-gnu)"
LISTED = ["IRkernel", "glue>=99", "zoo@99.1"]  # of which Debian has others
VERSIONS = """Rscript -e 'cat(sprintf("%s %s", c("glue", "zoo"), c(packageVersion("glue"), packageVersion("zoo"))))'"""


STEP = """
FROM pyrlab-base:{}
USER 0
ARG NOW
RUN --mount=type=cache,id=pyrlab,target=/opt,sharing=locked {}
"""


def in_cache(command: str) -> None:
    """Run a shell command in a build step that has what is kept for builds at /opt; it must succeed."""
    # With --no-cache, BuildKit would empty the mount first.
    build = ["docker", "buildx", "build", f"--build-arg=NOW={time.time()}", "--output=type=cacheonly", "-"]
    done = subprocess.run(build, input=STEP.format(TINY, command), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class RlabBuilds:
    """A checkout, and the tag of the images that are built of it."""

    checkout: Path
    tag: str

    def make(self, target: str, server: WebServer, *lines: str) -> Run:
        """Run make with these lines as r_packages.txt, and a repository in CRAN's place."""
        (self.checkout / "r_packages.txt").write_text("".join(f"{line}\n" for line in lines))
        return run_make(self.checkout, target, TAG=self.tag, CRAN=server.url)

    def build(self, server: WebServer, *lines: str) -> Run:
        """Build rlab with these lines as r_packages.txt."""
        return self.make("build_rlab", server, *lines)

    def says(self, command: str) -> str:
        """What a shell command prints in the rlab that was built."""
        return docker("run", "--rm", f"rlab:{self.tag}", "sh", "-c", command)

    @property
    def compiled(self) -> bool:
        """Whether the last build has compiled anything, or got ready to."""
        return "Setting up r-base-dev" in (self.checkout / ".cache/build.log").read_text()

    def refused(self, server: WebServer, line: str) -> tuple[str, str]:
        """What pyrlab says of a line that cannot be had, and all that was printed; the image stays what it was."""
        before = self.identity
        built = self.build(server, "IRkernel", line)
        assert built.returncode != 0
        assert self.identity == before
        return [said for said in built.stderr.splitlines() if said.startswith("pyrlab: ")][-1], built.stderr

    @property
    def identity(self) -> str:
        """Which image rlab is."""
        return docker("image", "inspect", f"rlab:{self.tag}", "--format", "{{.Id}}")
