# SPDX-License-Identifier: LGPL-2.1-or-later
"""lxc-checkpoint and lxc-restart, called as people call LXC's own."""

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from lxc_cr_plugin.config import FILE_VARIABLE

from .container import LXC_CR, Container, Victim, run, wait_until
from .test_files import runs_on

LXC_CHECKPOINT = LXC_CR.with_name("lxc-checkpoint")
LXC_RESTART = LXC_CR.with_name("lxc-restart")

USAGE, CONTAINER, STORE = 2, 3, 8


@pytest.fixture(autouse=True)
def configuration(laboratory, monkeypatch):
    monkeypatch.setenv(FILE_VARIABLE, str(laboratory.config))


@pytest.fixture
def ledger(container: Container) -> Victim:
    victim = container.add_victim("ledger")
    container.start()
    victim.ready()
    return victim


@pytest.fixture
def tool(container):
    """A function that runs one of the two on the container."""

    def call(*words: object, program: Path = LXC_CHECKPOINT, code: int = 0):
        done = run(
            program, "-P", container.laboratory.lxcpath, "-n", container.name, *words,
            env=container.laboratory.environment, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert done.stdout == ""
        return done.stderr

    return call


def test_the_examples_of_the_manual(container, ledger, tool, tmp_path):
    """lxc-checkpoint -n foo -D /tmp/checkpoint, and -r of the same."""
    directory = tmp_path / "checkpoint"
    container.checkpoint("--buffered")  # another image, which is not the one that is asked for
    (container.rootfs / "root/between").touch()
    tool("-D", directory)
    assert container.state == "RUNNING"
    runs_on(ledger)
    (container.rootfs / "root/new").touch()
    assert [image["buffered"] for image in container.images] == [True]
    assert directory.stat().st_mode & 0o777 == 0o700
    assert "is running" in tool("-r", "-D", directory, code=CONTAINER)
    container.stop()
    tool("-r", "-D", directory)
    assert container.state == "RUNNING"
    assert [path.name for path in (container.rootfs / "root").iterdir()] == ["between"]
    runs_on(ledger)
    assert "Use a fresh directory" in tool("-D", directory, code=STORE)
    # and lxc-cr looks into it
    container.cr("rm", container.name)
    shown = container.cr("inspect", container.name, "--store", directory).result
    assert shown["manifest"]["container"]["name"] == container.name
    ledger.verify()


@pytest.mark.parametrize(
    "words", [("-s", "-v"), ("--stop",), ("-sv",)], ids=["short", "long", "together"]
)
def test_stop_and_restore(words, container, ledger, tool, tmp_path):
    said = tool(*words, f"--checkpoint-dir={tmp_path / 'there'}")
    assert container.state == "STOPPED"
    assert ("Hash the files" in said) == ("--stop" not in words)
    tool("-d", "-D", tmp_path / "there", program=LXC_RESTART)
    ledger.verify()


def test_log_and_silence(container, ledger, tool, tmp_path):
    log = tmp_path / "log"
    assert tool("-q", "-o", log, "-l", "debug", "-s", "-D", tmp_path / "there") == ""
    text = log.read_text()
    assert " DEBUG " in text
    assert "Checkpoint crt" in text
    assert tool("-q", "-o", log, "-s", "-D", tmp_path / "other", code=CONTAINER) == ""
    assert "is not running" in log.read_text()[len(text) :]
    tool("--restore", "-D", tmp_path / "there")
    ledger.verify()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-r", "-s"], "-s is not compatible with -r"),
        (["-F"], "-d and -F need -r"),
        (["-r", "-d", "-F"], "-F is not compatible with -d"),
        (["-A", "/bin/true"], "-A is for CRIU"),
        (["--rcfile", "x"], "the container's own configuration"),
        (["-l", "loud"], "invalid choice: 'LOUD'"),
    ],
)
def test_what_is_refused(words, reason, tool, tmp_path):
    assert reason in tool("-D", tmp_path / "there", *words, code=USAGE)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("program", [LXC_CHECKPOINT, LXC_RESTART], ids=["checkpoint", "restart"])
@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["--page-server"], "lxc-cr export"),
        (["--page-server", "10.0.0.1"], "lxc-cr export"),
        (["--address", "10.0.0.1"], "lxc-cr export"),
        (["--port=0"], "lxc-cr export"),
        (["-p"], "without -s"),
        (["--pre-dump"], "without -s"),
        (["--predump-dir", "x"], "leave it out"),
        (["--predump-dir="], "leave it out"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else "",
)
def test_options_of_criu_name_the_way_out(program, words, way_out, tool, tmp_path):
    said = tool(*words, "-D", tmp_path / "there", program=program, code=USAGE)
    assert "is for CRIU, which is not used here" in said
    assert way_out in said
    assert not (tmp_path / "there").exists()


def test_a_directory_of_everybody_is_refused(container, ledger, tool, tmp_path):
    tmp_path.chmod(0o777)
    assert "only root can write" in tool("-D", tmp_path, code=STORE)
    assert container.state == "RUNNING"
    ledger.verify()


def test_in_the_foreground(container, tool, tmp_path):
    """With this terminal as the console; it stays until the container has ended."""
    container.lines.append("console::once:/bin/sh -c 'while :; do echo tick; sleep 0.1; done'")
    victim = container.add_victim("pipe")
    container.start()
    victim.ready()
    tool("-s", "-D", tmp_path / "there")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(
            LXC_CHECKPOINT,
            ["lxc-checkpoint", "-P", str(container.laboratory.lxcpath), "-n", container.name,
             "-r", "-F", "-D", str(tmp_path / "there")],
            container.laboratory.environment,
        )  # fmt: skip
    seen = read_until(terminal, b"tick")
    assert os.waitpid(pid, os.WNOHANG) == (0, 0), seen
    assert container.state == "RUNNING"
    victim.verify()
    # nobody holds the container's lock meanwhile
    container.checkpoint()
    container.stop()
    wait_until(lambda: os.waitpid(pid, os.WNOHANG) != (0, 0), what="the end of lxc-checkpoint")
    os.close(terminal)


def read_until(terminal: int, wanted: bytes) -> bytes:
    seen, deadline = b"", time.monotonic() + 30
    while wanted not in seen and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 4096)
    assert wanted in seen, seen
    return seen


def test_help():
    for program in (LXC_CHECKPOINT, LXC_RESTART):
        for word in ("--help", "-?", "--usage", "--version"):
            said = subprocess.run(
                [program, word], capture_output=True, text=True, check=True
            ).stdout
            assert program.name in said
