# SPDX-License-Identifier: LGPL-2.1-or-later
"""The image store: names, tags, the buffer, and a death at any moment."""

import errno
import fcntl
import os
import shutil
import signal
import stat
from pathlib import Path

import pytest

from lxc_cr_plugin import in_use
from lxc_cr_plugin import store as store_module
from lxc_cr_plugin.errors import StoreError, UsageError
from lxc_cr_plugin.in_use import hold
from lxc_cr_plugin.run import fork
from lxc_cr_plugin.store import Reference, Store
from lxc_cr_plugin.trusted import sync
from tests.unit.images import add_image, write_files
from tests.unit.processes import open_fds


@pytest.fixture
def store(tmp_path):
    return Store(root=tmp_path / "store", buffer=tmp_path / "buffer")


def reopen(tmp_path):
    """As the next command would see it."""
    store = Store(root=tmp_path / "store", buffer=tmp_path / "buffer")
    store.sweep()
    return store


# -- references ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", Reference("web", "latest")),
        ("web:before-upgrade", Reference("web", "before-upgrade")),
        ("web@sha256:0123abcd", Reference("web", None, "0123abcd")),
        ("a:b:c", Reference("a:b", "c")),
        ("a@b:c", Reference("a@b", "c")),
    ],
)
def test_reference(text, expected):
    assert Reference.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "web:",
        "web:-x",
        "web:a/b",
        "a/b",
        "..",
        "../x:y",
        "web@sha256:",
        "web@sha256:0123abc",
        "web@sha256:XYZ01234",
        "web@sha256:" + "0" * 65,
        "web:" + "t" * 129,
        "web:tag\n",
    ],
)
def test_bad_reference(text):
    with pytest.raises(UsageError, match="not a reference"):
        Reference.parse(text)


def test_reference_of_a_container_with_a_colon():
    assert Reference.parse("a:b", container="a:b") == Reference("a:b", "latest")
    assert Reference.parse("a:b:c", container="a:b") == Reference("a:b", "c")


def test_reference_of_another_container():
    with pytest.raises(UsageError, match="not an image of container 'db'"):
        Reference.parse("web:x", container="db")


def test_references_print_as_they_are_written():
    for text in ("web:latest", "web:x", "web@sha256:0123abcd"):
        assert str(Reference.parse(text)) == text


# -- images and tags -------------------------------------------------------------------------------


def test_a_new_image_has_its_tag(store):
    image = add_image(store, tag="one")
    assert store.resolve(Reference.parse("web:one")) == image
    assert store.resolve(Reference.parse(f"web@sha256:{image.digest[:8]}")).digest == image.digest
    assert image.manifest().container["name"] == "web"


def test_a_tag_moves_to_the_newer_image(store):
    old = add_image(store, downtime=1)
    new = add_image(store, downtime=2)
    assert store.resolve(Reference("web")).digest == new.digest
    assert store.resolve(Reference("web", None, old.digest)).tags == ()


def test_the_same_image_twice_is_one(store, monkeypatch):
    monkeypatch.setattr("lxc_cr_plugin.manifest.now", lambda: "2026-01-01T00:00:00Z")
    one, two = add_image(store, tag="one"), add_image(store, tag="two")
    assert one.digest == two.digest
    assert [image.tags for image in store.images()] == [("one", "two")]


def test_unknown_references(store):
    image = add_image(store)
    for text in ("web:nope", "db", "web@sha256:00000000"):
        with pytest.raises(StoreError, match="no image"):
            store.resolve(Reference.parse(text))
    assert store.images() == [image]


def test_an_ambiguous_digest(store, monkeypatch):
    digests = iter([f"{'a' * 8}{n}{'b' * 55}" for n in range(2)])
    monkeypatch.setattr("lxc_cr_plugin.manifest.digest_of", lambda _data: next(digests))
    add_image(store)
    add_image(store)
    with pytest.raises(StoreError, match="fits 2 images"):
        store.resolve(Reference.parse("web@sha256:" + "a" * 8))


@pytest.mark.parametrize("name", [".hidden", "a b", "tags", "a%2Fb", "ü:@", "x\ny", "\udcff"])
def test_odd_names_of_containers(store, tmp_path, name):
    image = add_image(store, container=name)
    assert reopen(tmp_path).images() == [image]
    assert reopen(tmp_path).resolve(Reference(name)) == image


def test_everything_is_private(store, tmp_path):
    before = os.umask(0)
    try:
        add_image(store)
    finally:
        os.umask(before)
    for path in [tmp_path / "store", *(tmp_path / "store").rglob("*")]:
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.lstat().st_mode) == wanted, path


def test_rm_takes_the_tags_along(store, tmp_path):
    image = add_image(store, tag="one")
    other = add_image(store, tag="two", downtime=2)
    store.remove(image)
    assert reopen(tmp_path).images() == [other]
    store.remove(other)
    assert not (tmp_path / "store" / "web").exists()


# -- the buffer ------------------------------------------------------------------------------------


def test_the_buffer_is_asked_first(store):
    add_image(store, downtime=1)
    buffered = add_image(store, buffered=True, downtime=2)
    assert buffered.buffered
    assert store.resolve(Reference("web")).digest == buffered.digest


def test_a_newer_image_on_the_disk_takes_the_name_from_the_buffer(store):
    buffered = add_image(store, buffered=True, downtime=1)
    stored = add_image(store, downtime=2)
    assert store.resolve(Reference("web")).digest == stored.digest
    assert store.resolve(Reference("web", None, buffered.digest)).buffered


def test_flush(store, tmp_path):
    buffered = add_image(store, tag="one", buffered=True)
    # A content that is all hole is larger than the disk.
    sparse = buffered.path / "rootfs" / ("0" * 64)
    sparse.parent.mkdir()
    sparse.touch()
    os.truncate(sparse, 1 << 43)
    stored = store.flush(store.resolve(Reference("web", "one")))
    assert stored.room() < 1 << 20
    assert not stored.buffered
    assert reopen(tmp_path).images() == [stored]
    assert stored.digest == buffered.digest
    assert (stored.path / "files" / "5").read_bytes() == b"an unlinked file"
    with pytest.raises(StoreError, match="not buffered"):
        store.flush(stored)


def test_the_room_is_noted_where_an_image_is_completed(store, monkeypatch):
    """To look at all files of each image would take `ls` minutes; what was copied by hand is looked at."""
    # No file system makes it smaller.
    content = os.urandom(1 << 20)
    made = add_image(store, buffered=True, content=content)
    other, flushed = store.copy(made, container="other"), store.flush(made)
    copied = other._replace(path=Path(f"{other.path}-copy"))
    shutil.copytree(other.path, copied.path)
    added = copied.path / "rootfs" / ("1" * 64)
    added.write_bytes(content)
    sync(added)
    room = flushed.room()
    assert copied.room() >= room + (1 << 20) > 2 << 20
    monkeypatch.setattr(os, "walk", None)
    assert flushed.room() == room
    assert other.room() > 1 << 20


def test_the_note_of_the_room_is_on_the_disk_with_the_image(store, monkeypatch):
    done = []
    setxattr = os.setxattr
    monkeypatch.setattr(
        os, "setxattr", lambda path, *rest: setxattr(path, *rest) or done.append(("noted", path))
    )
    monkeypatch.setattr(store_module, "sync", lambda path: done.append(("synced", path)))
    add_image(store)
    (staging,) = (path for what, path in done if what == "noted")
    assert done[done.index(("noted", staging)) + 1] == ("synced", staging)


def test_rm_finds_it_in_the_buffer(store):
    store.remove(add_image(store, buffered=True))
    assert store.images() == []


# -- what the store refuses ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_store_that_others_can_write(tmp_path, mode):
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(mode)
    with pytest.raises(StoreError, match="only root can write"):
        Store(root=tmp_path / "store", buffer=tmp_path / "buffer")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_store_of_somebody_else(tmp_path):
    (tmp_path / "store").mkdir()
    os.chown(tmp_path / "store", 1000, 1000)
    with pytest.raises(StoreError, match="only root can write"):
        Store(root=tmp_path / "store", buffer=tmp_path / "buffer")


def test_a_store_behind_a_symlink(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "store").symlink_to("real")
    with pytest.raises(StoreError, match="only root can write"):
        Store(root=tmp_path / "store", buffer=tmp_path / "buffer")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_buffer_of_somebody_else_disturbs_nothing_but_the_buffer(tmp_path):
    """Anybody can make a directory in /dev/shm; what is in it is not looked at."""
    forged = Store(root=tmp_path / "none", buffer=tmp_path / "buffer")
    add_image(forged, buffered=True, downtime=9)
    for path in (tmp_path / "buffer", *(tmp_path / "buffer").rglob("*")):
        os.chown(path, 1000, 1000)
    store = Store(root=tmp_path / "store", buffer=tmp_path / "buffer")
    assert "only root can write" in str(store.closed)
    assert store.images() == []
    store.sweep()
    image = add_image(store)
    assert store.resolve(Reference("web")) == image
    with pytest.raises(StoreError, match="only root can write"), store.staging(buffered=True):
        pass
    with pytest.raises(StoreError, match="only root can write"):
        store.check_space(1, buffered=True)
    store.remove(image)
    assert store.images() == []
    assert len(forged.images()) == 1


def test_no_space(store):
    store.check_space(1, buffered=False)
    with pytest.raises(StoreError, match="MiB left"):
        store.check_space(1 << 60, buffered=True)


def test_a_full_disk_says_so(store, monkeypatch):
    def fail(_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module, "sync", fail)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        add_image(store)
    assert "lxc-cr rm" in caught.value.hint
    assert store.images() == []


def test_a_store_that_is_locked(store, tmp_path, monkeypatch):
    add_image(store)
    monkeypatch.setattr(store_module, "LOCK_TIMEOUT", 0.05)
    other = Store(root=tmp_path / "store", buffer=tmp_path / "buffer")
    with other._root.locked(), pytest.raises(StoreError, match="locked"):
        add_image(store)


def test_nobody_waits_for_the_disk_of_another(store, tmp_path, monkeypatch):
    """To write gigabytes may take longer than a command waits for the lock."""
    other = Store(root=tmp_path / "store", buffer=tmp_path / "buffer")
    seal, sealed = store_module.seal_tree, []

    def slowly(directory):
        with other._root.locked(), other._buffer.locked():
            sealed.append(directory)
        seal(directory)

    image = add_image(store, buffered=True)
    store.copy(add_image(store), container="other")
    monkeypatch.setattr(store_module, "LOCK_TIMEOUT", 0.1)
    monkeypatch.setattr(store_module, "seal_tree", slowly)
    store.flush(image)
    store.copy(add_image(store), container="third")
    assert len(sealed) == 3


# -- death at any moment ---------------------------------------------------------------------------

# Everything by which the store changes the disk; the process dies before the call counted.
TOUCHED = [
    (os, "fsync"),
    (os, "mkdir"),
    (os, "rename"),
    (os, "rmdir"),
    (os, "unlink"),
    (os, "chmod"),
    (store_module.shutil, "rmtree"),
]


def die_at(step, work):
    """Run @work in a process that is killed at the @step-th change; False when it got through."""

    def child():
        count = 0

        def counting(function):
            def wrapper(*args, **kwargs):
                nonlocal count
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return function(*args, **kwargs)

            return wrapper

        for module, name in TOUCHED:
            setattr(module, name, counting(getattr(module, name)))
        work()
        return 0

    with fork(child) as process:
        return process.wait() == -signal.SIGKILL


def deaths(tmp_path, prepare, work):
    """For each change that @work makes: a store in which the process died there."""
    for step in range(200):
        place = tmp_path / str(step)
        place.mkdir()
        prepare(reopen(place))
        died = die_at(step, lambda place=place: work(reopen(place)))
        yield reopen(place), place
        if not died:
            assert step > 3
            return
    pytest.fail("it never got through")


def whole(image):
    """Whether all files of @image are what the manifest says."""
    from lxc_cr_plugin.image import verify_pages, verify_records

    verify_records(image, image.manifest())
    verify_pages(image, image.manifest())
    return True


def nothing_left_over(place):
    return all(not any(path.iterdir()) for path in place.glob("*/.staging"))


def test_death_while_adding(tmp_path):
    counts = set()
    for store, place in deaths(
        tmp_path, lambda store: add_image(store, downtime=1), lambda store: add_image(store)
    ):
        images = store.images()
        assert all(whole(image) for image in images)
        assert whole(store.resolve(Reference("web")))
        assert nothing_left_over(place)
        counts.add(len(images))
    assert counts == {1, 2}


def test_death_while_removing(tmp_path):
    counts = set()
    for store, place in deaths(
        tmp_path, add_image, lambda store: store.remove(store.resolve(Reference("web")))
    ):
        images = store.images()
        assert all(whole(image) for image in images)
        assert nothing_left_over(place)
        counts.add(len(images))
    assert counts == {0, 1}


def test_death_while_flushing(tmp_path):
    for store, place in deaths(
        tmp_path,
        lambda store: add_image(store, buffered=True),
        lambda store: store.flush(store.resolve(Reference("web"))),
    ):
        assert whole(store.resolve(Reference("web")))
        assert all(whole(image) for image in store.images())
        assert nothing_left_over(place)


def test_staging_of_a_living_command_stays(store, tmp_path):
    with store.staging(buffered=False) as staging:
        write_files(staging.path)
        reopen(tmp_path)
        assert (staging.path / "pages").exists()
    assert not staging.path.exists()


def test_staging_stays_while_an_engine_writes(store, tmp_path):
    """The descriptor is the lock: an engine that outlives its command keeps the directory."""
    with store.staging(buffered=False) as staging:
        kept = os.dup(staging.fd)
        path = Path(staging.path)
        # As after a kill: nobody cleans up.
        path.rename(path.with_name("kept"))
    reopen(tmp_path)
    assert path.with_name("kept").exists()
    os.close(kept)
    reopen(tmp_path)
    assert not path.with_name("kept").exists()


def test_staging_that_ends_while_it_is_swept(store, tmp_path, monkeypatch):
    """Its own command removes it without the lock: between our look and our open, say."""
    directory = None
    real = os.open

    def open_late(path, *arguments, **options):
        if directory and Path(path) == directory:
            directory.rmdir()
        return real(path, *arguments, **options)

    with store.staging(buffered=False) as staging:
        directory = staging.path
        monkeypatch.setattr(os, "open", open_late)
        store.sweep()
        assert not directory.exists()


def test_what_is_removed_while_it_is_listed(store, monkeypatch):
    image = add_image(store)
    real = Path.iterdir

    def look_early(path):
        found = list(real(path))
        if path == image.path.parent / "tags":
            monkeypatch.undo()
            store.remove(image)
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", look_early)
    assert store.images() == []
    assert Path.iterdir is real
    assert store.images() == []


def test_an_image_in_use_is_not_removed(store):
    image = add_image(store)
    fd = hold(image.path)
    for _ in range(2):
        with pytest.raises(StoreError, match="is in use"):
            store.remove(store.resolve(Reference("web")))
        assert whole(image)
    # Nor by the same one, as an import brings it.
    with store.staging(buffered=False) as staging:
        shutil.copytree(image.path, staging.path, dirs_exist_ok=True)
        with pytest.raises(StoreError, match="is in use"):
            store.commit(staging, container="web", tag="latest")
    assert os.path.samestat(os.fstat(fd), image.path.stat())
    os.close(fd)
    store.remove(store.resolve(Reference("web")))
    assert store.images() == []


def test_an_image_in_use_is_not_flushed(store):
    image = add_image(store, buffered=True)
    fd = hold(image.path)
    with pytest.raises(StoreError, match="is in use"):
        store.flush(image)
    assert store.images() == [image]
    os.close(fd)
    stored = store.flush(image)
    assert store.images() == [stored]


def test_a_buffer_that_keeps_what_was_flushed(store, monkeypatch):
    def read_only(*_arguments, **_options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    image = add_image(store, buffered=True)
    monkeypatch.setattr(store_module.Shelf, "remove_claimed", read_only)
    with pytest.raises(StoreError, match=r"remove an image.*Read-only file system"):
        store.flush(image)


def test_an_image_that_is_being_removed_is_not_held(store, monkeypatch):
    """Nobody may have begun with it, and nobody begins, until all of it is gone."""
    image = add_image(store)
    removing = shutil.rmtree
    fds = open_fds()
    tried = []

    def remove(path, **options):
        if path.parent.name == ".staging":
            with pytest.raises(StoreError, match="was removed"):
                hold(image.path)
            with pytest.raises(StoreError, match="or removed"):
                hold(path)
            tried.append(path)
        removing(path, **options)

    monkeypatch.setattr(in_use, "HOLD_TIMEOUT", 0.01)
    monkeypatch.setattr(shutil, "rmtree", remove)
    store.remove(image)
    assert len(tried) == 1
    assert store.images() == []
    assert open_fds() == fds


def test_an_image_that_goes_while_it_is_waited_for(store, monkeypatch):
    image = add_image(store)
    fds = open_fds()
    lock = in_use.try_lock

    def late(fd, how=fcntl.LOCK_EX):
        if how == fcntl.LOCK_SH:
            monkeypatch.setattr(in_use, "try_lock", lock)
            store.remove(image)
        return lock(fd, how)

    monkeypatch.setattr(in_use, "try_lock", late)
    with pytest.raises(StoreError, match="was removed"):
        hold(image.path)
    assert open_fds() == fds


def test_an_image_that_cannot_be_removed(store, monkeypatch):
    image = add_image(store)

    def read_only(*_arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StoreError, match="Read-only file system"):
        store.remove(image)
