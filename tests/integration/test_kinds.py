# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every kind, three ways: its victim must not notice that it was checkpointed."""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator

import pytest

from lxc_cr_plugin import native

from .conftest import Shared, asked_for, containers_of
from .container import VICTIMS, Container, Victim
from .settings import LEASE_BREAK_TIME, kept

pytestmark = pytest.mark.usefixtures("huge_pages")

# A kind and its victim have one name. Where a kind has no state of its own to look at, another
# kind's victim exercises it.
VICTIM_OF_KIND = {"terminal": "tty", "outside_lock": "lock"}

# Victims that need a terminal of their own.
TTY = {"tty": "tty1", "tty_input": "tty2"}

# Seconds that the kernel gives the holder of a lease, while a victim has leases broken: enough for
# two restarts, not too many to wait for. The other one waits for their end before it is ready.
LEASE_SECONDS = {"lease_break": 8, "lease_forced": 3}

# Victims with threads that have descriptors of their own, or outlive the first one.
SINGLE_THREADS = {"dead_leader", "file_owner", "share", "thread_tables"}

# Long enough to tell a clock that stood from one that went on.
AWAY_SECONDS = 0.8

# Programs that other tests run: with arguments, or on a host that swaps pages, merges
# them or makes huge ones.
NO_KIND = {
    "endless", "handler_due", "huge_pages", "logon_key", "merged", "refused", "refused_process",
    "shapes", "suid_dumpable", "swapped", "wall",
}  # fmt: skip

ALL = sorted(file.stem for file in VICTIMS.glob("*.c") if file.stem not in NO_KIND)


def victim_of(kind: str) -> str:
    return VICTIM_OF_KIND.get(kind, kind)


def add(container: Container, name: str) -> Victim:
    """Have the container run this victim, with the surroundings that it needs as long as it exists."""
    if name == "seccomp":
        container.load_seccomp("sched_rr_get_interval errno 42")
    if name in LEASE_SECONDS:
        container.scope.enter_context(kept(LEASE_BREAK_TIME))
        LEASE_BREAK_TIME.write_text(str(LEASE_SECONDS[name]))
    return container.add_victim(name, tty=TTY.get(name, ""))


def shows_single_threads() -> bool:
    """Whether this kernel tells of one thread what it tells of a process: PIDFD_THREAD."""
    try:
        os.close(os.pidfd_open(threading.get_native_id(), os.O_EXCL))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def is_hidden(name: str) -> bool:
    return name in SINGLE_THREADS and not shows_single_threads()


def stop_and_restart(container: Container, away: float = AWAY_SECONDS) -> None:
    container.checkpoint("--stop")
    assert container.state == "STOPPED"
    time.sleep(away)
    container.restart()
    assert container.state == "RUNNING"


def restart_twice(container: Container, away: float = AWAY_SECONDS) -> None:
    stop_and_restart(container, away)
    stop_and_restart(container, away)


def checkpoint(container: Container, _away: float) -> None:
    container.checkpoint()


WAYS = {"checkpoint": checkpoint, "restart": stop_and_restart, "twice": restart_twice}

# A filter or limits of the whole container's would be in force for the others too.
ALONE = {"ipc_namespace", "seccomp"}

# These measure time, which the others would take from them.
TIMED = {
    "blocked", "itimer", "lease_break", "posix_timer", "restart_block", "socket_wait",
    "timer_edge", "timerfd",
}  # fmt: skip

# Of these, those that mostly sleep: they leave each other the time.
SLEEPERS = {"blocked", "itimer", "posix_timer", "restart_block", "timerfd"}

# For all others it does not matter how long they were away.
CLOCKED = TIMED | {"lease_forced", "stopped"}

# Those that keep a processor busy, or the machine.
HEAVY = {"crowd", "fork_bomb", "high_pid", "many_mappings", "rseq"}

# How many of the others share a container: it saves most of the time, and who is asked for by
# name (-k) has a container without those who were not.
COMPANY_SIZE = 8


def companies() -> list[list[str]]:
    """Who shares a container with whom."""
    single = sorted((ALONE | TIMED | HEAVY | set(LEASE_SECONDS)) - SLEEPERS)
    others = sorted(set(ALL) - set(single) - SLEEPERS)
    count = -(-len(others) // COMPANY_SIZE)
    parts = (others[part::count] for part in range(count))
    return [*([name] for name in single), sorted(SLEEPERS), *parts]


@pytest.fixture(scope="class")
def companies_of_tests(request, laboratory, container_names) -> Iterator[Shared]:
    """Companies, one at a time; the victims of all that are asked for are compiled before."""
    keys = [(way, number) for way in WAYS for number, _ in enumerate(companies())]
    laboratory.compile_victims({name for key in keys for name in asked_for(request, key)})

    @contextlib.contextmanager
    def company(key: tuple[str, int]) -> Iterator[dict[str, Victim]]:
        way, _ = key
        with containers_of(laboratory, container_names) as make:
            container = make()
            names = [name for name in asked_for(request, key) if not is_hidden(name)]
            victims = {name: add(container, name) for name in names}
            container.start()
            for victim in victims.values():
                victim.ready()
            WAYS[way](container, AWAY_SECONDS if CLOCKED & set(names) else 0)
            assert container.state == "RUNNING"
            for victim in victims.values():
                victim.go()
            yield victims

    with Shared(company) as shared:
        yield shared


@pytest.fixture
def company(request, companies_of_tests) -> dict[str, Victim]:
    """The victims of a company that are asked for, after what a way of WAYS did to their container."""
    return companies_of_tests.of(request.param)


@pytest.mark.parametrize(
    ("company", "name"),
    [
        pytest.param(
            (way, number), name, id=f"{way}-{name}", marks=pytest.mark.support(name, "works")
        )
        for way in WAYS
        for number, names in enumerate(companies())
        for name in names
    ],
    indirect=["company"],
)
class TestVictim:
    def test_runs_on_after(self, company, name):
        if name not in company:
            pytest.skip(
                "this kernel gives no pidfd of a thread, and a checkpoint refuses such ones"
            )
        company[name].verify()


def test_queues_are_looked_at_any_number_of_times(container):
    """Looking leaves a mark on an empty message, which must not matter the next time."""
    victims = [container.add_victim(name) for name in ("unix_socket", "in_flight")]
    container.start()
    for victim in victims:
        victim.ready()
    for _ in range(3):
        container.checkpoint()
    stop_and_restart(container)
    container.checkpoint()
    container.checkpoint()
    for victim in victims:
        victim.verify()


def test_every_kind_has_a_victim():
    assert [kind for kind in native.kinds() if victim_of(kind) not in ALL] == []


@pytest.mark.parametrize(
    "names",
    [sorted(set(ALL) - ALONE - TIMED), sorted(TIMED & set(ALL)), sorted(ALONE)],
    ids=["all", "timed", "alone"],
)
def test_victims_pass_when_nothing_happens(names, container):
    """The oracle itself: all victims at once, no checkpoint."""
    victims = [add(container, name) for name in names]
    container.start()
    for victim in victims:
        victim.ready()
    for victim in victims:
        victim.go()
    for victim in victims:
        victim.verify()


# Where the C library has a part in it: threads, signals, timers, futexes, mappings.
OF_LIBC = [
    "dead_leader", "futex", "mapping", "nested_handlers", "posix_timer", "sigaction",
    "sigaltstack", "signals", "syscall_dispatch", "thread",
]  # fmt: skip


@pytest.mark.support("programs_of_musl", "works")
def test_programs_of_another_libc(container, laboratory):
    """One that keeps its threads in its own way, and registers no restartable sequences."""
    victims = [
        container.add_program_as_victim(laboratory.compile(VICTIMS / f"{name}.c", libc="musl"))
        for name in OF_LIBC
        if not is_hidden(name)
    ]
    container.start()
    for victim in victims:
        victim.ready()
    container.checkpoint()
    restart_twice(container)
    for victim in victims:
        victim.verify()


def test_open_files_are_recorded_as_stat_shows_them(container):
    """Most are read with the descriptors, out of their inodes, and not by stat(2)."""
    victim = container.add_victim("regular")
    container.start()
    victim.ready()
    container.checkpoint()
    records = container.cr("inspect", container.name).result["state"]
    files = [r["fields"]["file"] for r in records if r["kind"] == "regular"]
    found = 0
    for file in files:
        path = container.rootfs / file["path"].lstrip("/")
        if not path.is_file():  # a name that is no text, or that only the container has
            continue
        found += 1
        seen = path.stat()
        assert (file["mode"], file["uid"], file["gid"]) == (seen.st_mode, seen.st_uid, seen.st_gid)
        assert (file["device"], file["inode"]) == (seen.st_dev, seen.st_ino)
        assert (file["size"], file["mtime"]) == (seen.st_size, seen.st_mtime_ns)
    assert found > 5
