# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is not the root filesystem: tmpfs, directories of the host, what was mounted inside."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..trees import build, change, look
from .container import Container, Victim, run
from .test_damage import Lab, reseal
from .test_unprivileged import FIRST_ID, IDS, shifted_tree

RESTART_FAILED, REFUSED, USAGE = 10, 4, 2
IMAGE_ERROR, HOST_ERROR = 6, 7

TMPFS = (
    "lxc.mount.entry = run run tmpfs defaults,create=dir 0 0",
    "lxc.mount.entry = tmp tmp tmpfs defaults,size=64m 0 0",
)


def start(container: Container, *lines: str) -> Victim:
    container.configure(*lines)
    victim = container.add_victim("ledger")
    container.start()
    victim.ready()
    return victim


def inside(container: Container, place: str) -> Path:
    """A place of the running container, as the host can reach it."""
    return Path(f"/proc/{container.init_pid}/root") / place.lstrip("/")


def mounts_of(container: Container) -> list[tuple[str, ...]]:
    """All about all mounts but their numbers, and whether they are shared."""
    found = []
    data = Path(f"/proc/{container.init_pid}/mountinfo").read_bytes()
    for line in os.fsdecode(data).rstrip("\n").split("\n"):
        fields, _, rest = line.partition(" - ")
        _, _, _, root, place, flags, *propagation = fields.split(" ")
        kind, source, options = rest.split(" ")
        shared = any(word.startswith("shared") for word in propagation)
        found.append((place, root, kind, source, flags, options, shared))
    return sorted(found)


def test_files_in_tmpfs(container):
    """Of each type, whether anybody has them open or not; what LXC makes in /dev stays too."""
    container.configure("lxc.apparmor.allow_nesting = 1")  # it mounts in /dev/.lxc
    container.add_program("/bin/sh -c 'echo open > /run/open; exec sleep 1000 < /run/open'")
    victim = start(container, *TMPFS)
    places = ("run", "tmp", "dev/shm")
    for place in places:
        target = inside(container, place) / "kinds"
        target.mkdir()
        build(target)
    os.mknod(inside(container, "dev/own"), 0o020640, os.makedev(1, 5))
    before = {place: look(inside(container, place)) for place in places}
    container.checkpoint("--image", f"{container.name}:old")
    (manifest,) = container.laboratory.store.glob(f"{container.name}/*/manifest.json")
    timed = {m["place"] for m in json.loads(manifest.read_text())["mounts"] if m.get("stood")}
    assert timed >= {"/run", "/tmp", "/dev/shm"}
    change(inside(container, "run/kinds"))
    container.checkpoint("--stop")
    container.restart(f"{container.name}:old")
    assert {place: look(inside(container, place)) for place in places} == before
    assert inside(container, "dev/own").stat().st_rdev == os.makedev(1, 5)
    assert inside(container, "dev/null").is_char_device()
    container.attach("umount", "/proc/sys/kernel/random/boot_id")
    container.checkpoint("--stop", "--files", "none")
    told = container.restart().text
    # LXC mounts it again, and so the user is told
    assert told.count("that was not at the checkpoint") == 1
    assert "'/proc/sys/kernel/random/boot_id'" in told
    assert {place: look(inside(container, place)) for place in places} == before
    container.cr("verify", container.name)
    victim.verify()


def test_an_unprivileged_container(laboratory, new_container):
    """Owners are those of the host in the image; the container sees them as its own again."""
    container = new_container(shifted_tree(laboratory))
    for sort in "ug":
        container.configure(f"lxc.idmap = {sort} 0 {FIRST_ID} {IDS}")
    victim = start(container, *TMPFS)
    script = """
        echo one > /run/file; chown 7:8 /run/file; mkdir /run/inner
        mount -t tmpfs -o mode=711,uid=3 own /run/inner; echo two > /run/inner/file
        mkdir /run/bare /srv; mount -t tmpfs -o size=1m bare /srv
    """
    container.attach("sh", "-ec", script)
    before, table = look(inside(container, "run")), mounts_of(container)
    container.checkpoint("--stop")
    container.restart()
    assert look(inside(container, "run")) == before
    assert mounts_of(container) == table
    # They belong to the container's user namespace: it may still change them.
    container.attach("mount", "-o", "remount,size=2m", "/run/inner")
    container.attach("mount", "-o", "remount,size=2m", "/srv")
    assert container.attach("stat", "-c", "%u", "/run/inner") == "3\n"
    assert container.attach("stat", "-c", "%u:%g", "/run/file") == "7:8\n"
    assert container.attach("cat", "/run/inner/file") == "two\n"
    victim.verify()


def test_files_in_tmpfs_travel(container, tmp_path):
    victim = start(container, *TMPFS)
    inside(container, "run/large").write_bytes(os.urandom(100_000))
    before = look(inside(container, "run"))
    container.checkpoint("--stop")
    container.cr("export", container.name, tmp_path / "image")
    container.cr("import", tmp_path / "image", "--store", tmp_path / "store")
    container.restart("--store", tmp_path / "store")
    assert look(inside(container, "run")) == before
    victim.verify()


def test_mounts_made_inside(container):
    """In their order, with their flags and what is in them."""
    victim = start(container, *TMPFS)
    script = """
        mkdir -p /srv/source/deep /srv/lower /srv/upper /srv/work /srv/merged /run/a /srv/bound /srv/ro
        echo low > /srv/lower/file; echo src > /srv/source/deep/file; touch /srv/onefile
        mount -t tmpfs -o size=1m,mode=711,nosuid,noexec own /run/a
        mkdir /run/a/b
        mount -t tmpfs -o noatime own /run/a/b
        echo inner > /run/a/b/file
        mount --bind /srv/source/deep /srv/bound
        mount --bind /srv/source /srv/ro
        mount -o remount,bind,ro /srv/ro
        mount --bind /run/a/b/file /srv/onefile
        mkdir /srv/proc; mount -t proc proc /srv/proc
        mount -t overlay -o lowerdir=/srv/lower,upperdir=/srv/upper,workdir=/srv/work o /srv/merged
        echo up > /srv/merged/new
        mount --make-shared /run/a
        mkdir "/srv/a lower" /srv/over; echo odd > "/srv/a lower/odd"
        mount -t overlay -o "lowerdir=/srv/a lower:/srv/lower" o /srv/over
        mkdir "$(printf '/run/end\\r\\f')"; mount -t tmpfs own "$(printf '/run/end\\r\\f')"
        mount -t tmpfs own /proc/fs; echo kept > /proc/fs/f
    """
    container.attach("sh", "-ec", script)
    before = mounts_of(container)
    assert len(before) > 20
    container.checkpoint("--image", f"{container.name}:old")
    assert mounts_of(container) == before
    container.stop()
    for _ in range(2):
        container.restart(f"{container.name}:old")
        assert mounts_of(container) == before
        assert inside(container, "run/a/b/file").read_text() == "inner\n"
        assert inside(container, "srv/onefile").read_text() == "inner\n"
        assert inside(container, "srv/bound/file").read_text() == "src\n"
        assert inside(container, "srv/merged/file").read_text() == "low\n"
        assert inside(container, "srv/merged/new").read_text() == "up\n"
        assert inside(container, "srv/proc/1/comm").read_text() == "init\n"
        assert inside(container, "srv/over/odd").read_text() == "odd\n"
        assert inside(container, "srv/over/file").read_text() == "low\n"
        assert inside(container, "proc/fs/f").read_text() == "kept\n"
        assert inside(container, "run/a").stat().st_mode & 0o777 == 0o711
        victim.ready()
        container.checkpoint("--stop")
    container.restart()
    victim.verify()


def test_a_mount_that_cannot_be_made_again_is_named(container):
    victim = start(container)
    container.attach("sh", "-ec", "mkdir /srv; mount -t ramfs none /srv")
    outcome = container.try_cr("checkpoint", container.name)
    assert outcome.code == REFUSED
    assert "'/srv' (ramfs)" in outcome.text
    container.attach("umount", "/srv")
    container.attach("sh", "-ec", "mount -t tmpfs a /srv; touch /srv/f; mount -t tmpfs b /srv")
    outcome = container.try_cr("checkpoint", container.name)
    assert outcome.code == REFUSED
    assert "another mount covers it (/srv)" in outcome.text
    victim.verify()


def test_a_directory_of_the_host(container, tmp_path):
    """It is never brought back, but it has to be the same, unless another one is accepted."""
    shared, other = tmp_path / "shared", tmp_path / "other"
    for directory in (shared, other):
        directory.mkdir()
        (directory / "file").write_text(directory.name)
    entry = "lxc.mount.entry = {} srv/data none bind,create=dir 0 0"
    config = container.directory / "config"
    plain = config.read_text()
    victim = start(container, entry.format(shared))
    container.checkpoint("--stop")
    (shared / "file").write_text("changed")
    assert container.restart().result["rootfs"]["changed"] == 0
    assert inside(container, "srv/data/file").read_text() == "changed"
    container.stop()

    config.write_text(plain)
    container.configure(entry.format(other))
    outcome = container.try_cr("restart", container.name)
    assert outcome.code == RESTART_FAILED
    assert "/srv/data" in outcome.text
    assert str(shared) in outcome.text
    assert container.state == "STOPPED"
    outcome = container.restart("--mount", f"/srv/data={other}")
    assert inside(container, "srv/data/file").read_text() == "other"
    container.stop()
    container.restart("--mount", f"/srv/data={shared}")
    assert inside(container, "srv/data/file").read_text() == "changed"
    for wrong in ("/srv/data", f"/nowhere={shared}", "/srv/data=/no/such"):
        container.stop()
        outcome = container.try_cr("restart", container.name, "--mount", wrong)
        assert outcome.code in (RESTART_FAILED, USAGE)
    container.restart("--mount", f"/srv/data={shared}")
    victim.verify()


def test_a_directory_of_a_tmpfs_of_the_host(container, tmp_path):
    """After a boot of the host it is another file system, at the same place."""
    pool = tmp_path / "pool"
    container.configure(f"lxc.mount.entry = {pool}/data srv/data none bind,create=dir 0 0")
    with tmpfs_at(pool):
        (pool / "data").mkdir()
        victim = start(container)
        container.checkpoint("--stop")
    with tmpfs_at(pool):
        (pool / "data").mkdir()
        (pool / "data/file").write_text("new")
        container.restart()
        assert inside(container, "srv/data/file").read_text() == "new"
        container.checkpoint("--stop")
        other = tmp_path / "other"
        with tmpfs_at(other):
            (other / "data").mkdir()
            config = container.directory / "config"
            config.write_text(config.read_text().replace(str(pool), str(other)))
            outcome = container.try_cr("restart", container.name)
            assert outcome.code == RESTART_FAILED
            assert f"{other}/data instead of {pool}/data" in outcome.text
            config.write_text(config.read_text().replace(str(other), str(pool)))
        container.restart()
        victim.verify()
        container.stop()


@contextmanager
def tmpfs_at(place: Path) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "own", place)
    try:
        yield
    finally:
        run("umount", place)


def test_a_forged_image(container, tmp_path):
    """It names directories and devices of the host, and the host's files stay where they are."""
    precious = Path(f"/dev/shm/{container.name}")
    container.configure(f"lxc.mount.entry = {precious} srv/data none bind,create=dir 0 0")
    with removed(precious):
        (precious / "file").write_text("precious")
        victim = start(container, *TMPFS)
        container.attach("mount", "-t", "tmpfs", "own", "/mnt")
        container.checkpoint("--stop")
        lab = Lab(container, victim, tmp_path)
        for place, changes, code in FORGED:
            lab.mend()
            reseal(lab, lambda m, place=place, changes=changes: forge(m, place, changes))
            outcome = container.try_cr("restart", container.name)
            assert outcome.code == code, f"{place} {changes}: {outcome.text}"
            assert f"'{place}'" in outcome.text
            assert container.state == "STOPPED"
            assert (precious / "file").read_text() == "precious"
        lab.assert_restarts()


@contextmanager
def removed(directory: Path) -> Iterator[None]:
    directory.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(directory)


# What a forger writes about a mount, and how the restart ends.
FORGED = [
    ("/mnt", {"type": "overlay", "super": "rw,lowerdir=/etc:/usr"}, IMAGE_ERROR),
    ("/mnt", {"type": "ext4", "source": "/dev/vda"}, IMAGE_ERROR),
    ("/srv/data", {"view": "tmpfs-0.cbor"}, IMAGE_ERROR),
    ("/srv/data", {"view": "tmpfs-0.cbor", "root": "/"}, HOST_ERROR),
    ("/sys", {"options": "rw,nosuid,nodev,noexec,relatime"}, RESTART_FAILED),
]


def forge(manifest: dict, place: str, changes: dict) -> None:
    (entry,) = [entry for entry in manifest["mounts"] if entry["place"] == place]
    entry.pop("identity", None)
    entry.update(changes)


def test_a_hostile_place(container):
    """A directory on the way has become a symbolic link: nothing is mounted through it."""
    victim = start(container)
    container.attach("sh", "-ec", "mkdir -p /srv/x/y; mount -t tmpfs own /srv/x/y")
    container.checkpoint("--stop")
    run("mv", container.rootfs / "srv/x", container.rootfs / "srv/z")
    (container.rootfs / "srv/x").symlink_to("/victims")
    (container.rootfs / "victims/y").mkdir()
    outcome = container.try_cr("restart", container.name, "--files", "keep")
    assert outcome.code != 0
    assert "/srv/x/y" in outcome.text
    assert container.state == "STOPPED"
    container.restart()
    victim.verify()


def test_a_source_that_something_else_covers(container):
    """What showed it was unmounted since; through the root another mount is in the way."""
    start(container)
    script = """
        mkdir -p /srv/data /srv/over /srv/bound /srv/root
        echo right > /srv/data/file
        mount --make-private /
        mount --bind / /srv/root
        mount -t tmpfs own /srv/data
        echo wrong > /srv/data/file
        mount --bind /srv/root/srv/data /srv/bound
        umount /srv/root
    """
    container.attach("sh", "-ec", script)
    assert inside(container, "srv/bound/file").read_text() == "right\n"
    container.checkpoint("--stop")
    outcome = container.try_cr("restart", container.name)
    assert outcome.code != 0
    assert "covers what it shows (/srv/bound)" in outcome.text
    assert container.state == "STOPPED"
