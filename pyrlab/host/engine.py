"""The container engine: nothing else starts docker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from pyrlab.host import faults
from pyrlab.model.problem import Problem

# Named files only: no .env, override or COMPOSE_FILE of the user's steers a lab.
COMPOSE = ("compose", "--file", "compose.yaml", "--env-file", os.devnull, "--progress", "quiet")
# What the client says of a name where the engine is well.
NONE = r"no such (image|container|volume|network|object)|network \S+ not found|invalid reference"


@dataclass(frozen=True, eq=False)
class Engine:
    """The engine that docker reaches in an environment; its commands are run in a folder, and all in this way."""

    folder: Path
    environment: Mapping[str, str]

    def call(
        self, *arguments: str, environment: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a docker command, in another environment if one is given."""
        command, env = ["docker", *arguments], self.surroundings(arguments, environment)
        options: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "timeout": timeout}
        return subprocess.run(command, cwd=self.folder, env=env, **options)

    def surroundings(self, arguments: tuple[str, ...], environment: Mapping[str, str] | None = None) -> dict[str, str]:
        """An environment, its own where none is given, without what would steer docker elsewhere.

        Images are this engine's own, for its own processor, and so is what builds them, whichever builder is chosen.
        """
        given = environment or self.environment
        found = {name: value for name, value in given.items() if name != "DOCKER_DEFAULT_PLATFORM"}
        return found | {"BUILDX_BUILDER": self.builder} if arguments[0] == "buildx" else found

    @cached_property
    def builder(self) -> str:
        """The builder that is this engine's own: Buildx calls it after the context."""
        return self.context[0] or "default"

    @cached_property
    def context(self) -> tuple[str, str]:
        """The context's name, and the engine's address in it; both empty where docker cannot tell."""
        shown = self.ask("context", "inspect", "--format", "{{.Name}} {{.Endpoints.docker.Host}}") or ""
        name, _, address = shown.partition(" ")
        return name, address

    def compose(self, project: str, command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command of Compose for what compose.yaml has, under the name of a project."""
        return self.call(*COMPOSE, "--project-name", project, *command.split(), environment=environment)

    def run(self, *arguments: str, check: bool = True) -> str:
        """The output of a docker command; raises Problem with its own last words where it fails."""
        run = self.call(*arguments)
        if check and run.returncode:
            raise self.failure(arguments, run)
        return run.stdout

    def ask(self, *arguments: str) -> str | None:
        """The output of a docker command, None where it fails, does not end, or is not there."""
        try:
            run = self.call(*arguments, timeout=20)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return run.stdout.strip() if run.returncode == 0 else None

    def open(
        self, *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a docker command, whose streams are used while it runs."""
        env = self.surroundings(arguments, environment)
        return subprocess.Popen(["docker", *arguments], cwd=self.folder, env=env, **options)

    def become(self, *arguments: str) -> NoReturn:
        """Let a docker command go on in the place of this program."""
        os.execvpe("docker", ["docker", *arguments], self.environment)

    def fault(self) -> faults.Finding | None:
        """What is wrong with the engine, with what mends it; None where it is well."""
        return faults.fault(self)

    def failure(self, arguments: Collection[str], run: subprocess.CompletedProcess[str]) -> Problem:
        """Why a docker command has failed: what is wrong with the engine, or else its own last words."""
        words = (run.stderr or run.stdout).strip().splitlines()
        own = f"docker {' '.join([*arguments][:2])} failed: {words[-1] if words else run.returncode}"
        return Problem(str(self.fault() or own))

    def info(self) -> dict[str, Any]:
        """What engine and client say of themselves; without ServerVersion where no engine answers."""
        try:
            found: dict[str, Any] = json.loads(self.call("info", "--format", "{{json .}}", timeout=60).stdout)
        except (subprocess.TimeoutExpired, ValueError):
            return {}
        return found

    @cached_property
    def about(self) -> dict[str, Any]:
        """What it says of itself that stays as it is; raises Problem where no engine answers."""
        found: dict[str, Any] = json.loads(self.run("info", "--format", "{{json .}}"))
        return found

    @property
    def rootless(self) -> bool:
        """Whether it runs as an ordinary user."""
        return faults.is_rootless(self.about)

    def inspect(self, kind: str, name: str) -> dict[str, Any] | None:
        """What the engine knows of an image, container or volume, None where there is none."""
        found = self.described(kind, [name])
        return found[0] if found else None

    def described(self, kind: str, names: Collection[str]) -> list[dict[str, Any]]:
        """What the engine knows of those images, containers or volumes that are there."""
        if not names:  # of which docker would say how it is called
            return []
        arguments = (kind, "inspect", *names)
        run = self.call(*arguments)
        errors = [line for line in run.stderr.splitlines() if line.lower().startswith("error")]  # it may warn, too
        if run.returncode and not (errors and all(re.search(NONE, line, re.IGNORECASE) for line in errors)):
            raise self.failure(arguments, run)
        found: list[dict[str, Any]] = json.loads(run.stdout or "[]")
        return found

    def drop_image(self, identity: str) -> None:
        """Remove an image that no name is left of, if nothing uses it."""
        found = self.inspect("image", identity)
        if found and not found["RepoTags"]:
            self.run("image", "rm", identity, check=False)

    def last_words(self, container: str) -> None:
        """Print the end of a container's log, whichever stream it is on."""
        log = self.call("logs", "--tail", "30", container)
        print(f"{log.stdout}{log.stderr}".strip(), file=sys.stderr, flush=True)
