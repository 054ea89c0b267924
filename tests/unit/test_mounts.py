# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which mounts a restart brings back: those of LXC and of the configuration, each once."""

import contextlib
import time

import pytest

from lxc_cr_plugin import completion, manifest, mounts, remount
from lxc_cr_plugin.errors import CheckpointError, ImageError, RestartError
from lxc_cr_plugin.mount_entries import refuse_forged

from ..integration.container import wait_until
from .images import make_manifest, write_files
from .processes import apart, open_fds

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
    return parse("".join(line(n, *mount) for n, mount in enumerate(listed, 30)))


def parse(text):
    return mounts.parse(text.encode())


@pytest.fixture
def place(tmp_path):
    """A directory with others in it."""
    for name in ("there", "else", "work"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def inside(place):
    """A shell with mounts of its own, one of them at `there`."""
    with apart("mnt", place / "work") as shell:
        shell.do(f"mount -t tmpfs none {place}/there")
        yield shell


@pytest.fixture
def watch(inside):
    with contextlib.closing(mounts.MountWatch(inside.pid)) as made:
        assert made.text == mounts.table(inside.pid)
        yield made


@pytest.mark.parametrize(
    "change",
    [
        "mount -t tmpfs none {place}",
        "umount {place}/there",
        "mount -o remount,bind,ro {place}/there",
        "mount --move {place}/there {place}/else",
        "exec unshare -m sleep 1000",
    ],
)
def test_whether_mounts_have_changed(change, inside, watch, place):
    inside.do(f": >{place}/else/file; rm {place}/else/file")
    assert not watch.changed()
    inside.begin(change.format(place=place))
    wait_until(watch.changed, what="a change")
    assert watch.changed(), "the kernel says it once only"
    assert watch.renew()


@pytest.mark.parametrize(
    ("before", "change"),
    [
        (":", "mount --make-shared {there}"),
        ("mkdir {there}/a && mount --bind {there}/a {else}", "mv {there}/a {there}/b"),
        ("mkdir {there}/a && mount --bind {there}/a {else}", "rmdir {there}/a"),
        ("mkdir -p {there}/a/b && mount -t tmpfs none {there}/a/b", "mv {there}/a {there}/c"),
        # By mount(2) or by fsconfig(2): that of util-linux 2.39 and later takes the latter.
        (":", "mount -o remount,size=1m {there}"),
        (":", "unshare -m mount -o remount,size=1m {there}"),
    ],
    ids=["propagation", "renamed", "removed", "renamed-above", "remounted", "remounted-elsewhere"],
)
def test_what_only_the_whole_table_shows(before, change, inside, place):
    places = {name: place / name for name in ("there", "else")}
    inside.do(before.format(**places))
    with contextlib.closing(mounts.MountWatch(inside.pid)) as watch:
        assert not watch.renew()
        inside.do(change.format(**places))
        assert watch.renew()
        assert watch.changed()


def test_what_is_mounted_and_unmounted_again_is_of_no_concern(inside, watch, place):
    both = f"mount -t tmpfs none {place}/else && umount {place}/else"
    inside.do(both)
    assert not watch.renew()
    assert not watch.changed()
    inside.do(both)
    assert watch.changed(), "nobody has looked at the table since"


def test_the_mounts_of_a_process_that_has_ended(inside, watch):
    inside.kill()
    fds = open_fds()
    for look in (watch.changed, watch.renew, lambda: mounts.MountWatch(inside.pid)):
        with pytest.raises(CheckpointError, match=f"mounts of process {inside.pid}, the .* init: "):
            look()
    assert open_fds() == fds


def made_inside(listed, configured=()):
    """The places of what was mounted inside."""
    return [mount.place for mount in mounts.made_inside(of(listed), configured=configured)]


def test_mounts_of_lxc():
    assert made_inside(LXC) == []


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
    assert made_inside([*others, (place, kind)]) == [place]


@pytest.mark.parametrize(("place", "kind"), LXC)
def test_a_place_that_is_listed_twice(place, kind):
    assert made_inside([*LXC, (place, kind)]) == [place]


def test_configured_places():
    configured = ["dev/shm", "/srv", "with blank"]
    listed = [*LXC, ("/dev/shm", "tmpfs"), ("/srv", "ext4"), ("/with\\040blank", "ext4")]
    assert made_inside(listed, configured) == []
    assert made_inside([*listed, ("/srv", "tmpfs")], configured) == ["/srv"]
    assert made_inside([*listed, ("/srv", "tmpfs")], [*configured, "srv"]) == []


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
        (line(31, "/mnt", "overlay", super_="rw,lowerdir=/a\\040b:/c"), ""),
        (line(31, "/mnt", "overlay", super_="rw,lowerdir=/a:b/c"), "relative path"),
        (line(31, "/mnt", "overlay", super_="rw,lowerdir=/a\\134b"), "has a backslash"),
        (line(31, "/mnt", "overlay", super_="rw,lowerdir=/a\\072b"), "backslash or a colon"),
        (line(31, "/mnt", "overlay", super_="rw,lowerdir=/" + 255 * "a"), "longer than 255 bytes"),
        (line(31, "/sys", "sysfs", options="ro") + line(32, "/mnt", "sysfs"), "'/sys'"),
    ],
)  # fmt: skip
def test_what_can_be_made_again(text, reason):
    listed = parse(ROOT + text)
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
    listed = parse(ROOT + line(31, "/mnt", "ext4", device="8:1", root="/lxc/web/srv/a"))
    assert remount.plan(listed[1], listed) == ("clone", "/srv/a", listed[0])


def test_names_that_look_like_the_end_of_a_line():
    listed = parse(ROOT + line(31, "/a\rb\fc\x1c", "tmpfs") + line(32, "/d", "tmpfs"))
    assert [mount.place for mount in listed] == ["/", "/a\rb\fc\x1c", "/d"]


def test_names_that_are_no_utf8():
    (mount,) = mounts.parse(line(31, "/x", "tmpfs").encode().replace(b"/x", b"/\xff"))
    assert mount.place == "/\udcff"


def test_files_of_a_tmpfs_wherever_it_is():
    """What LXC itself puts below /proc and /sys is its own; the rest is the container's."""
    listed = of([*LXC, ("/proc/fs", "tmpfs"), ("/sys/fs/own", "tmpfs"), ("/run", "tmpfs")])
    found = [mount._replace(device=mount.id << 20) for mount in listed]
    places = [mount.place for mount in mounts.volatile(found)]
    assert places == ["/dev", "/proc/fs", "/sys/fs/own", "/run"]


def test_options():
    assert remount.options_of(r"rw,lowerdir=/a\040b\054c:/d,volatile") == [
        ("lowerdir", "/a b,c:/d"),
        ("volatile", None),
    ]


def test_ids_of_a_container():
    ids = remount.IdMap(((0, 100000, 1000), (1000, 5000, 1)))
    assert [ids.inside(number) for number in (100000, 100999, 5000)] == [0, 999, 1000]
    assert [ids.on_host(number) for number in (0, 1000, 1001)] == [100000, 5000, None]
    for number in (0, 99999, 101000, 5001):
        with pytest.raises(OSError, match="has no id"):
            ids.inside(number)


INSIDE = {"inside": True}
VIEW = {"inside": True, "view": "tmpfs-0.cbor"}


@pytest.mark.parametrize(
    ("change", "more", "reason"),
    [
        ({}, INSIDE, None),
        ({}, VIEW, None),
        ({"type": "ext4", "source": "/dev/sda1"}, INSIDE, "or from a device"),
        ({"type": "ext4", "source": "/dev/sda1"}, VIEW, "only a tmpfs gets files back"),
        ({"type": "overlay", "super": "rw,lowerdir=/etc:/usr"}, VIEW, "only a tmpfs"),
        ({"type": "overlay", "super": "rw,lowerdir=/,upperdir=etc"}, INSIDE, "relative path"),
        ({"type": "ext4"}, {"inside": False, "view": "tmpfs-0.cbor"}, "only a tmpfs gets"),
        ({"root": "/etc"}, VIEW, "only a tmpfs gets files back"),
        ({"type": "nfs", "super": "rw,addr=10.0.0.1"}, INSIDE, "come from outside"),
        ({"super": "rw,source=/dev/sda1"}, INSIDE, "option 'source'"),
        ({"options": "rw,idmapped"}, INSIDE, "maps ids"),
        ({"place": "/../etc"}, INSIDE, "no plain absolute path"),
        ({"place": "//etc"}, INSIDE, "no plain absolute path"),
        ({"place": "/a/"}, INSIDE, "no plain absolute path"),
        ({"place": "/a\0b"}, INSIDE, "no path and no option"),
        ({"super": "rw,size=1\0,x"}, INSIDE, "no path and no option"),
        ({"source": "\ud800"}, INSIDE, "no path and no option"),
        ({"propagation": ("shared:1\0",)}, INSIDE, "no path and no option"),
        ({"id": 30}, INSIDE, "listed twice"),
    ],
)
def test_forged_manifests(tmp_path, change, more, reason):
    write_files(tmp_path)
    root, mount = parse(ROOT + line(31, "/mnt", "tmpfs"))
    entries = [
        remount.describe(root, inside=False),
        remount.describe(mount._replace(**change), **more),
    ]
    made = make_manifest(tmp_path)._replace(mounts=tuple(entries))
    made = manifest.decode(made.encode())
    if reason is None:
        refuse_forged(made)
        return
    with pytest.raises(ImageError, match=reason):
        refuse_forged(made)


def test_as_many_forged_mounts_as_a_manifest_holds(tmp_path):
    """Each is judged by the others: that must not take the square of their number."""
    write_files(tmp_path)
    (mount,) = parse(line(31, "/mnt", "tmpfs", more="shared:1 "))

    def cost(made):
        """Time to judge a list of which so many were made inside."""
        entries = tuple(
            remount.describe(
                mount._replace(id=n, device=n, propagation=(f"shared:{n}",)),
                inside=n > 40_000 - made,
            )
            for n in range(1, 40_001)
        )
        forged = make_manifest(tmp_path)._replace(mounts=entries)
        begin = time.process_time()
        refuse_forged(forged)
        return time.process_time() - begin

    assert cost(remount.MOST) < 10 * cost(1)
    with pytest.raises(ImageError, match="more than"):
        cost(remount.MOST + 1)


def test_more_mounts_than_are_made_again(tmp_path):
    (tmp_path / "7").mkdir()
    text = "".join(line(n, f"/{n}", "tmpfs") for n in range(31, 32 + remount.MOST))
    (tmp_path / "7/mountinfo").write_text(ROOT + text)
    (obstacle,) = mounts.obstacles(init_pid=7, configured=(), proc=tmp_path)
    assert f"{remount.MOST + 1} mounts were made" in obstacle.message


@pytest.mark.parametrize(
    ("kind", "there", "wanted", "word"),
    [
        ("sysfs", "ro,nosuid", "rw,nosuid", "ro"),
        ("sysfs", "ro,nosuid", "ro", None),
        ("ext4", "rw,nosuid,nodev", "rw,nosuid", "nodev"),
        ("ext4", "rw", "ro,nosuid,nodev", None),
    ],
)
def test_no_image_lifts_a_restriction(kind, there, wanted, word):
    (now,) = parse(line(31, "/x", kind, options=there))
    if word is None:
        completion.refuse_looser([now._replace(options=wanted)], [now])
        return
    with pytest.raises(RestartError, match=f"'/x' is mounted {word}"):
        completion.refuse_looser([now._replace(options=wanted)], [now])


def test_in_its_own_tmpfs_a_container_may_do_what_it_likes():
    root, now = parse(ROOT + line(31, "/run", "tmpfs", options="ro", device="0:99999"))
    completion.refuse_looser([now._replace(options="rw")], [root, now])


def test_unescape():
    assert mounts.unescape(r"a\040b\011c\134d") == "a b\tc\\d"
    assert mounts.escape("a b\tc\\d") == r"a\040b\011c\134d"
