# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Debian root file system with the programs that people run, unpacked once per session."""

import hashlib
import shutil
import sys
from pathlib import Path

from .container import Laboratory, run

PROGRAMS = Path(__file__).parent / "programs"

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    "busybox-static",
    "gcc",
    "libc6-dev",
    "libcbor0.8",
    "lxc",
    "make",
    "nodejs",
    "openjdk-17-jdk-headless",
    "python3",
    "restic",
    "sqlite3",
    "systemd",
)

# Making it takes a minute on a quiet machine.
TIMEOUT = 900


def archive() -> Path:
    """The tree as it comes from Debian, kept beside the virtual environment: fetched once."""
    digest = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:16]
    kept = Path(sys.prefix) / f"debian-{digest}.tar"
    if not kept.exists():
        if shutil.which("mmdebstrap") is None:
            raise FileNotFoundError("mmdebstrap is not installed; ./test.sh does that")
        new = kept.with_suffix(".new.tar")
        run(
            "mmdebstrap", "--quiet", "--variant=minbase", "--aptopt=Apt::Install-Recommends false",
            f"--include={','.join(PACKAGES)}", SUITE, new, MIRROR, timeout=TIMEOUT,
        )  # fmt: skip
        new.replace(kept)
    return kept


def make_debian(laboratory: Laboratory) -> Path:
    """The tree, with busybox as its init: its services are not what is tested here."""
    root = laboratory.path / "debian"
    root.mkdir()
    run(
        "tar",
        "--extract",
        "--xattrs",
        "--numeric-owner",
        "-C",
        root,
        "-f",
        archive(),
        timeout=TIMEOUT,
    )
    (root / "sbin/init").symlink_to("/bin/busybox")
    for name in ("status", "victims", "work"):
        (root / name).mkdir()
        (root / name).chmod(0o1777)
    shutil.copytree(PROGRAMS, root / "programs")
    return root


if __name__ == "__main__":
    archive()
