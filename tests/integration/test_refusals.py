# SPDX-License-Identifier: LGPL-2.1-or-later
"""What cannot be checkpointed yet is refused by name, and the container does not notice."""

import ctypes
import fcntl
import os
import re
from pathlib import Path

import lxc
import pytest

from .container import Container, Outcome, Victim, wait_until

UNSUPPORTED = 4
ISOLATION = 5

FLOCK = 2  # in images

# What refused.c makes, and the words by which the refusal must name it.
OBJECTS = {
    "named_socket": "unix socket with a name, '@victim'",
    "tcp_socket": "socket",
    "inotify": "inotify",
    "io_uring": "io_uring",
    "secretmem": "secret memory",
    "secretmem_mapped": "secret memory",
    "userfaultfd": "userfaultfd",
    "unmapped_vdso": "vdso",
    "unmapped_vvar": "vvar",
    "userfaultfd_mapping": "userfaultfd",
    "pty": r"\bpty\b|pseudo|/dev/ptmx|/dev/pts",
    "vfork": "vfork",
    "traced": r"traced by process \d+ of the host \(refused\)",
    "namespace": r"Process \d+ \(refused\) is in a uts namespace",
    "clocks_for_children": "time_for_children namespace",
    "namespace_of_thread": r"Thread \d+ of process \d+ \(refused\) is in a uts namespace",
    "posix_message_queue": "message queue",
    "unlinked_posix_queue": "no file with contents",
    "shared_numa_policy": "NUMA policy of its own",
    "mount_point": "mount",
    "hidden_directory": "leads to",
}


# Nobody holds these: they are the container's.
OF_NOBODY = {"mount_point", "posix_message_queue"}


def holder_of(name: str) -> str | None:
    return None if name in OF_NOBODY else "refused"


def assert_refused(
    outcome: Outcome, *, words: str, process: str | None = "refused", code: int = UNSUPPORTED
) -> None:
    """The exit code, the process and the object are there, and something to do about it."""
    assert outcome.code == code, outcome.text
    error = outcome.result
    assert error["event"] == "error"
    # Hints and names of steps hold many words.
    told = [
        obstacle
        for obstacle in error.get("obstacles") or [error]
        if re.search(words, f"{obstacle.get('object')}: {obstacle['message']}", re.IGNORECASE)
    ]
    assert told, outcome.text
    if process:
        assert any(process in (e.get("comm") or e["message"]) for e in told), outcome.text
    assert all(e.get("hint") for e in told), f"nothing to do about it: {outcome.text}"


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.support(n, "refuses")) for n in OBJECTS],
)
class TestRefusal:
    @pytest.fixture
    def victim(self, name, container) -> Victim:
        victim = container.add_victim("refused", name)
        container.start()
        wait_until(lambda: victim.lines, what=f"{name}: a first line")
        if "absent" in victim.lines:
            pytest.skip(f"this kernel has no {name}")
        victim.ready()
        return victim

    def test_is_refused_and_runs_on(self, name, container, victim):
        """Found without a stop, in one, and in one that would end it."""
        for command, *options in (["check"], ["checkpoint"], ["checkpoint", "--stop"]):
            assert_refused(
                container.try_cr(command, container.name, *options),
                words=OBJECTS[name],
                process=holder_of(name),
            )
            assert container.state == "RUNNING"
        assert container.images == []
        victim.verify()


@pytest.mark.support("memory_behind_zombie", "refuses")
def test_memory_behind_a_zombie(container):
    """Who has ended is looked at under the stop alone: `check` cannot know."""
    victim = container.add_victim("refused", "memory_behind_zombie")
    container.start()
    victim.ready()
    assert_refused(
        container.try_cr("checkpoint", container.name), words="shares memory", process="refused"
    )
    victim.verify()


def pid_of(container: Container, name: str) -> int:
    return next(pid for pid, comm in container.processes.items() if comm == name)


@pytest.mark.support("process_in_other_cgroup", "refuses")
def test_process_in_another_cgroup(container):
    victim = container.add_victim("files")
    container.start()
    victim.ready()
    pid = pid_of(container, "files")
    for root in ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        procs = Path(root) / "cgroup.procs"
        if procs.exists():
            procs.write_text(str(pid))
    outcome = container.try_cr("checkpoint", container.name)
    assert outcome.code in (UNSUPPORTED, ISOLATION)
    assert_refused(outcome, words="cgroup", process="files", code=outcome.code)
    victim.verify()


def test_several_obstacles_are_told_at_once(container):
    victims = [
        container.add_victim("refused", name, status=name) for name in ("inotify", "io_uring")
    ]
    container.start()
    for victim in victims:
        victim.ready()
    outcome = container.try_cr("check", container.name)
    assert outcome.code == UNSUPPORTED
    assert "inotify" in outcome.text
    assert "io_uring" in outcome.text
    for victim in victims:
        victim.verify()


# What refused_process.c has.
PROPERTIES = {
    "aio": "asynchronous input and output",
    "segments": "segments of its own",
    "landlock": "restricted by Landlock",
    "program_of_32_bits": "program for 32 bits",
}


@pytest.mark.support("aio", "refuses")
@pytest.mark.support("segments", "refuses")
@pytest.mark.support("landlock", "refuses")
@pytest.mark.support("program_of_32_bits", "refuses")
def test_rare_properties_of_a_process(container):
    victims = [container.add_victim("refused_process", name, status=name) for name in PROPERTIES]
    container.start()
    for victim in victims:
        wait_until(lambda victim=victim: victim.lines, what=f"{victim.name}: a first line")
    present = [victim for victim in victims if "absent" not in victim.lines]
    for victim in present:
        victim.ready()
    for command in (["check"], ["checkpoint", "--stop"]):
        outcome = container.try_cr(command[0], container.name, *command[1:])
        for victim in present:
            assert_refused(outcome, words=PROPERTIES[victim.name], process="refused_process")
    assert container.images == []
    for victim in present:
        victim.verify()


@pytest.mark.support("large_deleted_file", "refuses")
def test_deleted_file_that_is_larger_than_allowed(container, tmp_path):
    victim = container.add_victim("refused", "large_deleted_file")
    container.start()
    victim.ready()
    config = tmp_path / "small.toml"
    text = container.laboratory.config.read_text()
    config.write_text(f"{text}deleted_file_limit = 1\n")
    outcome = container.try_cr("checkpoint", container.name, "--config", config)
    assert_refused(outcome, words="deleted.* more than the 1 MiB")
    container.checkpoint()
    victim.verify()


@pytest.mark.support("network_socket_in_flight", "refuses")
def test_network_socket_in_flight(container):
    """Only a look into the socket shows it, which nobody takes while the program runs."""
    victim = container.add_victim("refused", "in_flight")
    container.start()
    victim.ready()
    for more in ([], ["--stop"]):
        outcome = container.try_cr("checkpoint", container.name, *more)
        assert_refused(outcome, words="in flight")
        assert container.state == "RUNNING"
        assert container.images == []
    victim.verify()


@pytest.mark.support("pipe_held_outside", "refuses")
def test_pipe_that_a_process_outside_holds(container):
    victim = container.add_victim("pipe")
    container.start()
    victim.ready()
    descriptors = Path(f"/proc/{pid_of(container, 'pipe')}/fd")
    end = next(fd for fd in descriptors.iterdir() if str(fd.readlink()).startswith("pipe:"))
    ours = os.open(end, os.O_RDONLY | os.O_NONBLOCK)
    try:
        outcome = container.try_cr("checkpoint", container.name)
        assert outcome.code in (UNSUPPORTED, ISOLATION)
        assert_refused(outcome, words="outside", process="pipe", code=outcome.code)
    finally:
        os.close(ours)
    container.checkpoint()
    victim.verify()


def take_descriptor(pid: int, number: int) -> int:
    """A descriptor of ours for what another process has open: pidfd_getfd(2)."""
    pidfd = os.pidfd_open(pid)
    try:
        got = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0)
    finally:
        os.close(pidfd)
    assert got >= 0, os.strerror(ctypes.get_errno())
    return got


@pytest.mark.support("socket_held_outside", "refuses")
def test_socket_that_a_process_outside_holds(container):
    victim = container.add_victim("unix_socket")
    container.start()
    victim.ready()
    pid = pid_of(container, "unix_socket")
    sockets = Path(f"/proc/{pid}/fd").iterdir()
    number = next(int(fd.name) for fd in sockets if str(fd.readlink()).startswith("socket:"))
    ours = take_descriptor(pid, number)
    try:
        outcome = container.try_cr("checkpoint", container.name)
        assert_refused(outcome, words="outside", process="unix_socket", code=outcome.code)
        assert container.state == "RUNNING"
    finally:
        os.close(ours)
    container.checkpoint()
    victim.verify()


@pytest.mark.support("full_terminal", "refuses")
def test_more_typed_than_a_terminal_holds(container, laboratory):
    victim = container.add_victim("files", tty="tty1")
    container.start()
    victim.ready()
    terminal = lxc.Container(container.name, laboratory.lxcpath).console_getfd(1)
    try:
        os.write(terminal, b"line\n" * 1000)
        outcome = container.try_cr("checkpoint", container.name)
        assert_refused(outcome, words="more has been typed", process="files")
        assert container.state == "RUNNING"
    finally:
        os.close(terminal)
    victim.verify()


@pytest.mark.support("lock_held_outside", "refuses")
def test_file_that_a_process_outside_has_locked(container):
    victim = container.add_victim("lock")
    container.start()
    victim.ready()
    with (container.rootfs / "status" / "lock.both").open() as ours:
        fcntl.flock(ours, fcntl.LOCK_SH | fcntl.LOCK_NB)
        outcome = container.try_cr("checkpoint", container.name)
        assert_refused(outcome, words="outside", process="lock", code=ISOLATION)
        assert f"process {os.getpid()} " in outcome.text
        # Who does not mind says so, and the image tells.
        ignoring = ("--outside-locks", "ignore")
        assert container.try_cr("check", container.name, *ignoring).code == 0
        container.checkpoint("--stop", *ignoring)
        records = container.cr("inspect", container.name).result["state"]
        noted = [r["fields"] for r in records if r["kind"] == "outside_lock"]
        assert [(note["host_pid"], note["sort"]) for note in noted] == [(os.getpid(), FLOCK)]
        container.restart()
    container.checkpoint()
    victim.verify()


def test_lock_that_somebody_took_meanwhile(container):
    """A restart that cannot have a lock fails and leaves the image; later it works."""
    victim = container.add_victim("lock")
    container.start()
    victim.ready()
    container.checkpoint("--stop")
    with (container.rootfs / "status" / "lock.whole").open("r+") as ours:
        fcntl.lockf(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
        outcome = container.try_cr("restart", container.name)
        assert outcome.code != 0
        assert "file lock" in outcome.text
        assert "/proc/locks" in outcome.text
        assert container.state == "STOPPED"
    container.restart()
    victim.verify()


def test_leased_file_that_somebody_opened_meanwhile(container):
    victim = container.add_victim("lease")
    container.start()
    victim.ready()
    container.checkpoint("--stop")
    with (container.rootfs / "status" / "lease.write").open():
        outcome = container.try_cr("restart", container.name)
        assert outcome.code != 0
        assert "take a lease" in outcome.text
        assert container.state == "STOPPED"
    container.restart()
    victim.verify()


def test_ipc_namespace_of_the_host_at_the_restart(container):
    """The configuration has changed meanwhile: nothing may be made in the host's namespace."""
    limit = Path("/proc/sys/kernel/msgmnb")
    before = limit.read_text()
    victim = container.add_victim("files")
    container.start()
    victim.ready()
    container.checkpoint("--stop")
    config = container.directory / "config"
    original = config.read_text()
    container.configure("lxc.namespace.keep = ipc user")
    outcome = container.try_cr("restart", container.name)
    assert outcome.code != 0
    assert "shares its ipc namespace with the host" in outcome.text
    assert outcome.result["hint"]
    assert container.state == "STOPPED"
    assert limit.read_text() == before
    config.write_text(original)
    container.restart()
    victim.verify()


@pytest.mark.support("logon_key", "refuses")
def test_a_key_for_the_kernel_alone(container):
    victim = container.add_victim("logon_key")
    container.start()
    victim.ready()
    for command in "check", "checkpoint":
        assert_refused(
            container.try_cr(command, container.name),
            words=r"Key \d+ \(logon: victim:secret\) may be read by nobody",
            process="logon_key",
        )
    victim.verify()
