# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which mounts a restart brings back: those of LXC and of the configuration, each once."""

import pytest

from lxc_cr_plugin import mounts, remount

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


def line(number, place, kind, *, device=None, root="/", options="rw", more="", super_="rw"):
    """A line of mountinfo; each mount is of a file system of its own unless said."""
    device = device or f"0:{number}"
    return f"{number} 1 {device} {root} {place} {options} {more}- {kind} none {super_}\n"


def of(listed):
    return mounts.parse("".join(line(n, *mount) for n, mount in enumerate(listed, 30)))


def inside(listed, configured=()):
    """The places of what was mounted inside."""
    return [mount.place for mount in mounts.made_inside(of(listed), configured=configured)]


def test_mounts_of_lxc():
    assert inside(LXC) == []


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
def test_other_places_and_types(place, kind):
    others = [mount for mount in LXC if mount[0] != place]
    assert inside([*others, (place, kind)]) == [place]


@pytest.mark.parametrize(("place", "kind"), LXC)
def test_a_place_that_is_listed_twice(place, kind):
    assert inside([*LXC, (place, kind)]) == [place]


def test_configured_places():
    configured = ["dev/shm", "/srv", "with blank"]
    listed = [*LXC, ("/dev/shm", "tmpfs"), ("/srv", "ext4"), ("/with\\040blank", "ext4")]
    assert inside(listed, configured) == []
    assert inside([*listed, ("/srv", "tmpfs")], configured) == ["/srv"]
    assert inside([*listed, ("/srv", "tmpfs")], [*configured, "srv"]) == []


ROOT = line(30, "/", "ext4", device="8:1", root="/lxc/web")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (line(31, "/mnt", "tmpfs", super_="rw,size=1024k,mode=755,inode64"), ""),
        (line(31, "/mnt", "tmpfs", super_="rw,strange=1"), "option 'strange'"),
        (line(31, "/mnt", "ext4", device="8:1", root="/lxc/web/srv"), ""),
        (line(31, "/mnt", "ext4", device="8:1", root="/lxc/other"), "come from outside"),
        (line(31, "/mnt", "ext4", device="8:1", root="/lxc/web/x//deleted"), "was deleted"),
        (line(31, "/mnt", "ext4", device="7:0"), "come from outside, or from a device"),
        (line(31, "/mnt", "nfs"), "come from outside"),
        (line(31, "/mnt", "proc"), "come from outside"),
        (line(31, "/proc", "proc") + line(32, "/mnt", "proc"), ""),
        (line(31, "/proc", "proc") + line(32, "/mnt", "proc", super_="rw,hidepid=2"), "outside"),
        (line(31, "/mnt", "tmpfs", options="rw,idmapped"), "maps ids"),
        (line(31, "/mnt", "tmpfs", more="master:7 "), "mounted elsewhere"),
        (line(31, "/a", "tmpfs", more="shared:7 ") + line(32, "/b", "tmpfs", more="shared:7 "), "elsewhere"),
        (line(31, "/mnt", "tmpfs", more="shared:7 "), ""),
        (line(31, "/mnt", "overlay", super_="rw,lowerdir=/a,upperdir=/b,workdir=/c"), ""),
    ],
)  # fmt: skip
def test_what_can_be_made_again(text, reason):
    listed = mounts.parse(ROOT + text)
    told = remount.why_not(listed[-1], listed)
    assert (reason in told) if reason else told == ""


def test_obstacles(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7/mountinfo").write_text(ROOT + line(31, "/a", "nfs") + line(32, "/b", "tmpfs"))
    (obstacle,) = mounts.obstacles(init_pid=7, configured=(), proc=tmp_path)
    assert obstacle.object == "mount"
    assert "'/a' (nfs)" in obstacle.message


def test_flags():
    assert remount.attributes_of("ro,nosuid,relatime") == 0x3
    assert remount.attributes_of("rw,noatime") == 0x10
    assert remount.attributes_of("rw") == 0x20


def test_where_a_clone_comes_from():
    listed = mounts.parse(ROOT + line(31, "/mnt", "ext4", device="8:1", root="/lxc/web/srv/a"))
    assert remount.plan(listed[1], listed) == ("clone", "/srv/a", listed[0])


def test_unescape():
    assert mounts.unescape(r"a\040b\011c\134d") == "a b\tc\\d"
    assert mounts.escape("a b\tc\\d") == r"a\040b\011c\134d"
