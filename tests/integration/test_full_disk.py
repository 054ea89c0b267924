# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where there is no room left: the container runs on, files stay as they are, nothing is left behind."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..trees import change, look
from .container import run
from .filesystems import loop_filesystem
from .power import stand_still
from .test_backends import assert_nothing_kept_beside, verify
from .test_files import runs_on

HOST, FULL, CHECKPOINT_FAILED = 7, 8, 9


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


@contextlib.contextmanager
def filled(directory: Path, *, left: int) -> Iterator[None]:
    """The file system of @directory has no more than @left bytes, for a `with` block."""
    filler = directory / "filler"
    fd = os.open(filler, os.O_RDWR | os.O_CREAT)
    try:
        for step in (1 << 30, 64 << 20, 1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(fd, os.fstat(fd).st_size, step)
        os.fsync(fd)
        os.ftruncate(fd, max(0, os.fstat(fd).st_size - left))
        yield
    finally:
        filler.unlink()
        os.close(fd)
        run("sync", "-f", directory)  # else btrfs has no room yet


@pytest.mark.parametrize("backend", ["dir@xfs", "overlay@ext4", "btrfs@btrfs"])
def test_a_container_without_room(backend, running):
    """Its file system fills up under the stop, with the store on it, and when files are to come back."""
    container, victim = running(backend, "eventfd")
    kinds, home = container.rootfs / "kinds", container.rootfs.resolve().parent
    large = kinds / "large"
    large.write_bytes(os.urandom(8 << 20))
    for at in ("files:freeze", "files:frozen"):
        store = ("--store", home / "store")
        process = stand_still(container, "checkpoint", container.name, *store, at=at)
        large.write_bytes(os.urandom(8 << 20))
        with filled(home, left=0):
            process.send_signal(signal.SIGCONT)
            text = "".join(process.communicate(timeout=60))
            assert process.returncode in (FULL, CHECKPOINT_FAILED), text
            assert "No space left on device" in text
            assert list(home.glob("store/[!.]*")) == list(home.glob("store/.staging/*")) == []
            assert container.state == "RUNNING"
    container.checkpoint("--stop")
    good = look(kinds)
    change(kinds)
    large.unlink()
    changed = look(kinds)
    for left in (0, 2 << 20):
        with filled(home, left=left):
            outcome = container.try_cr("restart", container.name)
            if backend != "btrfs@btrfs":  # which has all of it in the snapshot
                assert outcome.code == HOST, outcome.text
                assert "No space left on device" in outcome.text
                assert look(kinds) == changed
            assert_nothing_kept_beside(container)
        if outcome.code == 0:
            assert look(kinds) == good
            break
    else:
        container.restart()
        assert look(kinds) == good
    verify(victim)
