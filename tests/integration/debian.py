# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Debian root file system with the programs that people run, made once per session."""

import shutil
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


def make_debian(laboratory: Laboratory) -> Path:
    """The tree, with busybox as its init: its services are not what is tested here."""
    root = laboratory.path / "debian"
    if shutil.which("mmdebstrap") is None:
        raise FileNotFoundError("mmdebstrap is not installed; ./test.sh does that")
    run(
        "mmdebstrap", "--quiet", "--variant=minbase", "--aptopt=Apt::Install-Recommends false",
        f"--include={','.join(PACKAGES)}", SUITE, root, MIRROR, timeout=TIMEOUT,
    )  # fmt: skip
    (root / "sbin/init").symlink_to("/bin/busybox")
    for name in ("status", "victims", "work"):
        (root / name).mkdir()
        (root / name).chmod(0o1777)
    shutil.copytree(PROGRAMS, root / "programs")
    return root
