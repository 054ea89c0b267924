# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file tree with one of everything, a change of each sort, and a look at it."""

import os
import socket
import stat
from pathlib import Path

from lxc_cr_plugin.snapshot import content

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


# An ACL of version 2: owner rw-, user 1000 r--, group r--, mask r--, others ---.
ACL = bytes.fromhex(
    "02000000 01000600ffffffff 02000400e8030000 04000400ffffffff 10000400ffffffff 20000000ffffffff"
)

# Every path that `change` touches, but directories above.
CHANGED = (
    "dir/deep/large", "dir", "small", "empty", "sparse", "link", "link/inside", "fifo", "null",
    "setuid", "capable", "acl", "new/one/file", "socket",
)  # fmt: skip


def build(root: Path) -> None:
    """A tree with one of everything."""
    (root / "dir/deep").mkdir(parents=True)
    (root / "dir/deep/large").write_bytes(os.urandom(200_000))
    (root / "small").write_bytes(b"small")
    (root / "empty").write_bytes(b"")
    with (root / "sparse").open("wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
        file.truncate((1 << 30) + 10_000)
    os.link(root / "dir/deep/large", root / "second-name")
    (root / "link").symlink_to("/etc/shadow")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "whiteout", stat.S_IFCHR, 0)
    (root / "setuid").write_bytes(b"x" * 5000)
    os.chown(root / "setuid", 1000, 1001)
    (root / "setuid").chmod(0o4755)
    (root / "capable").write_bytes(b"y" * 5000)
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    (root / "acl").write_bytes(b"for some")
    os.setxattr(root / "acl", "system.posix_acl_access", ACL)
    os.setxattr(root / "small", "user.note", b"\x00\xff")
    os.setxattr(root / "dir", "trusted.overlay.opaque", b"y")
    os.chown(root / "link", 5, 6, follow_symlinks=False)
    (root / os.fsdecode(b"name\xff\n")).write_bytes(b"strange")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(root / "socket"))
    for path in (root / "dir", root / "small", root / "link"):
        os.utime(path, ns=(1, 1234567890123456789), follow_symlinks=False)
    # ext4 makes 2446 of it, which is too much for nanoseconds in 64 bits, too.
    os.utime(root / "setuid", ns=(1, 2**40 * 10**9 + 7))


def look(root: Path) -> dict[str, tuple]:
    """The tree as a program sees it, found out without the code under test."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content_seen: object = None
        if kind == stat.S_IFREG and status.st_size < 1 << 24:
            content_seen = path.read_bytes()
        elif kind == stat.S_IFREG:
            with path.open("rb") as file:
                content_seen = (status.st_size, list(content.extents(file.fileno(), size=1 << 40)))
        elif kind == stat.S_IFLNK:
            content_seen = str(path.readlink())
        found[str(path.relative_to(root))] = (
            status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev,
            status.st_nlink if kind != stat.S_IFDIR else 0, content_seen,
            {key: os.getxattr(path, key, follow_symlinks=False)
             for key in os.listxattr(path, follow_symlinks=False)},
        )  # fmt: skip
    return found


def change(root: Path) -> None:
    """One change of each sort."""
    (root / "dir/deep/large").write_bytes(b"other")
    (root / "small").unlink()
    (root / "empty").write_bytes(b"no more")
    (root / "sparse").unlink()
    (root / "link").unlink()
    (root / "link").mkdir()
    (root / "link/inside").write_bytes(b"new")
    (root / "fifo").unlink()
    (root / "fifo").write_bytes(b"a file now")
    (root / "null").unlink()
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (root / "setuid").chmod(0o644)
    os.removexattr(root / "capable", "security.capability")
    os.removexattr(root / "acl", "system.posix_acl_access")
    os.setxattr(root / "dir", "user.more", b"more")
    (root / "new/one").mkdir(parents=True)
    (root / "new/one/file").write_bytes(b"new")
    (root / "socket").unlink()
