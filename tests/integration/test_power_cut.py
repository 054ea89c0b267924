# SPDX-License-Identifier: LGPL-2.1-or-later
"""Everything that works on a container dies at once: afterwards all is old, or all is new."""

import contextlib
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from lxc_cr_plugin.pending import MARK

from ..trees import change, look
from .container import Container, wait_until
from .filesystems import loop_filesystem
from .test_backends import assert_nothing_kept_beside, verify
from .test_files import runs_on

BACKENDS = ["dir@xfs", "overlay@xfs", "btrfs@btrfs"]
CONTAINER, FULL, RESTART_FAILED = 3, 8, 10

# Points of fault.py and of Reporter.step; a command stands still there.
CHECKPOINT = (
    "python:journal~", "files:freeze", "files:frozen", "python:manifest~", "files:finished",
    "python:commit~",
)  # fmt: skip
RESTART = (
    "files:keep", "files:kept", "files:bring", "files:brought", "python:engine~", "python:start~",
)  # fmt: skip

# The same in a rollback, where the way back begins with a checkpoint. Up to the commit nothing ends.
ROLLBACK_RUNS = ("files:frozen", "python:pending~", "checkpoint-committed~9000")
ROLLBACK_ENDED = (
    "python:stopped~", "files:kept", "files:bring", "files:brought", "restart-noted~9000",
    "restart-tree~9000",
)  # fmt: skip

# The system call in which an engine waits at a step.
CLOCK_NANOSLEEP = "230"


def cut(container: Container, verb: str, *arguments: str, at: str) -> None:
    """Run a command to this point, then kill it and all that it has started, at once."""
    process = container.spawn(verb, *arguments, LXC_CR_FAULT=at)
    command = psutil.Process(process.pid)
    wait_until(
        lambda: (
            process.poll() is not None
            or command.status() == psutil.STATUS_STOPPED
            or (at.endswith("000") and any(sleeps(child) for child in command.children()))
        ),
        what=f"{verb} at {at}",
    )
    assert process.poll() is None, process.communicate()
    for victim in [*command.children(recursive=True), command]:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(victim.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def sleeps(process: psutil.Process) -> bool:
    """Whether it is an engine that waits at a step."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}/syscall").read_text().startswith(f"{CLOCK_NANOSLEEP} ")
    return False


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


@pytest.mark.parametrize("backend", ["dir@xfs", "btrfs@btrfs"])
def test_of_a_rollback(backend, running):
    """It runs as before, or as in the image; who comes next sees to that."""
    container, victim = running(backend)
    kinds = container.rootfs / "kinds"
    wanted = f"{container.name}:good"
    container.checkpoint("--image", wanted)
    good = look(kinds)
    change(kinds)
    changed = look(kinds)
    steps = [*ROLLBACK_RUNS, *ROLLBACK_ENDED]
    if backend.startswith("btrfs"):
        steps = ["files:brought"]
    for at in steps:
        init = container.init_pid
        cut(container, "rollback", container.name, wanted, at=at)
        told = container.cr("ls").text
        assert container.state == "RUNNING", (at, told)
        assert (container.init_pid == init) == (at in ROLLBACK_RUNS), at
        assert look(kinds) == changed, at
        assert not (container.directory / MARK).exists()
        assert_nothing_kept_beside(container)
        runs_on(victim)
    cut(container, "rollback", container.name, wanted, at="python:confirm~")
    container.cr("ls")
    assert container.state == "RUNNING"
    assert look(kinds) == good
    assert not (container.directory / MARK).exists()
    verify(victim)


def test_of_a_rollback_without_a_way_back(running):
    """What runs is lost from when it is killed on; from then on only the image counts."""
    container, victim = running("dir@xfs")
    kinds = container.rootfs / "kinds"
    container.checkpoint()
    good = look(kinds)
    for at in ("python:kill~", "files:brought"):
        change(kinds)
        changed = look(kinds)
        cut(container, "rollback", container.name, "--no-checkpoint", at=at)
        container.cr("repair")
        assert container.state == "RUNNING"
        assert look(kinds) == (changed if at == "python:kill~" else good)
        assert not (container.directory / MARK).exists()
        if at == "python:kill~":
            container.cr("rollback", container.name, "--no-checkpoint")
    verify(victim)


def test_a_rollback_whose_way_back_fails_as_well(running):
    """Said once, with what to do; a plain start of a container with hooks would try again."""
    container, victim = running("dir@xfs")
    container.checkpoint()
    place = container.directory / "config"
    config = place.read_text()
    cut(container, "rollback", container.name, at="files:brought")
    forget_run(container)
    image = (container.directory / MARK).read_text().splitlines()[0]
    place.write_text(config + "lxc.init.cmd = /nowhere\n")
    outcome = container.try_cr("repair")
    assert outcome.code == RESTART_FAILED, outcome.text
    assert "is stopped since a rollback was cut off" in outcome.text
    assert f"lxc-cr restart {container.name} {image}" in outcome.text
    assert "cut off" not in container.cr("ls").text
    place.write_text(config)
    container.restart(image)
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


def power_cut(container: Container, *arguments: str, at: str) -> None:
    """Everything dies at this point of a restart, and /run is another one afterwards."""
    cut(container, "restart", container.name, *arguments, at=at)
    wait_until(lambda: container.state == "STOPPED", what="the end of what was started")
    forget_run(container)


def forget_run(container: Container) -> None:
    for path in container.laboratory.run_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.mark.parametrize("backend", ["dir@xfs", "btrfs@btrfs"])
def test_work_after_a_power_cut_is_not_undone(backend, running):
    """A plain start ran on the files that were brought: whoever comes later has to choose."""
    container, victim = running(backend)
    kinds = container.rootfs / "kinds"
    container.checkpoint("--stop")
    change(kinds)
    changed = look(kinds)
    power_cut(container, at="python:engine~")
    (kinds / "work").write_bytes(b"of days")
    since = look(kinds)
    for files in ("keep", "rollback"):
        outcome = container.try_cr("restart", container.name, "--files", files)
        assert outcome.code == RESTART_FAILED, outcome.text
        assert "1 files there were changed since: /kinds/work" in outcome.text
        assert look(kinds) == since
    container.start()
    outcome = container.try_cr("repair", container.name, "--undo")
    assert outcome.code == CONTAINER, outcome.text
    container.stop()
    assert look(kinds) == since
    container.cr("repair", container.name, "--undo")
    assert look(kinds) == changed
    assert_nothing_kept_beside(container)
    power_cut(container, at="python:engine~")
    (kinds / "work").write_bytes(b"of days")
    since = look(kinds)
    container.cr("repair", container.name, "--keep")
    assert look(kinds) == since
    assert_nothing_kept_beside(container)
    container.restart()
    verify(victim)


def test_after_a_power_cut_the_next_command_repairs(running):
    """Without /run; and nothing starts from a tree that is neither old nor new."""
    container, victim = running("dir@xfs")
    kinds = container.rootfs / "kinds"
    container.checkpoint("--stop")
    change(kinds)
    changed = look(kinds)
    for at in ("files:kept", "files:bring", "files:brought"):
        power_cut(container, at=at)
        if at == "files:bring":
            assert not kinds.exists()
            assert container.lxc("start", "-d", check=False).returncode != 0
            wait_until(container.remove_monitor_cgroups, what="the end of the monitor")
        container.cr("ls")
        assert look(kinds) == changed, at
        assert_nothing_kept_beside(container)
    container.restart()
    verify(victim)


def test_a_power_cut_after_the_release(running):
    """Only the kept directory knows that the restart was complete."""
    container, victim = running("btrfs@btrfs")
    kinds = container.rootfs / "kinds"
    container.checkpoint("--stop")
    good = look(kinds)
    change(kinds)
    cut(container, "restart", container.name, at="python:confirm~")
    forget_run(container)
    container.cr("ls")
    assert_nothing_kept_beside(container)
    assert container.state == "RUNNING"
    assert look(kinds) == good
    verify(victim)
