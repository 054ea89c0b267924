# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which mounts a restart brings back: those of LXC and of the configuration, each once."""

import pytest

from lxc_cr_plugin import mounts

# What containers show, started with lxc.mount.auto = cgroup:rw:force proc:mixed sys:mixed and with
# lxc.tty.dir = lxc; the root is the container's.
LXC = [
    ("/", "ext4"),
    ("/dev", "tmpfs"),
    ("/proc", "proc"),
    ("/proc/sys/net", "proc"),
    ("/proc/sys", "proc"),
    ("/proc/sysrq-trigger", "proc"),
    ("/proc/sys/kernel/random/boot_id", "tmpfs"),
    ("/sys", "sysfs"),
    ("/sys/devices/virtual/net", "sysfs"),
    ("/sys/fs/cgroup", "tmpfs"),
    ("/sys/fs/cgroup/freezer", "cgroup"),
    ("/sys/fs/cgroup/unified", "cgroup2"),
    ("/dev/pts", "devpts"),
    ("/dev/ptmx", "devpts"),
    ("/dev/lxc/console", "devpts"),
    ("/dev/console", "devpts"),
    ("/dev/lxc/tty1", "devpts"),
    ("/dev/tty2", "devpts"),
    ("/dev/null", "devtmpfs"),
    ("/proc/meminfo", "fuse.lxcfs"),
    ("/proc/pressure/io", "fuse.lxcfs"),
    ("/sys/devices/system/cpu", "fuse.lxcfs"),
]


@pytest.fixture
def look(tmp_path):
    """The places of the obstacles among these mounts."""

    def obstacles(listed, configured=()):
        (tmp_path / "7").mkdir(exist_ok=True)
        (tmp_path / "7/mountinfo").write_text(
            "".join(f"36 35 98:0 / {place} rw - {kind} none rw\n" for place, kind in listed)
        )
        found = mounts.obstacles(init_pid=7, configured=configured, proc=tmp_path)
        assert all(o.object == "mount" and o.kind == "unsupported" and o.hint for o in found)
        return [obstacle.message.split("'")[1] for obstacle in found]

    return obstacles


def test_mounts_of_lxc(look):
    assert look(LXC) == []


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/proc/acpi", "tmpfs"),
        ("/proc/sys/kernel", "tmpfs"),
        ("/proc/meminfo", "tmpfs"),
        ("/proc/sys", "tmpfs"),
        ("/proc/irq", "proc"),
        ("/sys/fs", "tmpfs"),
        ("/sys/kernel/debug", "sysfs"),
        ("/sys/fs/cgroup/freezer", "tmpfs"),
        ("/sys", "tmpfs"),
        ("/dev/lxc", "tmpfs"),
        ("/dev/.lxc/x", "tmpfs"),
        ("/dev/tty1", "tmpfs"),
        ("/mnt", "tmpfs"),
    ],
)
def test_other_places_and_types(look, place, kind):
    others = [mount for mount in LXC if mount[0] != place]
    assert look([*others, (place, kind)]) == [place]


@pytest.mark.parametrize(("place", "kind"), LXC)
def test_a_place_that_is_listed_twice(look, place, kind):
    assert look([*LXC, (place, kind)]) == [place]


def test_configured_places(look):
    configured = ["dev/shm", "/srv", "with blank"]
    listed = [*LXC, ("/dev/shm", "tmpfs"), ("/srv", "ext4"), ("/with\\040blank", "ext4")]
    assert look(listed, configured) == []
    assert look([*listed, ("/srv", "tmpfs")], configured) == ["/srv"]
    assert look([*listed, ("/srv", "tmpfs")], [*configured, "srv"]) == []


def test_a_mount_over_another_says_so(tmp_path):
    (tmp_path / "7").mkdir()
    line = "36 35 98:0 / / rw - ext4 none rw\n"
    (tmp_path / "7/mountinfo").write_text(2 * line)
    (obstacle,) = mounts.obstacles(init_pid=7, configured=(), proc=tmp_path)
    assert "over what was there" in obstacle.message


def test_unescape():
    assert mounts.unescape(r"a\040b\011c\134d") == "a b\tc\\d"
