# SPDX-License-Identifier: LGPL-2.1-or-later
"""The mark of a pending restart, and files that steer what root does."""

import os

import pytest

from lxc_cr_plugin import pending
from lxc_cr_plugin.errors import ContainerError, HostError, UsageError
from lxc_cr_plugin.session import cut_off
from lxc_cr_plugin.store import Image, Reference
from lxc_cr_plugin.trusted import Untrusted, read_trusted, write_durably

IMAGE = Image("web", "ab" * 32, None, False, ("latest",))


def test_there_and_back(tmp_path):
    assert pending.pending(tmp_path) is None
    pending.set_pending(tmp_path, IMAGE)
    assert pending.pending(tmp_path) == Reference("web", None, IMAGE.digest)
    assert pending.mark_of(tmp_path).read_text() == f"web@sha256:{IMAGE.digest}\n"
    assert pending.clear(tmp_path)
    assert not pending.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_a_rollback(tmp_path):
    pending.set_pending(tmp_path, IMAGE, rollback=True)
    assert pending.read(tmp_path) == (Reference("web", None, IMAGE.digest), True)
    assert pending.pending(tmp_path) == Reference("web", None, IMAGE.digest)
    assert cut_off(str(tmp_path.parent))[:1] == [tmp_path.name]
    pending.set_pending(tmp_path, IMAGE)
    assert tmp_path.name not in cut_off(str(tmp_path.parent))


def test_a_new_mark_replaces_an_old_one(tmp_path):
    pending.set_pending(tmp_path, IMAGE)
    pending.set_pending(tmp_path, IMAGE._replace(digest="cd" * 32))
    found = pending.pending(tmp_path)
    assert found is not None
    assert found.digest == "cd" * 32
    assert [path.name for path in tmp_path.iterdir()] == [pending.MARK]


@pytest.mark.parametrize("text", ["", "../etc", "web@sha256:xyz", "web:latest", "\0"])
def test_nonsense_is_no_mark(text, tmp_path):
    """Not "nothing is pending" either: the start must fail."""
    write_durably(pending.mark_of(tmp_path), text.encode())
    with pytest.raises((UsageError, ContainerError)):
        pending.pending(tmp_path)


def test_a_mark_of_somebody_else(tmp_path):
    pending.set_pending(tmp_path, IMAGE)
    os.chown(pending.mark_of(tmp_path), 1000, 1000)
    with pytest.raises(ContainerError, match="does not belong to root"):
        pending.pending(tmp_path)


def test_a_directory_that_is_gone(tmp_path):
    with pytest.raises(HostError, match="No such file"):
        pending.set_pending(tmp_path / "gone", IMAGE)
    assert not pending.clear(tmp_path / "gone")


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_durably(path, b"old")

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed_to_a_file_that_is_roots(tmp_path):
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    assert read_trusted(tmp_path / "link") == b"x"
    (tmp_path / "real").chmod(0o666)
    with pytest.raises(Untrusted):
        read_trusted(tmp_path / "link")
