# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes that came in by a real lxc-attach: refused, or left out of the image."""

import contextlib
import subprocess

import pytest

from .container import Container, wait_until

ISOLATION = 5

# Leaves somebody behind who belongs to the container from then on, and answers what it reads.
VISIT = "(exec sleep 1000 </dev/null >/dev/null 2>&1 &); exec cat"


class Visitor:
    """lxc-attach and the program that it runs, at the other ends of two pipes of ours."""

    def __init__(self, container: Container, command: str) -> None:
        laboratory = container.laboratory
        words = ["lxc-attach", "-P", laboratory.lxcpath, "-n", container.name, "--"]
        self.process = subprocess.Popen(
            [*map(str, words), "/bin/sh", "-c", command],
            env=laboratory.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def says_back(self, line: str) -> bool:
        self.process.stdin.write(line + "\n")
        return self.process.stdout.readline() == line + "\n"

    def wait(self) -> int:
        return self.process.wait(timeout=60)

    def leave(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def visit(container: Container, command: str = VISIT):
    visitor = Visitor(container, command)
    try:
        yield visitor
    finally:
        visitor.leave()


def count(container: Container, comm: str) -> int:
    return list(container.processes.values()).count(comm)


@pytest.mark.support("attached_process", "refuses")
def test_refused_with_command_line_and_remedy(container):
    container.start()
    with visit(container) as visitor:
        assert visitor.says_back("in")
        for words in (["check"], ["checkpoint"], ["checkpoint", "--stop"]):
            outcome = container.try_cr(words[0], container.name, *words[1:])
            assert outcome.code == ISOLATION, outcome.text
            [obstacle] = outcome.result.get("obstacles") or [outcome.result]
            assert obstacle["object"] == "attached_process"
            assert obstacle["comm"] == "cat"
            assert "(cat: cat)" in obstacle["message"]
            assert "--attached drop" in obstacle["hint"]
            assert visitor.says_back("still in")
    # With nobody visiting it can be done.
    container.checkpoint()


def test_left_out_and_runs_on(container):
    victim = container.add_victim("pipe")
    container.start()
    victim.ready()
    with visit(container) as visitor:
        assert visitor.says_back("before")
        container.cr("check", container.name, "--attached", "drop")
        outcome = container.checkpoint("--attached", "drop")
        assert any("cat" in event.get("text", "") for event in outcome.events), outcome.text
        assert visitor.says_back("after")
    container.stop()
    container.restart()
    # Whom the visitor had left behind is the container's own.
    assert count(container, "cat") == 0
    assert count(container, "sleep") == 1
    victim.verify()


def test_ends_with_the_container_and_can_come_again(container):
    victim = container.add_victim("pipe")
    container.start()
    victim.ready()
    for generation in range(2):
        with visit(container) as visitor:
            assert visitor.says_back("in")
            container.checkpoint("--stop", "--attached", "drop")
            assert container.state == "STOPPED"
            assert visitor.wait() != 0
        container.restart()
        assert count(container, "cat") == 0
        wait_until(
            lambda wanted=generation + 1: count(container, "sleep") == wanted, what="the sleepers"
        )
    victim.verify()


def test_setting_of_the_container(container):
    container.start()
    (container.directory / "lxc-cr.toml").write_text('attached = "drop"\n')
    with visit(container) as visitor:
        assert visitor.says_back("in")
        container.checkpoint()
        outcome = container.try_cr("checkpoint", container.name, "--attached", "refuse")
        assert outcome.code == ISOLATION
        assert visitor.says_back("still in")
