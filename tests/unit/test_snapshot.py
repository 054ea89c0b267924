# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots of a tree: what is captured comes back, whatever was done to it, and back again."""

import contextlib
import fcntl
import os
import subprocess
from pathlib import Path

import cbor2
import pytest

from lxc_cr_plugin.errors import CheckpointError, HostError, ImageError, RestartError
from lxc_cr_plugin.native.tree_take import Arena
from lxc_cr_plugin.snapshot import (
    Storage,
    backend_for,
    confirm,
    content,
    kept_beside,
    mounted,
    repair,
    rollback,
    view,
    volatile,
)
from lxc_cr_plugin.snapshot import kept as keeping
from lxc_cr_plugin.snapshot.capture import Capture, Known, key_of_row
from lxc_cr_plugin.snapshot.in_memory import MemoryCapture
from lxc_cr_plugin.snapshot.source import Contents
from lxc_cr_plugin.snapshot.tree import Tree

from .. import trees
from ..trees import build, change

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes")


def capture(root: Path, target: Path, *, known: Known | None = None, between=lambda: None):
    """The view of a whole capture; @between runs where the container would still run."""
    target.mkdir(parents=True)
    with Tree(root) as tree:
        taken = Capture(tree, target=target, known=known or Known({}, {}))
        taken.prepare(check_space=lambda _need: None)
        between()
        taken.freeze()
        return taken.finish(ended=True)


@pytest.fixture
def root(request, tmp_path):
    """A tree with one of everything, a plain directory or, with @either, where something is mounted."""
    kind = getattr(request, "param", "directory")
    path = tmp_path / "rootfs"
    path.mkdir()
    if kind == "mount":
        (tmp_path / "mounted").mkdir()
        subprocess.run(["mount", "--bind", tmp_path / "mounted", path], check=True)
    build(path)
    yield path
    if kind == "mount":
        subprocess.run(["umount", path], check=True)


either = pytest.mark.parametrize("root", ["directory", "mount"], indirect=True)


def look(root: Path) -> dict[str, tuple]:
    """The tree as a program sees it when the restart is over."""
    return {p: seen for p, seen in trees.look(root).items() if not p.startswith(mounted.ROOM)}


def is_away(root: Path) -> bool:
    """Whether nothing can start from it."""
    return not root.exists() or [path.name for path in root.iterdir()] == [mounted.ROOM]


def roll_back(root: Path, wanted: view.View, contents: Path, kept: Path, *, full: bool = False):
    with Tree(root) as tree:
        changes = rollback.compare(tree, wanted, full=full)
        rollback.apply(tree, wanted, changes, contents=Contents(contents), kept=kept)
    return changes


def hold_lease(path: Path) -> int:
    """A descriptor with a lease on @path: who opens it waits for us."""
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    return fd


def test_what_is_read_into_memory_is_written_at_the_end(tmp_path):
    """A tmpfs: large files in pieces, small ones by the hundred, holes, and one that nobody may open."""
    root, target = tmp_path / "tmpfs", tmp_path / "contents"
    for path in (root, target):
        path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", root], check=True)
    scope = contextlib.ExitStack()
    scope.callback(subprocess.run, ["umount", root], check=True)
    with scope:
        build(root)
        for number in range(300):
            (root / f"dir/{number}").write_bytes(b"%d" % number * (number % 50))
        (root / "pieces").write_bytes(os.urandom((5 << 20) + 7))
        with (root / "holes").open("wb") as file:
            for place in range(0, 100 << 20, 7 << 20):
                os.pwrite(file.fileno(), os.urandom(3 << 19), place)
        (root / "leased").write_bytes(os.urandom(10_000))
        before = look(root)
        with os.fdopen(hold_lease(root / "leased"), "rb+"), Tree(root) as tree:
            arena = Arena(size=64 << 20, warm=1 << 20)
            taken = MemoryCapture(tree, target=target, prefix="tmpfs-", arena=arena)
            taken.freeze()
            assert len(list(target.iterdir())) == 1  # the leased one
            wanted = taken.finish(ended=False)
            small = MemoryCapture(
                tree, target=target, prefix="tmpfs-", arena=Arena(size=1 << 20, warm=0)
            )
            with pytest.raises(CheckpointError, match=r"No space left"):
                small.freeze()
        assert not list(target.glob("tmpfs-*"))
        subprocess.run(["mount", "-o", "remount,size=0", root], check=True)
        fd = os.open(root, os.O_RDONLY)
        assert volatile._used(fd) > 20 << 20
        os.close(fd)
        change(root)
        for name in ("pieces", "holes"):
            (root / name).write_bytes(b"changed")
        fd = os.open(root, os.O_RDONLY)
        volatile.fill(fd, "/tmp", wanted, Contents(target), busy=())
        os.close(fd)
        assert look(root) == before


def test_files_of_a_tmpfs_wait_in_memory(tmp_path, monkeypatch):
    """Unless there is too little of it."""
    taken = volatile.VolatileCapture(init_pid=1, mounts=[], staging=tmp_path)
    for in_memory, most in ((False, 1000), (True, 500)):
        monkeypatch.setattr(volatile, "is_in_memory", lambda _, found=in_memory: found)
        monkeypatch.setattr(volatile, "available_memory", lambda: 2000)
        assert taken._arena_for(most)
        assert taken._arena_for(most + 1) is None


@either
def test_everything_comes_back_and_goes_back(root, tmp_path):
    taken = capture(root, tmp_path / "contents")
    taken = view.decode(taken.encode())
    before = look(root)
    change(root)
    changed = look(root)
    inode = (root / "empty").stat().st_ino
    roll_back(root, taken, tmp_path / "contents", tmp_path / ".rootfs.lxc-cr")
    assert look(root) == before
    assert (root / "empty").stat().st_ino == inode
    assert rollback.undo(tmp_path / ".rootfs.lxc-cr", force=True)
    assert look(root) == changed
    assert (root / "empty").stat().st_ino == inode
    assert not (tmp_path / ".rootfs.lxc-cr").exists()
    assert not rollback.undo(tmp_path / ".rootfs.lxc-cr", force=True)


@either
def test_what_is_settled_stays(root, tmp_path):
    taken = capture(root, tmp_path / "contents")
    before = look(root)
    change(root)
    roll_back(root, taken, tmp_path / "contents", tmp_path / ".rootfs.lxc-cr")
    rollback.settle(tmp_path / ".rootfs.lxc-cr")
    assert not rollback.undo(tmp_path / ".rootfs.lxc-cr", force=True)
    assert look(root) == before


@either
def test_interrupted_anywhere_it_goes_back(root, tmp_path, monkeypatch):
    """The n-th call that changes something is never made; then everything is undone."""
    taken = capture(root, tmp_path / "contents")
    change(root)
    changed = look(root)
    steps = 0
    for number in range(1000):
        left = [number]
        for module, name in (
            (rollback, "_remove"), (rollback, "_make"), (rollback, "_link_inside"),
            (mounted, "_move"),
        ):  # fmt: skip
            real = getattr(module, name)

            def limited(*arguments, real=real, left=left):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return real(*arguments)

            monkeypatch.setattr(module, name, limited)
        try:
            roll_back(root, taken, tmp_path / "contents", tmp_path / ".rootfs.lxc-cr")
        except KeyboardInterrupt:
            monkeypatch.undo()
            assert rollback.undo(tmp_path / ".rootfs.lxc-cr", force=True)
            assert look(root) == changed
            steps += 1
            continue
        break
    monkeypatch.undo()
    assert steps > 20
    assert rollback.undo(tmp_path / ".rootfs.lxc-cr", force=True)
    assert look(root) == changed


def test_what_changes_during_the_capture(root, tmp_path):
    """The first pass is outdated at the stop: the second look counts."""

    def between():
        change(root)
        (root / "late").write_bytes(b"z" * 10_000)

    taken = capture(root, tmp_path / "contents", between=between)
    before = look(root)
    (root / "late").unlink()
    change_back = root / "dir/deep/large"
    change_back.write_bytes(b"again")
    roll_back(root, taken, tmp_path / "contents", tmp_path / ".rootfs.lxc-cr")
    assert look(root) == before


def test_a_store_into_a_mapping_is_seen(tmp_path):
    """Dirty before the first look, stored into after it: ctime has to move, or it is not believed."""
    import mmap

    root = tmp_path / "rootfs"
    root.mkdir()
    with (root / "mapped").open("w+b") as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 8192) as memory:
            memory[0] = 1

            def between():
                memory[0] = 2

            taken = capture(root, tmp_path / "contents", between=between)
            memory[0] = 3
    wanted = {row.path: row for row in taken.rows.values()}["mapped"]
    data = (tmp_path / "contents" / wanted.digest.hex()).read_bytes()
    assert data[0] == 2


def test_what_is_known_is_not_read_again(root, tmp_path):
    first = capture(root, tmp_path / "one")
    rows = {key: row for row in first.rows.values() if (key := key_of_row(row))}
    contents = {digest: tmp_path / "one" / digest.hex() for digest in first.contents()}
    second = capture(root, tmp_path / "two", known=Known(rows, contents))
    assert second.digest() == first.digest()
    for path in (tmp_path / "two").iterdir():
        assert path.stat().st_nlink == 2
    assert len(list((tmp_path / "two").iterdir())) == len(first.contents())


def test_hard_links_outside_are_left_alone(root, tmp_path):
    """A file that has a name elsewhere is replaced, never written to."""
    taken = capture(root, tmp_path / "contents")
    (root / "setuid").write_bytes(b"changed")
    os.link(root / "setuid", tmp_path / "elsewhere")
    roll_back(root, taken, tmp_path / "contents", tmp_path / ".rootfs.lxc-cr")
    assert (root / "setuid").read_bytes() == b"x" * 5000
    assert (tmp_path / "elsewhere").read_bytes() == b"changed"


def test_a_quick_look_and_a_full_one(root, tmp_path):
    taken = capture(root, tmp_path / "contents")
    with Tree(root) as tree:
        assert rollback.compare(tree, taken) == []
        assert rollback.compare(tree, taken, full=True) == []
        (root / "small").write_bytes(b"Small")
        (change,) = rollback.compare(tree, taken)
    assert change == rollback.Change("small", "content")


def test_times_of_directories_are_silent(root, tmp_path):
    taken = capture(root, tmp_path / "contents")
    os.utime(root / "dir", (1, 1))
    with Tree(root) as tree:
        assert rollback.compare(tree, taken) == [rollback.Change("dir", "time", silent=True)]


def test_a_damaged_content_touches_nothing(root, tmp_path):
    taken = capture(root, tmp_path / "contents")
    change(root)
    changed = look(root)
    for path in (tmp_path / "contents").iterdir():
        path.write_bytes(path.read_bytes()[:-1] if path.stat().st_size < 1 << 20 else b"")
    with pytest.raises(ImageError, match="is not what was written"):
        roll_back(root, taken, tmp_path / "contents", tmp_path / ".rootfs.lxc-cr")
    assert look(root) == changed
    assert not (tmp_path / ".rootfs.lxc-cr").exists()


def test_nothing_is_followed(root, tmp_path):
    """A directory of the snapshot has become a symbolic link to the outside."""
    taken = capture(root, tmp_path / "contents")
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/large").write_bytes(b"precious")
    (root / "dir").rename(tmp_path / "away")
    (root / "dir").symlink_to(outside)
    roll_back(root, taken, tmp_path / "contents", tmp_path / ".rootfs.lxc-cr")
    assert (outside / "deep/large").read_bytes() == b"precious"
    assert sorted(path.name for path in outside.rglob("*")) == ["deep", "large"]
    assert (root / "dir").is_dir()
    assert not (root / "dir").is_symlink()


def test_a_tree_does_not_leave_itself(root, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (root / "out").symlink_to(tmp_path)
    with Tree(root) as tree:
        for path in ("../secret", "out/secret", "out", str(tmp_path / "secret")):
            with pytest.raises(OSError, match=r"cross-device|symbolic|levels"):
                tree.open(path, os.O_RDONLY)
        assert tree.status("../secret") is None


ROOT = [b"", 0o40755, 0, 0, 0, 0, 0, 0, None, None, {}, None]
FILE = [b"a", 0o100644, 0, 0, 0, 0, 0, 1, b"x", None, {}, None]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [FILE],
        [ROOT, FILE, FILE],
        [ROOT, [b"b", *FILE[1:]], FILE],
        [ROOT, [b"../b", *FILE[1:]]],
        [ROOT, [b"/etc", *FILE[1:]]],
        [ROOT, [b"no/b", *FILE[1:]]],
        [ROOT, FILE, [b"a/b", *FILE[1:]]],
        [ROOT, [b"a\0b", *FILE[1:]]],
        [ROOT, [*FILE[:7], 2, *FILE[8:]]],
        [ROOT, [*FILE[:8], None, b"short", {}, None]],
        [ROOT, [*FILE[:8], None, None, {}, None]],
        [ROOT, [b"a", 0o120777, *FILE[2:8], None, None, {}, None]],
        [ROOT, [b"a", 0, *FILE[2:]]],
        [ROOT, [b"a", 0o100644, -1, *FILE[3:]]],
        [ROOT, [*FILE[:4], 2**63 * 10**9, *FILE[5:]]],
        [ROOT, [*FILE[:10], {"user.a": "text"}, None]],
        [ROOT, [*FILE[:6], 1, *FILE[7:]], [b"b", 0o100600, *FILE[2:6], 1, *FILE[7:]]],
        ["row"],
        [[b"", 0o100644, *FILE[2:]]],
    ],
)
def test_hostile_views(rows):
    with pytest.raises(ImageError):
        view.decode(cbor2.dumps(rows))


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x9f", cbor2.dumps({}), b"\x9b" + b"\xff" * 8])
def test_no_views(data):
    with pytest.raises(ImageError):
        view.decode(data)


def test_digests_do_not_depend_on_holes(tmp_path):
    data = bytes(300_000) + b"x" + bytes(100_000)
    (tmp_path / "written").write_bytes(data)
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(len(data))
        file.seek(300_000)
        file.write(b"x")
    digests = set()
    for path in (tmp_path / "written", tmp_path / "holes"):
        with path.open("rb") as file:
            digests.add(content.digest(file.fileno(), size=len(data)))
    assert digests == {content.digest_of_bytes(data)}
    assert content.digest_of_bytes(data) != content.digest_of_bytes(data[:-1])


def test_storage(tmp_path):
    assert Storage.parse(f"dir:{tmp_path}") == ("dir", (tmp_path,))
    assert Storage.parse(str(tmp_path)) == ("dir", (tmp_path,))
    assert Storage.parse("overlay:/a:/b") == ("overlay", (Path("/a"), Path("/b")))
    assert Storage.parse(f"{tmp_path}:{tmp_path}") == ("overlay", (tmp_path, tmp_path))
    assert Storage.parse(f"{tmp_path}/no:{tmp_path}").type == ""
    assert kept_beside(f"dir:{tmp_path}/rootfs") == tmp_path / ".rootfs.lxc-cr"
    assert kept_beside("zfs:tank/web") is None
    with pytest.raises(HostError, match="are not possible on a root filesystem like 'zfs"):
        backend_for("zfs:tank/web")


def brought_back(root: Path, tmp_path: Path) -> dict[str, tuple]:
    """A restart that was cut off after it had brought @root to an image; what was there before."""
    taken = capture(root, tmp_path / "contents")
    change(root)
    before = look(root)
    roll_back(root, taken, tmp_path / "contents", tmp_path / ".rootfs.lxc-cr")
    return before


@either
def test_what_was_cut_off_goes_back_when_nobody_built_upon_it(root, tmp_path):
    before = brought_back(root, tmp_path)
    kept = tmp_path / ".rootfs.lxc-cr"
    (root / "dir/place-for-a-mount").mkdir()
    assert repair(kept, confirmed=None) == "brought its files back"
    assert look(root) == before
    assert not kept.exists()


@either
@pytest.mark.parametrize(
    ("path", "done"),
    [
        ("work", lambda path: path.write_bytes(b"of days")),
        ("small", lambda path: path.write_bytes(b"other")),
        ("acl", Path.unlink),
        ("dir", lambda path: path.chmod(0o700)),
    ],
)
def test_work_that_was_done_since_is_not_dropped(path, done, root, tmp_path):
    """Nothing tells that the container has been running, but the files themselves."""
    before = brought_back(root, tmp_path)
    kept = tmp_path / ".rootfs.lxc-cr"
    done(root / path)
    since = look(root)
    with pytest.raises(RestartError, match=f"1 files there were changed since: /{path}") as caught:
        repair(kept, confirmed=None)
    assert "lxc-cr repair" in (caught.value.hint or "")
    assert look(root) == since
    assert repair(kept, confirmed=False) == "brought its files back"
    assert look(root) == before


@either
def test_what_was_confirmed_stays_whoever_comes(root, tmp_path):
    """As after a power cut: only the directory itself can say so."""
    brought_back(root, tmp_path)
    kept = tmp_path / ".rootfs.lxc-cr"
    confirm(kept)
    (root / "work").write_bytes(b"of days")
    since = look(root)
    repair(kept, confirmed=None)
    assert look(root) == since
    assert not kept.exists()


@either
def test_nothing_starts_from_half_of_a_tree(root, tmp_path, monkeypatch):
    """Cut off in between, there and back, it is at its place no sooner than it is whole."""
    taken = capture(root, tmp_path / "contents")
    change(root)
    before = look(root)
    kept = tmp_path / ".rootfs.lxc-cr"

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rollback, "_make", cut)
    with pytest.raises(KeyboardInterrupt):
        roll_back(root, taken, tmp_path / "contents", kept)
    assert is_away(root)
    assert kept_beside(str(root)) == kept
    with pytest.raises(KeyboardInterrupt):
        repair(kept, confirmed=None)
    assert is_away(root)
    with pytest.raises(HostError, match="The container's files are in"):
        rollback.discard(kept)
    monkeypatch.undo()
    repair(kept, confirmed=None)
    assert look(root) == before


@either
def test_somebody_made_another_tree_meanwhile(root, tmp_path, monkeypatch):
    before = brought_back(root, tmp_path)
    kept = tmp_path / ".rootfs.lxc-cr"
    keeping.take_away(kept)
    root.mkdir(exist_ok=True)
    (root / "acl").write_bytes(b"of days")
    with pytest.raises(HostError, match="Failed to move"):
        repair(kept, confirmed=None)
    assert (root / "acl").read_bytes() == b"of days"
    (root / "acl").unlink()
    repair(kept, confirmed=None)
    assert look(root) == before


@pytest.mark.parametrize("root", ["mount"], indirect=True)
def test_what_was_kept_inside_the_tree_is_not_followed(root, tmp_path):
    """The root of the container may have changed it; or its file system is not mounted any more."""
    brought_back(root, tmp_path)
    kept, room = tmp_path / ".rootfs.lxc-cr", root / mounted.ROOM
    now = look(root)
    os.chown(room, 1000, 1000)
    with pytest.raises(HostError, match="not a directory of root alone"):
        repair(kept, confirmed=None)
    os.chown(room, 0, 0)
    room.rename(root / "elsewhere")
    room.symlink_to(root / "elsewhere")
    with pytest.raises(HostError, match="Failed to open") as caught:
        repair(kept, confirmed=None)
    assert "has to be mounted" in (caught.value.hint or "")
    room.unlink()
    (root / "elsewhere").rename(room)
    assert look(root).keys() == now.keys()
    subprocess.run(["umount", root], check=True)
    with pytest.raises(HostError, match="Failed to open"):
        repair(kept, confirmed=True)
    subprocess.run(["mount", "--bind", tmp_path / "mounted", root], check=True)
    copy = next(path for path in room.iterdir() if path.stat().st_nlink == 1)
    copy.unlink()
    copy.symlink_to("/etc/shadow")
    with pytest.raises(HostError, match="Failed to bring the previous files back"):
        repair(kept, confirmed=False)


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_kept_directory_of_others_is_not_followed(mode, root, tmp_path):
    brought_back(root, tmp_path)
    kept = tmp_path / ".rootfs.lxc-cr"
    now = look(root)
    kept.chmod(mode)
    with pytest.raises(HostError, match="not a directory of root alone"):
        repair(kept, confirmed=None)
    kept.chmod(0o700)
    os.chown(kept, 1000, 1000)
    with pytest.raises(HostError, match="not a directory of root alone"):
        repair(kept, confirmed=None)
    assert look(root) == now


def test_a_link_to_a_kept_directory_is_not_followed(root, tmp_path):
    brought_back(root, tmp_path)
    now = look(root)
    (tmp_path / ".rootfs.lxc-cr").rename(tmp_path / "elsewhere")
    (tmp_path / ".rootfs.lxc-cr").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="not a directory of root alone"):
        repair(tmp_path / ".rootfs.lxc-cr", confirmed=None)
    assert look(root) == now


def test_a_file_that_became_a_device_is_not_opened(root, tmp_path):
    """No driver has this number: an attempt would say so."""
    (tmp_path / "contents").mkdir()
    with Tree(root) as tree:
        taken = Capture(tree, target=tmp_path / "contents", known=Known({}, {}))
        status = (root / "setuid").lstat()
        (root / "setuid").unlink()
        os.mknod(root / "setuid", 0o020600, os.makedev(240, 77))
        with pytest.raises(OSError, match="it is changed right now"):
            taken._open("setuid", status)
