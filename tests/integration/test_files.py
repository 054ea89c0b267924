# SPDX-License-Identifier: LGPL-2.1-or-later
"""The container's files are those of the instant of the image, whatever became of them since."""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from lxc_cr_plugin.snapshot import view
from lxc_cr_plugin.snapshot.tree_backend import VIEW

from .container import Container, Victim, run, wait_until
from .test_robustness import tree_of

RESTART_FAILED, ENGINE_DIED = 10, 11

ROUNDS = 5


@pytest.fixture
def ledger(container: Container) -> Victim:
    victim = container.add_victim("ledger")
    container.start()
    victim.ready()
    return victim


def number_of(victim: Victim) -> int:
    """How far the ledger has come, from the name of a file."""
    (file,) = victim.status.parent.glob(f"{victim.name}-is-*")
    return int(file.name.rpartition("-")[2])


def runs_on(victim: Victim) -> None:
    """Until it has made some more entries."""
    wait_until(lambda: list(victim.status.parent.glob(f"{victim.name}-is-*")), what="a number")
    begin = moving(victim)
    wait_until(lambda: moving(victim) > begin + 5, what="more entries")
    victim.ready()


def moving(victim: Victim) -> int:
    try:
        return number_of(victim)
    except ValueError:
        return 0  # between two names


def test_files_and_memory_are_of_one_instant(container, ledger):
    """An old image is restarted after the container has run on, again and again."""
    for _ in range(ROUNDS):
        outcome = container.checkpoint()
        assert outcome.result["capturing"] < 1e9
        runs_on(ledger)
        (container.rootfs / "root/since").touch()
        container.stop()
        outcome = container.restart()
        assert outcome.result["rootfs"]["changed"] > 0
        assert not (container.rootfs / "root/since").exists()
        runs_on(ledger)
    ledger.verify()


def test_an_image_can_be_restarted_twice(container, ledger):
    container.checkpoint("--image", f"{container.name}:old")
    for _ in range(2):
        runs_on(ledger)
        container.stop()
        container.restart(f"{container.name}:old")
    runs_on(ledger)
    ledger.verify()


def change_everything(rootfs: Path) -> None:
    """One change of each sort."""
    (rootfs / "etc/passwd").write_text("someone else")
    (rootfs / "etc/group").unlink()
    (rootfs / "bin/busybox").rename(rootfs / "bin/moved")
    (rootfs / "bin/cat").unlink()
    (rootfs / "bin/cat").symlink_to("/etc/shadow")
    (rootfs / "mnt").rmdir()
    (rootfs / "mnt").write_text("no directory")
    (rootfs / "root").chmod(0o711)
    (rootfs / "new/deep").mkdir(parents=True)
    (rootfs / "new/deep/file").write_text("new")
    os.mkfifo(rootfs / "new/fifo")
    os.utime(rootfs / "victims", (1, 1))


def test_every_change_is_undone(container, ledger):
    container.checkpoint("--stop")
    before = tree_of(container.rootfs)
    change_everything(container.rootfs)
    outcome = container.try_cr("restart", container.name, "--files", "refuse")
    assert outcome.code == RESTART_FAILED
    assert "/etc/passwd" in outcome.text
    told = container.restart().result["rootfs"]["paths"]
    assert {"etc/passwd", "etc/group", "bin/moved", "bin/cat", "mnt", "new/deep/file"} <= {*told}
    container.checkpoint("--stop", "--image", f"{container.name}:second")
    container.stop()
    after = tree_of(container.rootfs)
    own = {name for name in before.keys() | after.keys() if name.startswith("status/")}
    assert {n: v for n, v in after.items() if n not in own} == {
        n: v for n, v in before.items() if n not in own
    }
    container.restart(f"{container.name}:second")
    ledger.verify()


def test_changed_files_are_kept_when_asked_for(container, ledger):
    container.checkpoint("--stop")
    (container.rootfs / "etc/passwd").write_text("changed")
    outcome = container.restart("--files", "keep")
    assert outcome.result["rootfs"]["paths"] == ["etc/passwd"]
    assert (container.rootfs / "etc/passwd").read_text() == "changed"
    ledger.verify()


def test_nothing_is_reported_when_nothing_changed(container, ledger):
    container.checkpoint("--stop")
    outcome = container.restart("--files", "refuse")
    assert outcome.result["rootfs"]["changed"] == 0
    ledger.verify()


def test_a_full_look_finds_what_times_do_not_show(container, ledger):
    """A store into a mapping of a page that was dirty already moves no time."""
    container.checkpoint("--stop")
    outcome = container.restart("--verify", "full", "--files", "refuse")
    assert outcome.result["rootfs"]["changed"] == 0
    ledger.verify()


def test_without_files(container, ledger):
    container.checkpoint("--stop", "--files", "none")
    (container.rootfs / "etc/passwd").write_text("changed")
    assert container.restart().result["rootfs"] is None
    assert (container.rootfs / "etc/passwd").read_text() == "changed"
    ledger.verify()


def inodes_of(rootfs: Path) -> dict[str, int]:
    """Programs compare them: a file that comes back is the same file."""
    files = [path for path in rootfs.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path): path.stat().st_ino for path in files}


@pytest.mark.parametrize("fault", ["restart-ready", "restart-states!", "restart-release"])
def test_a_failed_restart_leaves_the_files(fault, container, ledger):
    container.checkpoint()
    runs_on(ledger)
    container.stop()
    change_everything(container.rootfs)
    before = tree_of(container.rootfs)
    inodes = inodes_of(container.rootfs)
    outcome = container.try_cr("restart", container.name, LXC_CR_FAULT=fault)
    assert outcome.code != 0
    assert tree_of(container.rootfs) == before
    if fault != "restart-release":  # then programs have run, and replaced files themselves
        assert inodes_of(container.rootfs) == inodes
    assert_nothing_kept(container)
    container.restart()
    ledger.verify()


@pytest.mark.parametrize("step", ["files", "engine", "start", "confirm"])
def test_a_killed_restart_leaves_old_or_new(step, container, ledger):
    """What was killed is repaired by the next command; files and processes fit together."""
    container.checkpoint()
    runs_on(ledger)
    container.stop()
    before = tree_of(container.rootfs)
    outcome = container.try_cr("restart", container.name, LXC_CR_FAULT=f"python:{step}")
    assert outcome.code == -signal.SIGKILL
    container.cr("ls")
    if step == "confirm":
        assert container.state == "RUNNING"
    else:
        assert container.state == "STOPPED"
        assert tree_of(container.rootfs) == before
        container.restart()
    assert_nothing_kept(container)
    runs_on(ledger)
    ledger.verify()


def assert_nothing_kept(container: Container) -> None:
    assert [path.name for path in container.directory.glob(".rootfs*")] == []


def contents_of(container: Container) -> list[Path]:
    (image,) = container.laboratory.store.joinpath(container.name).glob("?" * 64)
    return sorted((image / "rootfs").iterdir())


def test_a_damaged_content_is_not_brought_back(container, ledger):
    container.checkpoint("--stop")
    # Not written to: the other containers of the session have the same file.
    (container.rootfs / "bin/busybox").unlink()
    before = tree_of(container.rootfs)
    for content in contents_of(container):
        data = content.read_bytes()
        content.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    outcome = container.try_cr("restart", container.name)
    assert outcome.code == 6, outcome.text
    assert tree_of(container.rootfs) == before
    assert_nothing_kept(container)


def test_images_share_contents_and_go_alone(container, ledger):
    for tag in ("one", "two"):
        container.checkpoint("--image", f"{container.name}:{tag}")
    home = container.laboratory.store / container.name
    contents = [path.stat() for path in home.glob("*/rootfs/*")]
    programs = [status for status in contents if status.st_size > 1 << 16]
    assert len(programs) == 4
    assert {status.st_nlink for status in programs} == {2}
    container.cr("rm", f"{container.name}:one")
    container.stop()
    shutil.rmtree(container.rootfs / "bin")
    container.restart(f"{container.name}:two")
    runs_on(ledger)
    ledger.verify()


def test_a_file_nobody_may_open(container, ledger):
    """A fifo without a writer, a device without a driver, a socket: none may hold up a checkpoint."""
    directory = container.rootfs / "root"
    os.mkfifo(directory / "fifo")
    os.mknod(directory / "device", 0o020600, os.makedev(240, 77))
    os.mknod(directory / "socket", 0o140600)
    container.checkpoint("--stop")
    before = tree_of(directory)
    for path in directory.iterdir():
        path.unlink()
    container.restart()
    assert tree_of(directory) == before
    assert (directory / "device").stat().st_rdev == os.makedev(240, 77)
    ledger.verify()


def test_rollback_of_a_running_container(container, ledger):
    container.checkpoint("--image", f"{container.name}:good")
    runs_on(ledger)
    ahead = number_of_next(ledger)
    outcome = container.cr("rollback", container.name, f"{container.name}:good")
    assert outcome.result["before"]
    assert container.state == "RUNNING"
    # and forward again, to what had run before
    digest = outcome.result["before"]
    container.cr("rollback", container.name, f"{container.name}@{digest}", "--no-checkpoint")
    assert number_of_next(ledger) >= ahead
    runs_on(ledger)
    ledger.verify()


def test_rollback_keeps_files_that_checkpoints_leave_out(container, ledger):
    container.checkpoint("--image", f"{container.name}:good")
    (container.directory / "lxc-cr.toml").write_text('files = "none"\n')
    (container.rootfs / "root/since").write_text("work")
    container.cr("rollback", container.name, f"{container.name}:good")
    assert not (container.rootfs / "root/since").exists()
    container.stop()
    container.restart(f"{container.name}:before-rollback")
    assert (container.rootfs / "root/since").read_text() == "work"
    ledger.verify()


def number_of_next(victim: Victim) -> int:
    """The number in a file that is always there."""
    return int.from_bytes(victim.status.with_name(f"{victim.name}-written").read_bytes(), "little")


def test_rollback_that_fails_returns(container, ledger):
    (container.rootfs / "root/large").write_bytes(os.urandom(10_000))
    container.checkpoint("--image", f"{container.name}:good")
    runs_on(ledger)
    ahead = number_of_next(ledger)
    (container.rootfs / "root/large").unlink()
    for content in (container.laboratory.store / container.name).glob("*/rootfs/*"):
        data = content.read_bytes()
        content.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    outcome = container.try_cr("rollback", container.name, f"{container.name}:good")
    assert outcome.code == 6, outcome.text
    assert container.state == "RUNNING"
    assert number_of_next(ledger) >= ahead
    runs_on(ledger)
    ledger.verify()


def test_rollback_to_a_damaged_image_ends_nothing(container, ledger):
    container.checkpoint()
    pages = next((container.laboratory.store / container.name).glob("*/pages"))
    pages.write_bytes(bytes(pages.stat().st_size))
    init = container.init_pid
    outcome = container.try_cr("rollback", container.name)
    assert outcome.code == 6, outcome.text
    assert container.init_pid == init
    assert len(container.images) == 1
    ledger.verify()


def test_verify_reads_everything(container, ledger):
    container.checkpoint()
    container.cr("verify", container.name)
    content = contents_of(container)[0]
    data = content.read_bytes()
    content.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert container.try_cr("verify", container.name).code == 6
    ledger.verify()


def test_export_and_import_through_a_pipe(container, ledger, tmp_path):
    container.checkpoint("--stop")
    (image,) = container.images
    elsewhere = tmp_path / "store"
    command = container.command("export", container.name)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as export:
        arrived = run(*container.command("import", "--store", elsewhere), stdin=export.stdout)
    assert export.returncode == 0
    assert image["digest"] in arrived.stdout
    (container.rootfs / "bin/cat").unlink()
    container.restart("--store", elsewhere)
    ledger.verify()


def test_a_damaged_stream_is_refused(container, ledger, tmp_path):
    container.checkpoint("--stop")
    file, elsewhere = tmp_path / "image.tar", tmp_path / "store"
    file.touch(0o644)
    container.cr("export", container.name, file)
    assert file.stat().st_mode & 0o777 == 0o600
    for there in ("-", "/dev/full"):
        with Path("/dev/full").open("w") as full:
            command = container.command("export", container.name, there)
            command.remove("--json")
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 8, done.stderr
    data = file.read_bytes()
    dice = random.Random(7)
    for _ in range(12):
        position = dice.randrange(len(data))
        damaged = data[:position] + bytes([data[position] ^ 0x41]) + data[position + 1 :]
        file.write_bytes(dice.choice([damaged, data[:position]]))
        if any(data[position - 4 : position + 4]):  # padding may hold anything
            outcome = container.try_cr("import", file, "--store", elsewhere)
            assert outcome.code in (0, 6), outcome.text
            assert outcome.code == 6 or file.stat().st_size == len(data)
        shutil.rmtree(elsewhere, ignore_errors=True)
    file.write_bytes(data)
    container.cr("import", file, "--store", elsewhere)
    # One that is damaged there is replaced by the same one.
    pages = next(elsewhere.glob("*/*/pages"))
    pages.write_bytes(bytes(pages.stat().st_size))
    assert container.try_cr("verify", container.name, "--store", elsewhere).code == 6
    container.cr("import", file, "--store", elsewhere)
    container.restart("--store", elsewhere)
    ledger.verify()


def forge_stamps(stream: Path, rootfs: Path) -> None:
    """Let an exported image say that it has seen all files as they are now."""
    with tarfile.open(stream) as archive:
        members = [(entry, archive.extractfile(entry).read()) for entry in archive]
    data = {entry.name: data for entry, data in members}
    rows = view.decode(data[VIEW]).rows.values()
    seen = {row.path: (rootfs / row.path).lstat() for row in rows}
    forged = view.View.of(
        row._replace(
            mtime=seen[row.path].st_mtime_ns,
            stamp=view.Stamp(seen[row.path].st_ino, seen[row.path].st_ctime_ns),
        )
        for row in rows
    )
    data[VIEW] = forged.encode()
    manifest = json.loads(data["manifest.json"])
    manifest["rootfs"]["view"] = forged.digest()
    (listed,) = [one for one in manifest["files"] if one["name"] == VIEW]
    listed |= {"size": len(data[VIEW]), "sha256": hashlib.sha256(data[VIEW]).hexdigest()}
    data["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(stream, "w") as archive:
        for entry, _ in members:
            entry.size = len(data[entry.name])
            archive.addfile(entry, io.BytesIO(data[entry.name]))


def test_stamps_from_elsewhere_prove_nothing(container, ledger, tmp_path):
    """Neither that a file is as in the image, nor what is in it."""
    container.checkpoint("--stop")
    file = tmp_path / "image.tar"
    container.cr("export", container.name, file)
    passwd = container.rootfs / "etc/passwd"
    text = passwd.read_text()
    passwd.write_text(text.replace("root", "toor"))
    forge_stamps(file, container.rootfs)
    container.cr("import", file, "--tag", "forged")
    outcome = container.try_cr(
        "restart", container.name, f"{container.name}:forged", "--files", "refuse"
    )
    assert "/etc/passwd" in outcome.text
    container.restart(f"{container.name}:forged", "--files", "keep")
    container.checkpoint("--stop")
    passwd.write_text(text)
    container.restart()
    assert "toor" in passwd.read_text()
    ledger.verify()


def test_overlay_storage(container):
    """The upper layer is what is captured and brought back, deleted files of the lower included."""
    lower = container.directory / "lower"
    container.rootfs.rename(lower)
    for name in ("etc", "victims"):
        (container.rootfs / name).mkdir(parents=True)
    container.configure(f"lxc.rootfs.path = overlay:{lower}:{container.rootfs}")
    victim = container.add_victim("ledger")
    container.start()
    victim.ready()
    container.attach("rm", "/etc/group")
    container.checkpoint("--image", f"{container.name}:old")
    whiteout = (container.rootfs / "etc/group").lstat()
    container.attach("sh", "-c", "echo back > /etc/group")
    runs_on(victim)
    container.stop()
    outcome = container.restart(f"{container.name}:old")
    assert "etc/group" in outcome.result["rootfs"]["paths"]
    assert (container.rootfs / "etc/group").lstat().st_rdev == whiteout.st_rdev == 0
    runs_on(victim)
    container.attach("touch", f"/status/{victim.name}.go")
    victim.wait_for("ok")


@pytest.mark.parametrize("step", ["commit", "start"])
def test_a_killed_rollback_loses_nothing(step, container, ledger):
    """The command alone; everything at once dies in test_power_cut.py."""
    container.checkpoint("--image", f"{container.name}:good")
    runs_on(ledger)
    ahead = number_of_next(ledger)
    outcome = container.try_cr(
        "rollback", container.name, f"{container.name}:good", LXC_CR_FAULT=f"python:{step}"
    )
    assert outcome.code == -signal.SIGKILL
    container.cr("ls")
    assert container.state == "RUNNING"
    assert number_of_next(ledger) >= ahead
    assert_nothing_kept(container)
    runs_on(ledger)
    ledger.verify()


def deep(container: Container, depth: int, text: str | None = None) -> str:
    """What is in a file below so many directories, which are made with @text; step by step."""
    fd = os.open(container.rootfs, os.O_PATH)
    for number in range(depth):
        name = f"{number:0200d}"
        if text is not None:
            os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = inner
    leaf = Path(f"/proc/self/fd/{fd}/leaf")
    if text is not None:
        leaf.write_text(text)
    found = leaf.read_text()
    os.close(fd)
    return found


def test_a_path_that_is_too_long_stops_nothing(container, ledger):
    """Up to 16 KiB it is one like any other, though no system call takes it."""
    text, top = "x" * 3000, container.rootfs / f"{0:0200d}"
    deep(container, 24, text)
    container.checkpoint("--stop", "--image", f"{container.name}:deep")
    run("rm", "-r", top)
    container.restart(f"{container.name}:deep")
    assert deep(container, 24) == text
    run("rm", "-r", top)
    container.checkpoint()
    deep(container, 82, text)
    for verb, *options in (("checkpoint",), ("rollback", "--no-checkpoint")):
        outcome = container.try_cr(verb, container.name, *options)
        assert outcome.result["class"] == "UnsupportedError"
        assert "/000" in outcome.result["message"]
        runs_on(ledger)
    run("rm", "-r", top)
    ledger.verify()
