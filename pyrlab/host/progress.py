"""Follow a build through BuildKit's machine-readable progress: what runs now, for how long, what failed."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from pyrlab.host.faults import FULL_DISK
from pyrlab.model.problem import Problem

STEPS = [
    (r"packages \d+/\d+\] RUN", "packages"),
    (r"(manifest|checks) \d+/\d+\] RUN", "checks"),
    (r"lock-python resolved \d+/\d+\] RUN", "resolving Python packages"),
    (r"lock-debian resolved \d+/\d+\] RUN", "resolving Debian packages"),
    (r"lock-r resolved \d+/\d+\] RUN", "resolving R packages"),
    (r"(uv|tools) \d+/\d+\] RUN", "build tools"),
    (r"\] exporting to image", "writing the image"),
]
EVENT = re.compile(r"^pyrlab-event: (\{.*\})\n?", re.MULTILINE)  # what a step tells; see pyrlab/model/events.py
FULL = "no space left on device"


def documents(stream: IO[str]) -> Iterator[dict[str, Any]]:
    """The JSON documents of a stream of pretty-printed ones; other lines come as {"text": line}."""
    buffer = ""
    for line in stream:
        if not buffer and not line.startswith("{"):
            yield {"text": line.rstrip()}
            continue
        buffer += line
        if line.startswith("}") or (line.startswith("{") and line.rstrip().endswith("}")):
            yield json.loads(buffer)
            buffer = ""


def seconds_of(stamp: str) -> float:
    """Seconds since 1970 of a time stamp with nanoseconds, as Go prints them."""
    return datetime.fromisoformat(stamp).timestamp()


class Progress:
    """Live lines on a terminal (one an image), a line for each kind of step elsewhere, everything in a log file."""

    def __init__(self, images: list[str], log: Path) -> None:
        self.images = images
        self.current = ""  # the image that is built now
        self.owners: dict[str, str] = {}  # the image of each vertex, empty for what all share
        self.phases: dict[str, str] = {}  # what vertexes say that they do
        self.live = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        log.parent.mkdir(exist_ok=True)
        self.log = log.open("w", buffering=1)  # lines as they come, for who looks on
        self.names: dict[str, str] = {}  # of vertexes, by digest
        self.started: dict[str, float] = {}
        self.completed: dict[str, float] = {}
        self.cached: set[str] = set()
        self.output: dict[str, list[str]] = {}
        self.errors: dict[str, str] = {}
        self.problems: dict[str, list[Problem]] = {}  # of steps that cannot go on
        self.noted: list[str] = []  # the sentences that the user is to read
        self.said: set[str] = set()  # the lines that were printed
        self.heard: set[tuple[str, str, str]] = set()  # the pieces of output that came in
        self.words: list[str] = []  # what bake said outside its JSON
        self.told: set[str] = set()  # the notes that were handed out
        self.drawn = 0
        self.last_draw = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.erase()
        self.log.close()

    def follow(self, stream: IO[str]) -> list[str]:
        """Take in everything that one run of bake reports; its words outside the JSON."""
        before = len(self.words)
        for document in documents(stream):
            self.take(document)
        return self.words[before:]

    def take(self, document: dict[str, Any]) -> None:
        """Take in one report: steps and their output, or other words of bake."""
        if "text" in document:
            self.words.append(document["text"])
            self.log.write(document["text"] + "\n")
        for vertex in document.get("vertexes", []):
            self.vertex(vertex)
        for entry in document.get("logs", []):
            heard = (entry["vertex"], entry.get("timestamp", ""), entry.get("data", ""))
            if heard in self.heard and heard[1]:  # each of several targets tells of a step that they share
                continue
            self.heard.add(heard)
            text = base64.b64decode(entry.get("data", "")).decode(errors="replace")
            self.log.write(text)
            if words := EVENT.sub("", text):
                self.output.setdefault(entry["vertex"], []).append(words)
            for event in EVENT.findall(text):
                self.event(entry["vertex"], json.loads(event))
        self.draw()

    def event(self, key: str, event: dict[str, Any]) -> None:
        """Take in what a step tells of itself."""
        kind = event.pop("event")
        if kind == "step":
            self.phases[key] = event["what"]
            self.say(key)
        elif kind == "note":
            self.noted.append(str(Problem(**event)))
        else:
            self.problems.setdefault(key, []).append(Problem(**event))

    def vertex(self, vertex: dict[str, Any]) -> None:
        """Note that a step was named, started, found in the cache, ended or failed."""
        key = vertex["digest"]
        if key not in self.names:
            self.names[key], self.owners[key] = vertex["name"], self.current
        if vertex.get("cached"):
            self.cached.add(key)
        if vertex.get("started") and key not in self.started:
            self.started[key] = seconds_of(vertex["started"])
            self.log.write(f"--- {vertex['name']}\n")
        if vertex.get("completed") and key not in self.completed:
            self.completed[key] = seconds_of(vertex["completed"])
            start = self.started.get(key, self.completed[key])
            first = min(self.started.values(), default=start)
            took = f"{self.completed[key] - start:.1f} s from {start - first:.1f} s"
            self.log.write(f"--- {'cached' if key in self.cached else took}: {vertex['name']}\n")
        self.say(key)
        if vertex.get("error") and "context canceled" not in vertex["error"]:
            self.errors[key] = vertex["error"]

    def say(self, key: str) -> None:
        """Print what a step does, once, where nobody sees live lines."""
        step = self.step(key)
        line = f"{self.owners[key] or 'build':<12} {step}"
        if not self.live and step and key in self.started and key not in self.cached and line not in self.said:
            self.said.add(line)
            print(line, file=sys.stderr, flush=True)

    def forget(self, pattern: str) -> None:
        """Forget the failures that `pattern` is found in, before another attempt."""
        self.words = [words for words in self.words if not re.search(pattern, words)]
        self.errors = {key: error for key, error in self.errors.items() if not re.search(pattern, error)}
        self.problems = {key: problems for key, problems in self.problems.items() if key in self.errors}

    def start_again(self, why: str) -> None:
        """Say why all that was done counts for nothing, and forget what has failed."""
        print(f"pyrlab: {why}", file=sys.stderr)
        self.forget("")
        self.current = ""

    def step(self, key: str) -> str:
        """What a step does, in a user's words; empty for BuildKit's own housekeeping."""
        known = next((words for pattern, words in STEPS if re.search(pattern, self.names[key])), "")
        return self.phases.get(key, known)

    def draw(self) -> None:
        """Redraw the live lines, at most five times a second."""
        if not self.live or time.monotonic() - self.last_draw < 0.2:
            return
        self.last_draw = time.monotonic()
        width = shutil.get_terminal_size().columns
        lines = []
        for image in ["", *self.images]:
            running = [key for key in self.started if key not in self.completed and self.owners[key] == image]
            steps = {self.step(key): key for key in running if self.step(key)}
            if not steps:
                continue
            said = next((self.output[key][-1].strip() for key in reversed(running) if key in self.output), "")
            since = time.time() - min(self.started[key] for key in steps.values())
            last = said.splitlines()[-1] if said else ""
            lines.append(f"{image or 'build':<12} {since:4.0f} s  {', '.join(steps)}  {last}"[: width - 1])
        self.erase()
        sys.stderr.write("".join(line + "\n" for line in lines))
        sys.stderr.flush()
        self.drawn = len(lines)

    def erase(self) -> None:
        """Take the live lines off the screen."""
        if self.drawn:
            sys.stderr.write(f"\033[{self.drawn}A\033[J")
            self.drawn = 0

    def notes(self) -> list[str]:
        """What pyrlab's own tools want the user to know of a build that worked, once."""
        new = {*self.noted} - self.told
        self.told |= new
        return sorted(new)

    def failure(self) -> Problem:
        """Why the build failed, after the last lines of the step that did, where these say more than it says itself."""
        self.erase()
        texts = {key: "".join(self.output.get(key, [])) for key in self.errors}
        if FULL in "\n".join([*self.words, *self.errors.values(), *texts.values()]).lower():
            return Problem(str(FULL_DISK))
        for key, error in self.errors.items():
            problems = self.problems.get(key, [])
            if texts[key] and (not problems or any(problem.words for problem in problems)):
                last = [line for line in texts[key].splitlines() if not line.startswith("+ ")][-30:]
                print("\n".join(last), file=sys.stderr)
            if problems:
                return Problem.of(problems)
            if texts[key]:
                return Problem(f"a build step failed ({self.step(key) or self.names[key]}): {error}")
        words = [*self.words, *self.errors.values()]
        return Problem(f"the build failed: {words[-1] if words else 'bake said nothing'}")
