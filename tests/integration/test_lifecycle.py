# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens to processes in a container's life, with checkpoints in between."""

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import lxc
import pytest

from .container import Container, wait_until
from .settings import SUID_DUMPABLE, kept

UNSUPPORTED = 4


# What --debug describes of a checkpoint, in this order, and how often at least.
DESCRIBED = (
    (r"Read the kernel's types, and load BPF iterators", 1),
    (r"Look at the container while it runs", 1),
    (r"Make room for \d+ pages", 1),
    (r"Seize and interrupt task \d+ of the host", 3),
    (r"Wait until \d+ tasks stand", 1),
    (r"Read the tree of \d+ tasks", 1),
    (r"Read the \w+ behind descriptor \d+ of process \d+", 1),
    (r"Read sigaction of process 1", 1),
    (r"Read registers of thread 1", 1),
    (r"Copy the pages of process 1", 1),
    (r"Let \d+ tasks run", 1),
    (r"Write objects.cbor, \d+ bytes, and state.cbor, \d+", 1),
    (r"Write \d+ pages", 1),
)


def assert_described(outcome):
    """The engine has said of each thing that it did, before it did that."""
    lines = outcome.log
    places = []
    for pattern, least in DESCRIBED:
        found = [place for place, line in enumerate(lines) if re.fullmatch(pattern, line)]
        assert len(found) >= least, (pattern, lines)
        places.append(found[0])
    assert places == sorted(places)


def test_number_that_was_somebody_elses_at_the_first_checkpoint(container):
    """Each image has the process that had the number then."""
    victim = container.add_victim("high_pid")
    container.start()
    victim.ready()
    outcome = container.checkpoint("--image", f"{container.name}:first", "--debug")
    assert_described(outcome)
    victim.status.with_name(victim.status.name + ".change").touch()
    victim.wait_for("changed")
    container.checkpoint("--stop")
    container.restart()
    victim.verify()
    container.stop()
    container.restart(f"{container.name}:first")
    assert victim.lines == ["ready"]
    victim.verify()


@pytest.fixture
def _suid_dumpable():
    with kept(SUID_DUMPABLE):
        SUID_DUMPABLE.write_text("2")
        yield


@pytest.mark.usefixtures("_suid_dumpable")
def test_dumpable_for_root_alone(container):
    """PR_SET_DUMPABLE does not take it; a change of ids makes it."""
    victim = container.add_victim("suid_dumpable")
    container.start()
    victim.ready()
    container.checkpoint("--stop")
    container.restart()
    victim.verify()


# ---- job control -------------------------------------------------------------------------------


class Terminal:
    """What somebody who sits at tty1 types and sees."""

    def __init__(self, container: Container) -> None:
        self.fd = lxc.Container(container.name, container.laboratory.lxcpath).console_getfd(1)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def see(self, pattern: str, seconds: float = 20) -> None:
        """Until it shows; what is before it is forgotten."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < end, f"not {pattern!r}, but {self.seen!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
        self.seen = self.seen[found.end() :]


@contextlib.contextmanager
def sitting_at(container: Container):
    terminal = Terminal(container)
    try:
        yield terminal
    finally:
        os.close(terminal.fd)


def state_of(container: Container, comm: str) -> str:
    [pid] = [pid for pid, name in container.processes.items() if name == comm]
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_stopped_from_the_terminal(container):
    """Control-Z, and `fg` after a restart."""
    container.lines.append("tty1::once:/bin/sh -i")
    container.start()
    with sitting_at(container) as terminal:
        terminal.type("echo at-$((40+2))\n")
        terminal.see("at-42")
        terminal.type("sleep 4321\n")
        wait_until(lambda: "sleep" in container.processes.values(), what="sleep")
        terminal.type("\x1a")
        wait_until(lambda: state_of(container, "sleep") == "T", what="the stop")
        terminal.see("Stopped")
        container.checkpoint()
        assert state_of(container, "sleep") == "T"
    container.checkpoint("--stop")
    container.restart()
    assert state_of(container, "sleep") == "T"
    with sitting_at(container) as terminal:
        terminal.type("jobs\n")
        terminal.see(r"Stopped +sleep 4321")
        terminal.type("fg\n")
        wait_until(lambda: state_of(container, "sleep") == "S", what="fg")
        terminal.type("\x03")
        wait_until(lambda: "sleep" not in container.processes.values(), what="control-C")
        terminal.type("echo still-$((40+2))\n")
        terminal.see("still-42")


# ---- debuggers ---------------------------------------------------------------------------------

TRACERS = {
    "strace": ["strace", "-f", "-o", "/dev/null", "-p"],
    "gdb": ["gdb", "-nx", "-q", "-iex", "set auto-load off", "-p"],
}


@contextlib.contextmanager
def traced_by(tracer: str, pid: int):
    process = subprocess.Popen(
        [*TRACERS[tracer], str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(
            lambda: f"TracerPid:\t{process.pid}\n" in Path(f"/proc/{pid}/status").read_text(),
            what=tracer,
        )
        yield process
    finally:
        # Both let go of whom they trace: strace when it is told to end, gdb when nobody types.
        process.stdin.close()
        if tracer == "strace":
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@pytest.mark.parametrize("tracer", TRACERS)
def test_traced_by_a_real_program(tracer, container):
    victim = container.add_victim("files")
    container.start()
    victim.ready()
    pid = next(pid for pid, name in container.processes.items() if name == "files")
    with traced_by(tracer, pid) as process:
        for words in (["check"], ["checkpoint"], ["checkpoint", "--stop"]):
            outcome = container.try_cr(words[0], container.name, *words[1:])
            assert outcome.code == UNSUPPORTED, outcome.text
            [obstacle] = outcome.result["obstacles"]
            assert obstacle["object"] == "ptrace"
            assert f"process {process.pid} of the host ({tracer})" in obstacle["message"]
        assert container.state == "RUNNING"
    container.checkpoint()
    victim.verify()
