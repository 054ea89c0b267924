# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the command says: messages for people, or one JSON object per line for machines.

People get results on stdout and everything else on stderr. With --json stdout carries events, one
per line, and nothing else: {"event": "log" | "progress" | "obstacle" | "result" | "error", ...}.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from .errors import HostError, LxcCrError, Obstacle, os_message

DEBUG = 10
INFO = 20
WARNING = 30
ERROR = 40

LEVEL_NAMES = {DEBUG: "debug", INFO: "info", WARNING: "warning", ERROR: "error"}


class Reporter:
    """One per command, handed down to whoever has something to say.

    @fault is the test hook: "python:STEP" kills this process when step STEP begins,
    "python:STEP~" stops it there.
    """

    program = "lxc-cr"

    def __init__(
        self,
        *,
        json_lines: bool = False,
        debug: bool = False,
        fault: str | None = None,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self.json_lines = json_lines
        self.debugging = debug
        self.lowest_level = DEBUG if debug else INFO
        self._fault = fault
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._bar = None if json_lines or debug else ProgressBar.for_terminal(self._err)
        self._depth = 0
        self._unheard: OSError | None = None

    @contextlib.contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        """Say what is about to happen (with --debug), and afterwards whether it did."""
        if self._fault == f"python:{name}":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault == f"python:{name}~":
            os.kill(os.getpid(), signal.SIGSTOP)
        self.debug(f"{'  ' * self._depth}+ {text}")
        self._depth += 1
        try:
            yield
        except BaseException:
            # In parentheses, so that the eye finds the step that failed and not those around it.
            self.debug(f"{'  ' * (self._depth - 1)}({text})")
            raise
        finally:
            self._depth -= 1

    def debug(self, text: str) -> None:
        """A line for --debug."""
        self.log(DEBUG, text)

    def info(self, text: str) -> None:
        """A line for everybody."""
        self.log(INFO, text)

    def warning(self, text: str) -> None:
        """A line that asks for attention."""
        self.log(WARNING, text)

    def log(self, level: int, text: str) -> None:
        """A line of @level (DEBUG, INFO, WARNING, ERROR); debug lines only with --debug."""
        if level < self.lowest_level:
            return
        if self.json_lines:
            self._event("log", level=LEVEL_NAMES.get(level, str(level)), text=text)
        else:
            prefix = "" if level < WARNING else f"{LEVEL_NAMES.get(level, level)}: "
            self._line(prefix + text)

    def progress(self, stage: str, done: int, total: int) -> None:
        """How far @stage has come, in bytes or items; @total is 0 when unknown."""
        if self.json_lines:
            self._event("progress", stage=stage, done=done, total=total)
        elif self._bar:
            self._bar.show(stage=stage, done=done, total=total)

    def obstacle(self, obstacle: Obstacle) -> None:
        """One reason why a checkpoint is refused."""
        if self.json_lines:
            self._event("obstacle", **obstacle.as_json())
        else:
            self._line(f"- {obstacle.message}")
            if obstacle.hint:
                self._line(f"  {obstacle.hint}")

    def result(self, members: Mapping[str, Any], *, text: str) -> None:
        """The outcome: @members for machines, @text for people."""
        if self.json_lines:
            self._event("result", **members)
        else:
            self._clear()
            self._say("\n".join(map(printable, text.split("\n"))), file=self._out)

    def error(self, error: LxcCrError) -> None:
        """Why the command failed, altogether or at one of several containers or images."""
        if not self.json_lines:
            self._line(f"{self.program}: {error}")
        for obstacle in error.obstacles:
            self.obstacle(obstacle)
        if self.json_lines:
            self._event("error", **error.as_json())
        elif error.hint:
            self._line(f"{self.program}: {error.hint}")
        if self.json_lines and self._unheard:
            self._line(f"{self.program}: {error}")

    def refuse_unheard(self) -> None:
        """Raise HostError if something for stdout is lost; whoever has closed a pipe did not want it."""
        if self._unheard:
            raise HostError(
                f"Failed to write to standard output: {os_message(self._unheard)}",
                hint="What the command had to do is done",
                errno=self._unheard.errno or 0,
            )

    def close(self) -> None:
        """Take the progress bar off the screen."""
        self._clear()

    def _event(self, event: str, **members: Any) -> None:
        self._say(json.dumps({"event": event, **members}), file=self._out)

    def _line(self, text: str) -> None:
        self._clear()
        self._say(printable(text), file=self._err)

    def _say(self, text: str, *, file: TextIO) -> None:
        error = say(text, file=file)
        if error and file is self._out and not isinstance(error, BrokenPipeError):
            self._unheard = error

    def _clear(self) -> None:
        if self._bar:
            self._bar.clear()


class ProgressBar:
    """One line of a terminal, redrawn at most ten times a second."""

    def __init__(self, *, file: TextIO) -> None:
        self._file = file
        self._next = 0.0
        self._shown = False

    @classmethod
    def for_terminal(cls, file: TextIO) -> ProgressBar | None:
        """A bar when @file is a terminal that can redraw a line, else None."""
        if not file.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            return None
        return cls(file=file)

    def show(self, *, stage: str, done: int, total: int) -> None:
        """Draw @stage; nothing happens when the last drawing is less than 0.1 s old."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + 0.1
        share = min(done / total, 1.0) if total else 0.0
        bar = ("#" * round(share * 30)).ljust(30)
        say(f"\r\033[K{printable(stage):<12} [{bar}] {share:4.0%}", file=self._file, end="")
        self._shown = True

    def clear(self) -> None:
        """Leave an empty line to whoever writes next."""
        if self._shown:
            say("\r\033[K", file=self._file, end="")
            self._shown = False


def say(text: str, *, file: TextIO, end: str = "\n") -> OSError | None:
    """Print @text; what makes that fail is returned, and nothing more is said there.

    A container must not be left half way because a disk is full of our messages, or a terminal gone.
    """
    try:
        print(text, file=file, end=end, flush=True)
    except OSError as error:
        # The buffer still holds it, and would fail again.
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, file.fileno())
        os.close(null)
        return error
    return None


def printable(text: str) -> str:
    """@text with control characters, ends of lines, and bytes that are no UTF-8 made visible.

    Names of processes and files come from the container, which may not steer our terminal, nor say
    something in our name.
    """
    return "".join(
        char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in text
    )


def human_size(size: float) -> str:
    """@size in bytes for people: 999 B, 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def human_time(nanoseconds: float) -> str:
    """@nanoseconds for people: 850 µs, 12.3 ms, 1.25 s."""
    if nanoseconds < 1e6:
        return f"{nanoseconds / 1e3:.0f} µs"
    if nanoseconds < 1e9:
        return f"{nanoseconds / 1e6:.1f} ms"
    return f"{nanoseconds / 1e9:.2f} s"
