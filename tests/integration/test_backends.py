# SPDX-License-Identifier: LGPL-2.1-or-later
"""The same promises whatever the container's files are stored on: a directory, layers, a subvolume."""

import mmap
import os
import shutil
from pathlib import Path

import pytest

from lxc_cr_plugin.snapshot import content
from lxc_cr_plugin.snapshot.clone import copy_files, remove_files
from lxc_cr_plugin.snapshot.subvolume import ROOT_INODE
from lxc_cr_plugin.store import Image, Reference, Store

from ..trees import CHANGED, build, change, look
from .container import Container, Victim, run
from .filesystems import shared_bytes, subvolumes_below
from .power import cut
from .test_files import runs_on

RESTART_FAILED, REFUSED, DAMAGED, HOST = 10, 4, 6, 7

BEHIND = b"behind the back"

BACKENDS = ["dir@xfs", "overlay@ext4", "overlay@xfs", "btrfs@btrfs", "mount@ext4"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_type_of_change(backend, running):
    """It is told by its path, left alone when asked for, and undone."""
    container, victim = running(backend)
    kinds = container.rootfs / "kinds"
    container.checkpoint("--stop", "--image", f"{container.name}:good")
    before = look(kinds)
    change(kinds)
    changed = look(kinds)
    names = {f"kinds/{name}" for name in CHANGED}

    outcome = container.try_cr(
        "restart", container.name, f"{container.name}:good", "--files", "refuse"
    )
    assert outcome.code == RESTART_FAILED, outcome.text
    assert look(kinds) == changed
    told = container.restart(f"{container.name}:good", "--files", "keep").result["rootfs"]
    assert names <= {*told["paths"]}
    assert look(kinds) == changed
    runs_on(victim)
    container.stop()
    told = container.restart(f"{container.name}:good").result["rootfs"]
    assert names <= {*told["paths"]}
    assert look(kinds) == before
    assert_nothing_kept_beside(container)
    runs_on(victim)

    container.checkpoint("--stop")
    for look_closely in ("quick", "full"):
        outcome = container.restart("--files", "refuse", "--verify", look_closely)
        assert outcome.result["rootfs"]["changed"] == 0
        if look_closely == "quick":
            container.checkpoint("--stop")
    verify(victim)


def verify(victim: Victim) -> None:
    """From inside: what the host does to an upper layer, the container may not see."""
    victim.container.attach("touch", f"/status/{victim.name}.go")
    victim.wait_for("ok")


def assert_nothing_kept_beside(container: Container) -> None:
    assert [path.name for path in container.rootfs.resolve().parent.glob(".rootfs*")] == []


def image_of(container: Container) -> Image:
    store = Store(root=container.laboratory.store, buffer=container.laboratory.buffer)
    return store.resolve(Reference.parse(container.name))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_for_another_container(backend, running):
    """What `clone` needs: the same files, and nothing that is done to them reaches the image."""
    container, victim = running(backend)
    container.checkpoint("--stop")
    image = image_of(container)
    target = container.rootfs.resolve().parent / "another"
    manifest = image.manifest()
    notation = copy_files(image, manifest, like=manifest.container["rootfs"], target=target)
    assert notation.rpartition(":")[2] == str(target)
    kind = backend.partition("@")[0]
    assert notation.partition(":")[0] == ("dir" if kind == "mount" else kind)
    assert look(target / "kinds") == look(container.rootfs / "kinds")
    change(target / "kinds")
    container.cr("verify", container.name)
    container.restart("--files", "refuse")
    verify(victim)
    remove_files(target)
    assert not target.exists()


def image_below(path: Path) -> Path:
    """The file that the file system of @path is in."""
    device = run("findmnt", "-n", "-v", "-o", "SOURCE", "-T", path).stdout.strip()
    return Path(run("losetup", "-n", "-O", "BACK-FILE", device).stdout.strip())


def change_below(file: Path, data: bytes) -> None:
    """Change the content @data of @file on the disk: no time moves, and no file system notices."""
    image = image_below(file)
    with file.open("rb") as opened, image.open("r+b") as disk:
        os.fsync(opened.fileno())
        with mmap.mmap(disk.fileno(), 0) as blocks:
            for begin, end in content.extents(disk.fileno(), size=image.stat().st_size):
                place = blocks.find(data[:4096], begin, end)
                if place >= 0:
                    blocks[place : place + len(BEHIND)] = BEHIND
                    break
            else:
                raise AssertionError("it is not on the disk")
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("backend", ["dir@xfs", "overlay@ext4", "btrfs@btrfs"])
def test_what_only_a_full_look_finds(backend, running):
    """A content that has changed without any time. btrfs itself refuses to read it."""
    container, victim = running(backend)
    file = container.rootfs / "kinds/large"
    data = os.urandom(1 << 20)
    file.write_bytes(data)
    container.checkpoint("--stop")
    change_below(file, data)
    full = ("--verify", "full", "--files", "refuse")
    outcome = container.try_cr("restart", container.name, *full)
    if backend == "btrfs@btrfs":
        assert outcome.code == HOST, outcome.text
        assert "Failed to compare the container's files" in outcome.text
        assert "dmesg" in outcome.text
    else:
        assert outcome.code == RESTART_FAILED, outcome.text
        assert "1 files were changed since the checkpoint: /kinds/large" in outcome.text
    assert container.restart("--files", "refuse").result["rootfs"]["changed"] == 0
    if backend != "btrfs@btrfs":  # whose snapshot is the same blocks
        assert file.read_bytes().startswith(BEHIND)
        container.stop()
        container.restart("--verify", "full")
        assert file.read_bytes() == data
    verify(victim)


def snapshots_of(container: Container) -> list[Path]:
    return sorted((container.rootfs.resolve().parent.parent / ".lxc-cr-snapshots").iterdir())


def test_snapshots_of_a_subvolume_go_with_their_images(running):
    container, victim = running("btrfs@btrfs")
    for tag in ("one", "two"):
        container.checkpoint("--image", f"{container.name}:{tag}")
    assert len(snapshots_of(container)) == 2
    home = snapshots_of(container)[0].parent
    assert home.stat().st_mode & 0o777 == 0o700
    container.cr("rm", f"{container.name}:one")
    (left,) = snapshots_of(container)
    with pytest.raises(OSError, match="Read-only"):
        (left / "new").touch()
    container.checkpoint("--buffered", "--image", f"{container.name}:kept")
    container.cr("flush", f"{container.name}:kept")
    assert len(snapshots_of(container)) == 2
    container.stop()
    shutil.rmtree(container.rootfs / "bin")
    assert container.restart(f"{container.name}:kept").result["rootfs"]["changed"] > 0
    runs_on(victim)
    container.cr("prune", container.name, "--keep-last", "0", "--tagged")
    assert snapshots_of(container) == []
    verify(victim)


def test_files_and_memory_of_a_subvolume_are_of_one_instant(running):
    container, victim = running("btrfs@btrfs")
    container.checkpoint("--image", f"{container.name}:old")
    for _ in range(3):
        runs_on(victim)
        (container.rootfs / "kinds/since").touch()
        container.stop()
        container.restart(f"{container.name}:old")
        assert not (container.rootfs / "kinds/since").exists()
    verify(victim)


INNER = ("machines", "machines/one", "snapshots", "snapshots/old")


def make_nested(root: Path) -> None:
    """Subvolumes as systemd, machined and snapper make them: in each other, and read-only."""
    for name in INNER[:3]:
        run("btrfs", "subvolume", "create", root / name)
        (root / name / "inside").mkdir()
        build(root / name / "inside")
    run("btrfs", "subvolume", "snapshot", "-r", root / "machines", root / INNER[3])


def is_read_only(path: Path) -> bool:
    return run("btrfs", "property", "get", path, "ro").stdout.strip() == "ro=true"


def assert_nested(root: Path, *, read_only: tuple[str, ...] = INNER[3:]) -> None:
    """All of them are subvolumes, and nobody can write to @read_only."""
    for name in INNER:
        assert (root / name).stat().st_ino == ROOT_INODE, name
        assert is_read_only(root / name) == (name in read_only), name


def look_nested(root: Path) -> dict[str, tuple]:
    """As `look`, without what a snapshot shows in the place of a subvolume: that has no times."""
    return {path: seen for path, seen in look(root).items() if path != "snapshots/old/one"}


def test_subvolumes_inside(running, tmp_path):
    """They are part of the snapshot, of what is compared, and of what comes back and travels."""
    container, victim = running("btrfs@btrfs")
    root, pool = container.rootfs / "kinds/nested", container.rootfs.resolve().parent.parent
    root.mkdir()
    make_nested(root)
    before = look_nested(root)
    container.checkpoint("--stop")
    (place,) = snapshots_of(container)
    assert_nested(place / "kinds/nested", read_only=INNER)
    assert look_nested(place / "kinds/nested") == before

    for name in ("snapshots", "machines/one"):
        change(root / name / "inside")
        outcome = container.try_cr("restart", container.name, "--files", "refuse")
        assert outcome.code == RESTART_FAILED, outcome.text
        assert f"kinds/nested/{name}/inside/" in outcome.text
    run("btrfs", "subvolume", "delete", root / "snapshots/old")
    run("btrfs", "subvolume", "create", root / "new")
    changed = look_nested(root)
    cut(container, "restart", container.name, at="files:brought")
    container.cr("ls")
    assert look_nested(root) == changed
    container.restart()
    assert look_nested(root) == before
    assert_nested(root)
    assert_nothing_kept_beside(container)
    runs_on(victim)

    # What was restarted is checkpointed as it was, without having been changed in between.
    container.checkpoint("--stop")
    told = container.restart("--files", "refuse").result["rootfs"]
    assert told["changed"] == 0
    container.checkpoint("--stop", "--image", f"{container.name}:last")
    container.cr("verify", container.name)
    file, elsewhere = tmp_path / "image.tar", ("--store", tmp_path / "store")
    container.cr("export", f"{container.name}:last", file)
    container.cr("import", file, *elsewhere)
    run("btrfs", "subvolume", "delete", root / "machines/one")
    run("btrfs", "property", "set", root / "snapshots/old", "ro", "false")
    change(root / "snapshots/old/inside")
    container.restart(*elsewhere)
    assert look_nested(root) == before
    assert_nested(root)

    image = image_of(container)
    target = container.rootfs.resolve().parent / "another"
    manifest = image.manifest()
    copy_files(image, manifest, like=manifest.container["rootfs"], target=target)
    assert look_nested(target / "kinds/nested") == before
    assert_nested(target / "kinds/nested")
    remove_files(target)
    assert not target.exists()
    container.cr("prune", container.name, "--keep-last", "0", "--tagged")
    assert snapshots_of(container) == []
    assert not [path for path in subvolumes_below(pool) if ".lxc-cr-snapshots" in path]
    verify(victim)


def test_files_that_the_host_does_not_see(container):
    """LXC's monitor has mounted them for itself: there is nothing to be snapshot, or brought back."""
    other, hook = container.directory / "other", container.directory / "hook"
    run("cp", "-al", container.rootfs, other)
    hook.write_text(f"#!/bin/sh\nexec mount --bind {other} {container.rootfs}\n")
    hook.chmod(0o700)
    container.configure("lxc.monitor.unshare = 1", f"lxc.hook.pre-start = {hook}")
    container.start()
    outcome = container.try_cr("checkpoint", container.name)
    assert outcome.code == REFUSED, outcome.text
    assert "lxc.monitor.unshare" in outcome.text
    container.checkpoint("--files", "none")


def test_a_snapshot_that_is_gone(running):
    container, _ = running("btrfs@btrfs")
    container.checkpoint("--stop")
    (place,) = snapshots_of(container)
    run("btrfs", "subvolume", "delete", place)
    (container.rootfs / "etc/passwd").write_text("changed")
    for command in ("verify", "restart"):
        outcome = container.try_cr(command, container.name)
        assert outcome.code == DAMAGED
        assert str(place) in outcome.text
    assert (container.rootfs / "etc/passwd").read_text() == "changed"
    container.cr("rm", container.name)


def test_a_subvolume_travels_as_records(running, tmp_path):
    container, victim = running("btrfs@btrfs")
    container.checkpoint("--stop")
    before = look(container.rootfs / "kinds")
    elsewhere, file = tmp_path / "store", tmp_path / "image.tar"
    container.cr("export", container.name, file)
    container.cr("rm", container.name)
    assert snapshots_of(container) == []
    container.cr("import", file, "--store", elsewhere)
    container.cr("verify", container.name, "--store", elsewhere)
    change(container.rootfs / "kinds")
    container.restart("--store", elsewhere)
    assert look(container.rootfs / "kinds") == before
    verify(victim)


@pytest.mark.parametrize("backend", ["dir@xfs", "overlay@xfs"])
def test_contents_are_shared_where_the_file_system_can(backend, running):
    """The image lies on the same file system: it shares blocks, and so does what comes back."""
    container, victim = running(backend)
    store = container.rootfs.resolve().parent / "store"
    large = container.rootfs / "kinds/large"
    large.write_bytes(os.urandom(8 << 20))
    container.checkpoint("--stop", "--store", store)
    (content,) = [path for path in store.glob("*/*/rootfs/*") if path.stat().st_size == 8 << 20]
    assert shared_bytes(content) == 8 << 20
    large.unlink()
    container.restart("--store", store)
    assert shared_bytes(large) == 8 << 20
    verify(victim)
