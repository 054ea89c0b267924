# SPDX-License-Identifier: LGPL-2.1-or-later
"""File systems in a file, for tests of what the machine's own one cannot do."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .container import Container, run


@contextlib.contextmanager
def loop_filesystem(kind: str, place: Path, *, megabytes: int) -> Iterator[Path]:
    """A file system of this kind, mounted at @place and gone afterwards."""
    file = place.with_name(f"{place.name}.img")
    with file.open("wb") as made:
        made.truncate(megabytes << 20)
    try:
        run(f"mkfs.{kind}", "-q", file)
        place.mkdir()
        run("mount", "-o", "loop", file, place)
        try:
            yield place
        finally:
            run("umount", place)
            place.rmdir()
    finally:
        file.unlink()


def shared_bytes(path: Path) -> int:
    """Bytes of a file that another file has too, by FIEMAP; the file is written out first."""
    lines = run("filefrag", "-s", "-v", "-b1", path).stdout.splitlines()
    return sum(int(line.split(":")[3]) for line in lines if "shared" in line.rpartition(":")[2])


def subvolumes_below(place: Path) -> list[str]:
    """Paths of the subvolumes of the btrfs at @place."""
    lines = subprocess.run(
        ["btrfs", "subvolume", "list", str(place)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return sorted(line.rpartition(" path ")[2] for line in lines)


def store_on(container: Container, home: Path, kind: str) -> None:
    """Move a container's files to the directory @home, as a "dir", "overlay" or "btrfs" there.

    A "mount" is a directory on which a file system of its own is mounted.
    """
    base = home / "rootfs"
    if kind == "btrfs":
        run("btrfs", "subvolume", "create", base)
    else:
        base.mkdir()
    path = f"{kind}:{base}"
    if kind == "mount":
        path = f"dir:{base}"
        with (home / "rootfs.img").open("wb") as file:
            file.truncate(64 << 20)
        run("mkfs.ext4", "-q", "-b", "4096", home / "rootfs.img")
        run("mount", "-o", "loop", home / "rootfs.img", base)
    if kind == "overlay":
        for name in ("etc", "victims", "root"):
            (base / name).mkdir()
        base = home / "lower"
        base.mkdir()
        path = f"overlay:{base}:{home}/rootfs"
    run("cp", "-a", "--reflink=auto", f"{container.rootfs}/.", base)
    shutil.rmtree(container.rootfs)
    container.rootfs.symlink_to(home / "rootfs")
    container.configure(f"lxc.rootfs.path = {path}")


def remove_store(home: Path, btrfs: Path) -> None:
    """Remove it, and if it is below @btrfs all subvolumes there."""
    if (home / "rootfs.img").exists():
        run("umount", home / "rootfs")
    if home.is_relative_to(btrfs):
        found = subvolumes_below(btrfs)
        for path in found:
            run("btrfs", "property", "set", btrfs / path, "ro", "false")
        for path in reversed(found):
            run("btrfs", "subvolume", "delete", btrfs / path)
    shutil.rmtree(home)
