# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who writes settings of a network is counted, and nobody else."""

import contextlib
import errno
import mmap
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from lxc_cr_plugin import mounts
from lxc_cr_plugin.errors import HostError
from lxc_cr_plugin.native.setting_writes import SettingWrites
from lxc_cr_plugin.network import sysctl

# In a network of its own: nothing on this machine is changed.
WRITE = "echo 1 >/proc/sys/net/ipv4/ip_forward"

# What it is already.
WRITE_ELSEWHERE = "cat /proc/sys/vm/swappiness >/proc/sys/vm/swappiness"


@pytest.fixture
def cgroup():
    """One of our own, where nobody else writes."""
    try:
        sysctl.count_writes(os.getpid()).close()
    except HostError as error:
        pytest.skip(str(error))
    top = next(m.place for m in mounts.read("self") if m.type == "cgroup2" and m.root == "/")
    directory = Path(top) / f"lxc-cr-test-{uuid.uuid4()}"
    directory.mkdir()
    yield directory
    directory.rmdir()


def run(script):
    subprocess.run(["unshare", "-n", "sh", "-ec", script], check=True)


def descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_writes_below_the_cgroup_are_counted(cgroup):
    before = descriptors()
    with contextlib.closing(SettingWrites(str(cgroup))) as writes:
        assert writes.count() == 0
        run(WRITE)
        assert writes.count() == 0
        run(f"echo $$ >{cgroup}/cgroup.procs; cat /proc/sys/net/ipv4/ip_forward; {WRITE}; {WRITE}")
        assert writes.count() == 2
        run(f"echo $$ >{cgroup}/cgroup.procs; {WRITE_ELSEWHERE}")
        assert writes.count() == 2
    assert descriptors() == before


def test_writes_of_everybody_are_counted(cgroup):
    """Others may write at the same time."""
    with contextlib.closing(sysctl.count_writes(os.getpid())) as writes:
        for line in ("", f"echo $$ >{cgroup}/cgroup.procs"):
            before = writes.count()
            run(f"{line}\n{WRITE}")
            assert writes.count() > before


def test_a_counter_that_cannot_be_seen_is_not_left_behind(cgroup, monkeypatch):
    def fail(*_, **__):
        raise OSError("no")

    before = descriptors()
    monkeypatch.setattr(mmap, "mmap", fail)
    with pytest.raises(OSError, match="no"):
        SettingWrites(str(cgroup))
    assert descriptors() == before


@pytest.mark.usefixtures("cgroup")
def test_a_directory_that_is_no_cgroup(tmp_path):
    before = descriptors()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        SettingWrites(str(tmp_path))
    assert descriptors() == before
