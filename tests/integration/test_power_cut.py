# SPDX-License-Identifier: LGPL-2.1-or-later
"""Everything that works on a container dies at once: afterwards all is old, or all is new."""

import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest

from ..trees import change, look
from .container import Container, wait_until
from .filesystems import loop_filesystem
from .test_backends import assert_nothing_kept_beside, verify
from .test_files import runs_on

BACKENDS = ["dir@xfs", "overlay@xfs", "btrfs@btrfs"]
FULL = 8

# Points of fault.py and of Reporter.step; a command stands still there.
CHECKPOINT = (
    "python:journal~", "files:freeze", "files:frozen", "python:manifest~", "files:finished",
    "python:commit~",
)  # fmt: skip
RESTART = (
    "files:keep", "files:kept", "files:bring", "files:brought", "python:engine~", "python:start~",
)  # fmt: skip


def cut(container: Container, verb: str, *arguments: str, at: str) -> None:
    """Run a command to this point, then kill it and all that it has started, at once."""
    process = container.spawn(verb, *arguments, LXC_CR_FAULT=at)
    command = psutil.Process(process.pid)
    wait_until(
        lambda: process.poll() is not None or command.status() == psutil.STATUS_STOPPED,
        what=f"{verb} at {at}",
    )
    assert process.poll() is None, process.communicate()
    for victim in [*command.children(recursive=True), command]:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(victim.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def images_of(container: Container) -> list[Path]:
    return sorted((container.laboratory.store / container.name).glob("?" * 64))


def snapshots_of(container: Container) -> list[Path]:
    home = container.rootfs.resolve().parent.parent / ".lxc-cr-snapshots"
    return sorted(home.iterdir()) if home.exists() else []


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_a_checkpoint(backend, running):
    """The container runs on, and there is no image; nothing of one is left."""
    container, victim = running(backend)
    container.checkpoint("--image", f"{container.name}:first")
    images, snapshots = images_of(container), snapshots_of(container)
    for at in CHECKPOINT:
        cut(container, "checkpoint", container.name, at=at)
        container.cr("ls")
        assert images_of(container) == images, at
        assert snapshots_of(container) == snapshots, at
        assert list(container.laboratory.store.glob(".staging/*")) == [], at
        runs_on(victim)
    container.checkpoint("--stop")
    container.restart()
    verify(victim)


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_a_restart(backend, running):
    """The files are those from before, and a restart brings them to the image as ever."""
    container, victim = running(backend)
    kinds = container.rootfs / "kinds"
    container.checkpoint("--stop")
    good = look(kinds)
    change(kinds)
    changed = look(kinds)
    for at in RESTART:
        cut(container, "restart", container.name, at=at)
        container.cr("ls")
        assert container.state == "STOPPED", at
        assert look(kinds) == changed, at
        assert_nothing_kept_beside(container)
    container.restart()
    assert look(kinds) == good
    verify(victim)


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_what_repairs(backend, running):
    """The way back is cut off as well; the next one finds the rest of it."""
    container, victim = running(backend)
    kinds = container.rootfs / "kinds"
    container.checkpoint("--stop")
    good = look(kinds)
    change(kinds)
    changed = look(kinds)
    for at in ("files:undone", "files:settle"):
        cut(container, "restart", container.name, at="files:brought")
        cut(container, "ls", at=at)
        container.cr("ls")
        assert look(kinds) == changed, at
        assert_nothing_kept_beside(container)
    container.restart()
    assert look(kinds) == good
    verify(victim)


def test_of_a_restart_that_was_complete(running):
    """From the release on the new state is the one that counts."""
    container, victim = running("btrfs@btrfs")
    kinds = container.rootfs / "kinds"
    container.checkpoint("--stop")
    good = look(kinds)
    change(kinds)
    cut(container, "restart", container.name, at="python:confirm~")
    container.cr("ls")
    assert container.state == "RUNNING"
    assert look(kinds) == good
    assert_nothing_kept_beside(container)
    verify(victim)


@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_a_store_that_is_really_full(kind, running, tmp_path):
    """It fills up while the image is written; the container runs on and nothing is left."""
    container, victim = running("dir@xfs")
    (container.rootfs / "kinds/large").write_bytes(os.urandom(4 << 20))
    with loop_filesystem(kind, tmp_path / "small", megabytes=128) as small:
        filler = small / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        for left in (64 << 10, 3 << 20):
            os.truncate(filler, max(0, filler.stat().st_size - left))
            outcome = container.try_cr("checkpoint", container.name, "--store", small / "store")
            assert outcome.code == FULL, outcome.text
            assert list(small.glob("store/*")) == []
            assert list(small.glob("store/.staging/*")) == []
            runs_on(victim)
    verify(victim)
