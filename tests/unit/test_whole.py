# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files of an image taken together: what goes wrong has a name, and leaves nothing open."""

import os

import pytest

from lxc_cr_plugin.errors import CheckpointError, HostError, LxcCrError, StoreError
from lxc_cr_plugin.snapshot import NONE, SNAPSHOT, backend_for, capture, subvolume, whole
from lxc_cr_plugin.snapshot.whole import WholeCapture

from .containers import FakeContainer
from .processes import apart, open_fds

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes mounts")


class Container(FakeContainer):
    """Its root filesystem is a directory of the test."""

    def __init__(self, rootfs):
        super().__init__()
        self.place = rootfs

    def rootfs(self):
        return f"dir:{self.place}"


@pytest.fixture
def rootfs(tmp_path, monkeypatch):
    for name in ("rootfs", "staging", "work"):
        (tmp_path / name).mkdir()
    # The process that is looked at has the root directory of the host.
    monkeypatch.setattr(whole, "refuse_unseen", lambda rootfs, init_pid: None)
    return tmp_path / "rootfs"


@pytest.fixture
def inside(rootfs):
    with apart("mnt", rootfs.parent / "work") as shell:
        yield shell


def take(rootfs, init_pid, *, files=SNAPSHOT):
    return WholeCapture(
        Container(rootfs),
        init_pid=init_pid,
        files=files,
        staging=rootfs.parent / "staging",
        images=[],
    )


def fails(error):
    def fail(*_arguments, **_options):
        raise error

    return fail


def no_room(patch, staging):
    (staging / "rootfs").mkdir()


def no_backend(patch, staging):
    patch.setattr(whole, "backend_for", lambda _: backend_for("nothing"))


def no_device(patch, staging):
    patch.setattr(capture, "device_of_locks", fails(HostError("no device")))


def no_home(patch, staging):
    patch.setattr(subvolume, "is_subvolume", lambda _: True)
    patch.setattr("lxc_cr_plugin.snapshot.btrfs.new_place", fails(HostError("no home")))


def no_tmpfs(patch, staging):
    patch.setattr(whole, "VolatileCapture", fails(HostError("no tmpfs")))


@pytest.mark.parametrize("spoil", [no_room, no_backend, no_device, no_home, no_tmpfs])
def test_what_cannot_begin_leaves_nothing_open(spoil, rootfs, inside, monkeypatch):
    spoil(monkeypatch, rootfs.parent / "staging")
    fds = open_fds()
    with pytest.raises(StoreError if spoil is no_room else HostError):
        take(rootfs, inside.pid)
    assert open_fds() == fds


def test_mounts_come_and_go_while_files_are_copied(rootfs, inside):
    (rootfs / "mnt").mkdir()
    taken = take(rootfs, inside.pid, files=NONE)
    try:
        inside.do(f"mount -t tmpfs none {rootfs}/mnt && umount {rootfs}/mnt")
        taken.rehearse()
        taken.freeze()
        inside.do(f"mount -t tmpfs none {rootfs}/mnt")
        for look in (taken.freeze, taken.rehearse):
            with pytest.raises(CheckpointError, match="was mounted or unmounted in the container"):
                look()
    finally:
        taken.abandon()


@pytest.mark.parametrize("step", ["prepare", "freeze"])
def test_a_look_that_fails_has_a_name(step, rootfs, inside, monkeypatch):
    fds = open_fds()
    taken = take(rootfs, inside.pid)
    try:
        if step == "freeze":
            taken.prepare(check_space=lambda _need: None)
            taken.rehearse()
        monkeypatch.setattr(capture.Tree, "look", fails(OSError(5, "Input/output error")))
        with pytest.raises(CheckpointError, match=r"^Failed to look at .* files: Input/output"):
            taken.prepare(check_space=lambda _need: None) if step == "prepare" else taken.freeze()
    finally:
        taken.abandon()
    assert open_fds() == fds


def test_an_init_that_ends_meanwhile(rootfs, inside):
    taken = take(rootfs, inside.pid)
    try:
        inside.kill()
        for look in (taken.rehearse, taken.freeze):
            with pytest.raises(LxcCrError, match="the container's init"):
                look()
    finally:
        taken.abandon()
