# SPDX-License-Identifier: LGPL-2.1-or-later
"""The proof of isolation, from made-up /proc files."""

import os
from pathlib import Path

import pytest

from lxc_cr_plugin import isolation
from lxc_cr_plugin.errors import HostError

NAMES = ("pid", "mnt", "ipc", "uts", "net")


class Proc:
    """A made-up /proc."""

    def __init__(self, path):
        self.path = path
        self.add("self")
        self.add(1)

    def add(self, number, /, comm="x", inner=None, **namespaces):
        """A process; its namespaces are the host's but for those given."""
        directory = self.path / str(number)
        (directory / "ns").mkdir(parents=True)
        for name in NAMES:
            (directory / "ns" / name).symlink_to(f"{name}:[{namespaces.get(name, 1)}]")
        (directory / "comm").write_text(f"{comm}\n")
        (directory / "status").write_text(f"Name:\t{comm}\nNSpid:\t{number}\t{inner or number}\n")
        (directory / "stat").write_text(f"{number} ({comm}) S 1\n")

    def obstacles(self, init_pid=100, pids=(100,), network_shared=False):
        return isolation.obstacles(
            init_pid=init_pid, pids=lambda: set(pids), network_shared=network_shared, proc=self.path
        )


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


OWN = dict.fromkeys(NAMES, 2)


def test_a_container_of_its_own(proc):
    proc.add(100, **OWN)
    proc.add(101, **OWN)
    assert proc.obstacles(pids=(100, 101)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_shared_namespace(proc, name):
    proc.add(100, **{**OWN, name: 1})
    (obstacle,) = proc.obstacles()
    assert obstacle.kind == "isolation"
    assert obstacle.object == f"{name}_namespace"
    assert "with the host" in obstacle.message


def test_a_network_that_is_shared_on_purpose(proc):
    proc.add(100, **{**OWN, "net": 1})
    assert proc.obstacles(network_shared=True) == []


def test_a_process_in_the_namespace_but_not_in_the_cgroup(proc):
    proc.add(100, **OWN)
    proc.add(200, comm="nsenter", inner=7, **OWN)
    (obstacle,) = proc.obstacles()
    assert (obstacle.kind, obstacle.pid, obstacle.comm) == ("isolation", 7, "nsenter")
    assert "process 200 of the host" in obstacle.message


def test_a_process_in_the_cgroup_but_not_in_the_namespace(proc):
    proc.add(100, **OWN)
    proc.add(200, comm="nested", **{**OWN, "pid": 3})
    (obstacle,) = proc.obstacles(pids=(100, 200))
    assert obstacle.kind == "unsupported"
    assert obstacle.comm == "nested"


def test_a_process_that_ends_meanwhile(proc):
    proc.add(100, **OWN)
    assert proc.obstacles(pids=(100, 200)) == []


def test_processes_of_which_the_kernel_tells_nothing(proc, monkeypatch):
    proc.add(100, **OWN)
    proc.add(200, **OWN)
    readlink = os.readlink

    hidden = {"200"}

    def refuse(path):
        if Path(path).parent.parent.name in hidden:
            raise PermissionError
        return readlink(path)

    monkeypatch.setattr(os, "readlink", refuse)
    assert proc.obstacles() == []
    # No proof, and above all no advice to move all processes of the host into the container.
    hidden.add("100")
    with pytest.raises(HostError, match="which namespaces the container has"):
        proc.obstacles()
