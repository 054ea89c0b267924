# SPDX-License-Identifier: LGPL-2.1-or-later
"""The same promises whatever the container's files are stored on: a directory, layers, a subvolume."""

import os
import shutil
from pathlib import Path

import pytest

from lxc_cr_plugin.snapshot.clone import copy_files, remove_files
from lxc_cr_plugin.store import Image, Reference, Store

from ..trees import CHANGED, change, look
from .container import Container, Victim, run
from .filesystems import shared_bytes
from .test_files import runs_on

RESTART_FAILED, REFUSED, DAMAGED = 10, 4, 6

BACKENDS = ["dir@xfs", "overlay@ext4", "overlay@xfs", "btrfs@btrfs"]


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
    assert notation.partition(":")[0] == backend.partition("@")[0]
    assert look(target / "kinds") == look(container.rootfs / "kinds")
    change(target / "kinds")
    container.cr("verify", container.name)
    container.restart("--files", "refuse")
    verify(victim)
    remove_files(target)
    assert not target.exists()


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


def test_a_subvolume_inside_is_refused(running):
    container, victim = running("btrfs@btrfs")
    run("btrfs", "subvolume", "create", container.rootfs / "kinds/inner")
    outcome = container.try_cr("checkpoint", container.name)
    assert outcome.code == REFUSED
    assert "/kinds/inner" in outcome.text
    assert snapshots_of(container) == []
    runs_on(victim)
    run("btrfs", "subvolume", "delete", container.rootfs / "kinds/inner")
    container.checkpoint()
    verify(victim)


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
