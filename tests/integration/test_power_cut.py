# SPDX-License-Identifier: LGPL-2.1-or-later
"""Everything that works on a container dies at once: afterwards all is old, or all is new."""

import shutil
from pathlib import Path

import pytest

from lxc_cr_plugin.pending import MARK

from ..trees import change, look
from .container import Container, wait_until
from .power import cut
from .test_backends import assert_nothing_kept_beside, verify
from .test_files import runs_on

BACKENDS = ["dir@xfs", "overlay@xfs", "btrfs@btrfs", "mount@ext4"]
CONTAINER, RESTART_FAILED = 3, 10

# Points of fault.py and of Reporter.step; a command stands still there.
CHECKPOINT = (
    "python:journal~", "files:freeze", "files:frozen", "python:manifest~", "files:finished",
    "python:commit~",
)  # fmt: skip
RESTART = (
    "python:engine~", "files:keep", "files:kept", "files:bring", "files:brought", "python:start~",
)  # fmt: skip
REPAIR = ("files:undone", "files:settle")

# The same in a rollback, where the way back begins with a checkpoint. Up to the commit nothing ends.
ROLLBACK_RUNS = ("files:frozen", "python:pending~", "checkpoint-committed~9000")
ROLLBACK_ENDED = (
    "python:stopped~", "files:kept", "files:bring", "files:brought", "restart-noted~9000",
    "restart-tree~9000",
)  # fmt: skip


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
    """The files are those from before, also when the way back is cut off; later they come as ever."""
    container, victim = running(backend)
    kinds = container.rootfs / "kinds"
    container.checkpoint("--stop")
    good = look(kinds)
    change(kinds)
    changed = look(kinds)
    for at in RESTART:
        cut(container, "restart", container.name, at=at)
        if at == "files:brought":
            for again in REPAIR:
                cut(container, "ls", at=again)
                container.cr("ls")
                assert look(kinds) == changed, again
                cut(container, "restart", container.name, at=at)
        container.cr("ls")
        assert container.state == "STOPPED", at
        assert look(kinds) == changed, at
        assert_nothing_kept_beside(container)
    container.restart()
    assert look(kinds) == good
    verify(victim)


@pytest.mark.parametrize("backend", ["btrfs@btrfs", "mount@ext4"])
def test_of_a_restart_that_was_complete(backend, running):
    """From the release on the new state is the one that counts, even if only kept files know of it."""
    container, victim = running(backend)
    kinds = container.rootfs / "kinds"
    container.checkpoint("--stop")
    good = look(kinds)
    for forgotten in (False, True):
        change(kinds)
        cut(container, "restart", container.name, at="python:confirm~")
        if forgotten:
            forget_run(container)
        container.cr("ls")
        assert container.state == "RUNNING"
        assert look(kinds) == good
        assert_nothing_kept_beside(container)
        runs_on(victim)
        if not forgotten:
            container.stop()
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
    power_cut(container, at="python:start~")
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
    power_cut(container, at="python:start~")
    (kinds / "work").write_bytes(b"of days")
    since = look(kinds)
    container.cr("repair", container.name, "--keep")
    assert look(kinds) == since
    assert_nothing_kept_beside(container)
    container.restart()
    verify(victim)


@pytest.mark.parametrize("backend", ["dir@xfs", "mount@ext4"])
def test_after_a_power_cut_the_next_command_repairs(backend, running):
    """Without /run; and nothing starts from a tree that is neither old nor new."""
    container, victim = running(backend)
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
