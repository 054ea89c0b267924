# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cgroups of a container on v1, v2 and both at once, from recorded /proc files."""

import os

import pytest

from lxc_cr_plugin.errors import IsolationError
from lxc_cr_plugin.freezer import (
    Cgroups,
    Freezer,
    find_cgroups,
    memory_use,
    payload_root,
    remove_empty,
)

V1 = "34 31 0:28 {root} {point}/{name} rw,relatime - cgroup cgroup rw,{options}\n"
V2 = "35 31 0:29 {root} {point}/unified rw,relatime - cgroup2 cgroup2 rw\n"


class Host:
    """A made-up /proc and /sys/fs/cgroup."""

    def __init__(self, directory):
        self.proc = directory / "proc"
        self.mount = directory / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "4711").mkdir()
        self.mounts = "22 1 259:1 / / rw - ext4 /dev/root rw\n"

    def v1(self, name, options=None, root="/"):
        options = options or name
        self.mounts += V1.format(point=self.mount, name=name, options=options, root=root)

    def v2(self, root="/"):
        self.mounts += V2.format(point=self.mount, root=root)

    def cgroup(self, *lines, make=(), files=()):
        (self.proc / "4711" / "cgroup").write_text("".join(f"{line}\n" for line in lines))
        (self.proc / "self" / "mountinfo").write_text(self.mounts)
        for path in make:
            (self.mount / path).mkdir(parents=True)
        for path in files:
            (self.mount / path).touch()

    def find(self):
        return find_cgroups(init_pid=4711, proc=self.proc)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_v1(host):
    host.v1("freezer")
    host.v1("memory")
    host.cgroup(
        "6:freezer:/lxc.payload.web",
        "4:memory:/lxc.payload.web/init",
        make=["freezer/lxc.payload.web", "memory/lxc.payload.web/init"],
    )
    place = host.mount / "freezer/lxc.payload.web"
    assert host.find() == Cgroups(
        tasks=place, freezer=Freezer(place, False), memory=host.mount / "memory/lxc.payload.web"
    )


def test_hybrid_prefers_the_v1_freezer(host):
    host.v1("freezer")
    host.v2()
    host.cgroup(
        "6:freezer:/lxc.payload.web-1",
        "0::/lxc.payload.web-1",
        make=["freezer/lxc.payload.web-1", "unified/lxc.payload.web-1"],
        files=["unified/lxc.payload.web-1/cgroup.freeze"],
    )
    found = host.find()
    assert found.freezer == Freezer(host.mount / "freezer/lxc.payload.web-1", False)
    assert found.memory == host.mount / "unified/lxc.payload.web-1"


def test_hybrid_without_a_v1_cgroup_of_its_own(host):
    host.v1("freezer")
    host.v2()
    host.cgroup(
        "6:freezer:/",
        "0::/lxc.payload.web",
        make=["unified/lxc.payload.web"],
        files=["unified/lxc.payload.web/cgroup.freeze"],
    )
    assert host.find().freezer == Freezer(host.mount / "unified/lxc.payload.web", True)


def test_v2_with_systemd_inside(host):
    host.v2()
    host.cgroup(
        "0::/machine/lxc.payload.web/init.scope",
        make=["unified/machine/lxc.payload.web/init.scope"],
        files=["unified/machine/lxc.payload.web/cgroup.freeze"],
    )
    assert host.find().tasks == host.mount / "unified/machine/lxc.payload.web"


def test_a_mount_of_a_part(host):
    host.v2(root="/docker/x")
    host.cgroup(
        "0::/docker/x/lxc.payload.web",
        make=["unified/lxc.payload.web"],
        files=["unified/lxc.payload.web/cgroup.freeze"],
    )
    assert host.find().tasks == host.mount / "unified/lxc.payload.web"


def test_controllers_mounted_together(host):
    host.v1("cpu,freezer", options="cpu,freezer")
    host.cgroup("6:cpu,freezer:/lxc.payload.web", make=["cpu,freezer/lxc.payload.web"])
    assert host.find().freezer == Freezer(host.mount / "cpu,freezer/lxc.payload.web", False)


def test_no_freezer_but_a_cgroup(host):
    host.v1("pids")
    host.cgroup("3:pids:/lxc.payload.web", make=["pids/lxc.payload.web"])
    found = host.find()
    assert found.freezer is None
    assert found.tasks == host.mount / "pids/lxc.payload.web"


def test_a_mount_point_with_a_space(tmp_path):
    host = Host(tmp_path)
    host.mount = tmp_path / "c g"
    host.mounts += V2.format(point=str(host.mount).replace(" ", r"\040"), root="/")
    host.cgroup(
        "0::/lxc.payload.web",
        make=["unified/lxc.payload.web"],
        files=["unified/lxc.payload.web/cgroup.freeze"],
    )
    assert host.find().tasks == host.mount / "unified/lxc.payload.web"


def test_the_hosts_own_cgroup_is_never_frozen(host):
    host.v1("freezer")
    host.v2()
    host.cgroup("6:freezer:/", "0::/", make=["freezer", "unified"], files=["unified/cgroup.freeze"])
    with pytest.raises(IsolationError, match="no cgroup of its own"):
        host.find()


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/", "/"),
        ("/lxc.payload.web", "/lxc.payload.web"),
        ("/lxc.payload.web-2/system.slice/x", "/lxc.payload.web-2"),
        ("/user.slice/lxc.payload.web/init.scope", "/user.slice/lxc.payload.web"),
        ("/lxc/web", "/lxc/web"),
        ("/lxc/web/init.scope", "/lxc/web"),
        ("/init.scope", "/"),
    ],
)
def test_payload_root(path, root):
    assert payload_root(path) == root


@pytest.mark.parametrize(
    ("name", "frozen", "thawed", "is_v2"),
    [
        ("freezer.state", "FROZEN\n", "THAWED", False),
        ("freezer.state", "FREEZING\n", "THAWED", False),
        ("cgroup.freeze", "1\n", "0", True),
    ],
)
def test_freezer(tmp_path, name, frozen, thawed, is_v2):
    freezer = Freezer(tmp_path, is_v2)
    assert not freezer.frozen()
    (tmp_path / name).write_text(frozen)
    assert freezer.frozen()
    freezer.thaw()
    assert (tmp_path / name).read_text() == thawed
    assert not freezer.frozen()


def test_pids_of_the_subtree(tmp_path):
    for path, pids in ((".", "1\n2\n"), ("a", ""), ("a/b", "3\n")):
        (tmp_path / path).mkdir(exist_ok=True)
        (tmp_path / path / "cgroup.procs").write_text(pids)
    assert Cgroups(tasks=tmp_path, freezer=None, memory=None).pids() == {1, 2, 3}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("anon 4096\nfile 100\nshmem 8192\n", 12288),
        ("rss 1\nshmem 9\ntotal_rss 4096\ntotal_shmem 10\ntotal_swap 5\ncache 7\n", 4111),
    ],
)
def test_memory_use(tmp_path, text, size):
    (tmp_path / "memory.stat").write_text(text)
    assert memory_use(Cgroups(tasks=tmp_path, freezer=None, memory=tmp_path)) == size


def test_memory_use_without_a_controller(tmp_path):
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert memory_use(Cgroups(tasks=tmp_path, freezer=None, memory=None)) > 1 << 20


def test_cgroups_that_nobody_is_in_any_more(host):
    host.v1("freezer")
    host.v2()
    name = "lxc.monitor.web"
    below = ("free", "busy/deep")
    host.cgroup(
        make=[
            *(f"{root}/{name}/{path}" for root in ("freezer", "unified") for path in below),
            f"unified/{name}-1",
        ]
    )
    busy = host.mount / f"freezer/{name}/busy/cgroup.procs"
    busy.write_text("4711\n")
    assert not remove_empty(name, proc=host.proc)
    assert not (host.mount / "unified" / name).exists()
    # Nothing of what somebody is in.
    assert (host.mount / f"freezer/{name}/free").exists()
    # There no file of a cgroup keeps it from being removed; here one does.
    busy.unlink()
    (busy.parent / "other").touch()
    assert not remove_empty(name, proc=host.proc)
    (busy.parent / "other").unlink()
    assert remove_empty(name, proc=host.proc)
    assert sorted(path.name for path in host.mount.glob("*/*")) == [f"{name}-1"]
