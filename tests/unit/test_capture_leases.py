# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files with a lease on them are read without its holder, or anybody who waits for it, noticing."""

import errno
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lxc_cr_plugin.errors import CheckpointError
from lxc_cr_plugin.snapshot.capture import Capture, Known, key_of, leases
from lxc_cr_plugin.snapshot.tree import Tree
from lxc_cr_plugin.snapshot.tree_backend import unambiguous
from lxc_cr_plugin.snapshot.view import Stamp, View

from ..integration.filesystems import loop_filesystem

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="copies descriptors of other processes")

CONTENT = b"leased" * 1000


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "rootfs/file"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@contextmanager
def leased(file: Path, kind: int) -> Iterator[int]:
    """A process that has taken a lease, and keeps it when it is asked to give it up; its pid."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        flags = os.O_RDONLY if kind == fcntl.F_RDLCK else os.O_RDWR
        fcntl.fcntl(os.open(file, flags), fcntl.F_SETLEASE, kind)
        os.write(tell, b"L")
        while True:
            signal.pause()
    try:
        os.close(tell)
        assert os.read(told, 1) == b"L"
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(told)


def identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


def line_of(file: Path) -> str:
    """What /proc/locks says of it."""
    (line,) = [
        line
        for line in Path("/proc/locks").read_text().splitlines()
        if f":{file.stat().st_ino} " in line
    ]
    return line


def captured(file: Path, target: Path) -> bytes:
    """Its content, from a capture that began while everything ran."""
    target.mkdir()
    with Tree(file.parent) as tree:
        taken = Capture(tree, target=target, known=Known({}, {}))
        taken.prepare(check_space=lambda _need: None)
        taken.freeze()
        row = taken.finish(ended=True).rows[file.name]
    assert row.digest
    return (target / row.digest.hex()).read_bytes()


def test_a_write_lease_is_not_broken(file, tmp_path):
    with leased(file, fcntl.F_WRLCK) as holder:
        assert leases()[identity(file)] == holder
        assert captured(file, tmp_path / "contents") == CONTENT
        assert " ACTIVE    WRITE " in line_of(file)
    assert identity(file) not in leases()


def test_a_lease_that_is_being_broken_is_not_waited_for(file, tmp_path):
    with leased(file, fcntl.F_WRLCK) as holder:
        with pytest.raises(BlockingIOError):
            os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        assert " BREAKING " in line_of(file)
        assert leases()[identity(file)] == holder
        assert captured(file, tmp_path / "contents") == CONTENT
        assert " BREAKING " in line_of(file)


def test_a_read_lease_is_shared_with_readers(file, tmp_path):
    with leased(file, fcntl.F_RDLCK):
        assert identity(file) not in leases()
        assert captured(file, tmp_path / "contents") == CONTENT
        assert " ACTIVE " in line_of(file)


def test_a_holder_who_cannot_be_found(file, tmp_path, monkeypatch):
    """Opening would wait, or break the lease: refused by its path."""
    other = tmp_path / "other"
    other.touch()
    with leased(other, fcntl.F_WRLCK) as holder:
        table = {identity(file): holder}
        monkeypatch.setattr("lxc_cr_plugin.snapshot.capture.leases", lambda: table)
        with pytest.raises(CheckpointError, match=r"'file'.*has a lease on it") as caught:
            captured(file, tmp_path / "contents")
    assert caught.value.errno == errno.EBUSY


def test_in_a_directory_of_btrfs(tmp_path, monkeypatch):
    """Each subvolume has a device of its own, but not in /proc/locks."""
    with loop_filesystem("btrfs", tmp_path / "btrfs", megabytes=256) as place:
        file = place / "rootfs/file"
        file.parent.mkdir()
        file.write_bytes(CONTENT)
        twin = place / "twin"
        subprocess.run(["btrfs", "-q", "subvolume", "snapshot", place, twin], check=True)
        with leased(file, fcntl.F_WRLCK):
            # its inode has the same number, and no lease
            assert captured(twin / "rootfs/file", tmp_path / "of-twin") == CONTENT
            assert captured(file, tmp_path / "contents") == CONTENT
            assert " ACTIVE    WRITE " in line_of(file)
        (place / "both").mkdir()
        same_numbers(place / "both", tmp_path / "alike", monkeypatch)


def same_numbers(root: Path, target: Path, monkeypatch) -> None:
    """Files of two subvolumes that have the same inode number, times and size are two files."""
    for name in "ab":
        subprocess.run(["btrfs", "-q", "subvolume", "create", root / name], check=True)
        (root / name / "file").write_text(name)
    # Before Linux 6.13 all that happens within some milliseconds has the same time.
    monkeypatch.setattr(
        "lxc_cr_plugin.snapshot.capture.key_of",
        lambda status: (*key_of(status)[:1], 0, 0, *key_of(status)[3:]),
    )
    target.mkdir()
    with Tree(root) as tree:
        taking = Capture(tree, target=target, known=Known({}, {}))
        taking.prepare(check_space=lambda _need: None)
        taking.freeze()
        taken = taking.finish(ended=True)
    files = [taken.rows[f"{name}/file"] for name in "ab"]
    assert [file.data for file in files] == [b"a", b"b"]
    alike = [file._replace(mtime=0, stamp=Stamp(file.stamp.inode, 0)) for file in files]
    assert unambiguous(View.of(alike)) == {}
    assert len(unambiguous(View.of([*alike[:1], alike[0]._replace(path="c")]))) == 1


LOCKS = """\
1: POSIX  ADVISORY  WRITE 1001 fe:01:11 0 EOF
2: LEASE  ACTIVE    WRITE 1002 fe:01:12 0 EOF
3: LEASE  ACTIVE    READ 1003 fe:01:13 0 EOF
4: LEASE  BREAKING  READ 1004 fe:01:14 0 EOF
5: LEASE  BREAKING  UNLCK 1005 00:2f:15 0 EOF
6: FLOCK  ADVISORY  WRITE 1006 fe:01:16 0 EOF
7: DELEG  ACTIVE    READ 1007 fe:01:17 0 EOF
7: -> LEASE BREAKER WRITE 1008 fe:01:18 0 EOF
"""


def test_lines_of_the_kernel(monkeypatch):
    """Numbers of a device are hexadecimal; leases for reading only are nobody's obstacle."""
    monkeypatch.setattr(Path, "read_text", lambda _path: LOCKS)
    assert leases() == {
        (os.makedev(0xFE, 1), 12): 1002,
        (os.makedev(0xFE, 1), 14): 1004,
        (os.makedev(0, 0x2F), 15): 1005,
    }
