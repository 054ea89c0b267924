# SPDX-License-Identifier: LGPL-2.1-or-later
"""Leases that are being broken: the time that is left to them is the user's choice."""

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import statistics
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .container import Container, wait_until
from .settings import LEASE_BREAK_TIME, kept
from .test_refusals import take_descriptor

LOCK = Path("/run/lxc-cr/lease-break-time.lock")
WHOLE = 40 * 10**9

GENERATIONS = 4

READ, WRITE = 0, 1  # F_RDLCK, F_WRLCK

HOST_ERROR = 7

# A single one may be late on a machine that does a lot besides: the time between the release and the
# next checkpoint comes to it. That is the same for all, and what a restart does to each is not.
TOLERANCE = 5 * 10**9
SPREAD = 20 * 10**6 + 10**9 // 100  # and a tick, where HZ is 100


@pytest.fixture(autouse=True)
def _whole():
    """Time enough for two checkpoints; put back."""
    with kept(LEASE_BREAK_TIME):
        LEASE_BREAK_TIME.write_text(str(WHOLE // 10**9))
        yield
        assert int(LEASE_BREAK_TIME.read_text()) == WHOLE // 10**9


@pytest.fixture
def broken(container: Container) -> Container:
    victim = container.add_victim("lease_break")
    container.start()
    victim.ready()
    return container


def leases(container: Container) -> dict[tuple[int, int], dict]:
    """The leases of the last checkpoint, by process and descriptor."""
    image = container.try_cr("inspect", container.name).result
    found = [record["fields"] for record in image["state"] if record["kind"] == "lease"]
    return {(lease["pid"], lease["fd"]): lease for lease in found}


def moment(container: Container) -> int:
    """When that was, ns."""
    return container.cr("inspect", container.name).result["manifest"]["clocks"]["monotonic"]


def left(lease: dict) -> int:
    return lease["unlock_remaining"] if lease["unlock"] else lease["downgrade_remaining"]


def assert_exact(differences: list[int]) -> None:
    """How much less than expected is left: some time has gone by, the same for all leases."""
    assert all(0 <= difference + SPREAD < TOLERANCE for difference in differences), differences
    middle = statistics.median(differences)
    off = [abs(difference - middle) for difference in differences]
    assert statistics.median(off) <= SPREAD, sorted(off)


def restart(container: Container, *policy: str) -> tuple[dict, dict]:
    """Leases before and right after a restart."""
    container.checkpoint("--stop")
    before = leases(container)
    assert container.try_cr("restart", container.name, *policy).code == 0
    container.checkpoint()
    return before, leases(container)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ([], lambda ns: ns),
        (["--lease", "remaining"], lambda ns: ns),
        (["--lease", "holder"], lambda _: WHOLE),
        (["--lease", "+100.5"], lambda ns: ns + 100_500_000_000),
    ],
    ids=["default", "remaining", "holder", "more"],
)
def test_time_that_is_left(broken, policy, expected):
    before, after = restart(broken, *policy)
    assert len(before) == 12
    assert before.keys() == after.keys()
    for place, lease in before.items():
        assert 0 < left(lease) <= WHOLE
        assert after[place]["type"] == lease["type"]
        assert after[place]["downgrade"] == lease["downgrade"]
        assert after[place]["unlock"] == lease["unlock"]
    assert_exact([expected(left(lease)) - left(after[place]) for place, lease in before.items()])


def test_four_generations(broken):
    """What runs and what is left come to the same sum, however often they were away."""
    broken.checkpoint("--stop")
    first, ran = leases(broken), 0
    for _ in range(GENERATIONS):
        released = broken.restart().result["released"]
        broken.checkpoint("--stop")
        ran += moment(broken) - released
    last = leases(broken)
    assert first.keys() == last.keys()
    errors = [left(lease) - ran - left(last[place]) for place, lease in first.items()]
    assert abs(statistics.median(errors)) <= GENERATIONS * SPREAD, errors


def test_nothing_left_for_the_holder(broken):
    truncated = broken.rootfs / "status" / "lease_break.o_trunc"
    broken.checkpoint("--stop")
    assert truncated.stat().st_size > 0
    broken.restart("--lease", "breaker")
    wait_until(lambda: truncated.stat().st_size == 0, what="the breaker")
    # What the kernel has taken down by force nobody could take so, but a restart gives it back.
    before, after = restart(broken)
    down = [lease for lease in before.values() if not lease["downgrade"] and not lease["unlock"]]
    # Two of them on what is open for writing.
    assert [lease["type"] for lease in down] == [READ, READ, READ]
    assert before.keys() == after.keys()
    assert all(after[place]["type"] == before[place]["type"] for place in before)


def test_a_policy_that_is_none(broken):
    outcome = broken.try_cr("restart", broken.name, "--lease", "nobody")
    assert outcome.code == 2
    assert "remaining, holder, breaker or +SECONDS" in outcome.text


def test_time_of_one_lease(broken):
    """By its object and by its path; what has no lease is an error before anything starts."""
    broken.checkpoint("--stop")
    before = leases(broken)
    chosen, other = sorted(before)[:2]
    objects = broken.cr("inspect", broken.name).result["objects"]
    path = next(item["path"] for item in objects if item["id"] == before[other]["object"])
    for wrong in ("/etc/passwd=holder", f"{before[chosen]['object']}=nobody"):
        outcome = broken.try_cr("restart", broken.name, "--lease-of", wrong)
        assert outcome.code == 2
        assert broken.state == "STOPPED"
    broken.restart(
        *("--lease-of", f"{before[chosen]['object']}=+100"),
        *("--lease-of", f"{path}=+200"),
    )
    broken.checkpoint()
    after = leases(broken)
    more = {chosen: 100 * 10**9, other: 200 * 10**9}
    assert_exact([left(lease) + more.get(at, 0) - left(after[at]) for at, lease in before.items()])


# Places of the test hook: what the engine then does without.
MEMBERS, ALL = "without-lock-members", "without-lock-members+tracefs"


@contextlib.contextmanager
def tracefs(path: Path) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tracefs", "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_times_by_a_trace(broken, tmp_path):
    """A kernel that does not describe its leases tells what it traces: types and times are the same."""
    # as under kernel lockdown, which forbids the usual way to read memory
    broken.cr("checkpoint", broken.name, LXC_CR_FAULT="without-probes")
    locked = leases(broken)
    broken.checkpoint()
    known, then = leases(broken), moment(broken)
    assert {place: lease["type"] for place, lease in locked.items()} == {
        place: lease["type"] for place, lease in known.items()
    }
    waiting = [len(lease.get("waiters", ())) for lease in known.values()]
    assert sorted(waiting) == [0, *[1] * 9, 2, 2]
    outcome = broken.cr("checkpoint", broken.name, "--stop", LXC_CR_FAULT=MEMBERS)
    assert "read from /proc" in outcome.text
    traced, passed = leases(broken), moment(broken) - then
    assert known.keys() == traced.keys()
    for place, lease in known.items():
        same = ("type", "downgrade", "unlock", "mapped")
        assert [traced[place].get(name) for name in same] == [lease.get(name) for name in same]
        assert not traced[place].get("guessed")
    assert_exact([left(lease) - left(traced[place]) - passed for place, lease in known.items()])
    with tracefs(tmp_path / "tracefs") as path:
        assert not list(path.glob("instances/lxc-cr-*"))
    assert broken.try_cr("restart", broken.name).code == 0


def test_times_that_nobody_tells(broken):
    """Then the holder is favoured, which is said at the checkpoint and stands in the image."""
    outcome = broken.cr("checkpoint", broken.name, "--stop", LXC_CR_FAULT=ALL)
    assert "the whole lease-break-time is taken, 40 s" in outcome.text
    guessed = leases(broken)
    assert len(guessed) == 12
    assert all(lease["guessed"] and left(lease) == WHOLE for lease in guessed.values())
    shown = subprocess.run(
        [argument for argument in broken.command("inspect", broken.name) if argument != "--json"],
        env=broken.laboratory.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.count("nobody told") == len(guessed)
    assert broken.try_cr("restart", broken.name).code == 0


@pytest.fixture
def soon():
    """For a victim that waits for the end of a lease."""
    LEASE_BREAK_TIME.write_text("5")
    yield
    LEASE_BREAK_TIME.write_text(str(WHOLE // 10**9))


@pytest.mark.usefixtures("soon")
def test_locks_as_proc_shows_them(container):
    """Locks and leases at rest need nothing else; a trace tells what is left of those that are not."""
    victims = [container.add_victim(name) for name in ("lock", "lease", "lease_forced")]
    container.start()
    for victim in victims:
        victim.ready()
    container.cr("checkpoint", container.name, LXC_CR_FAULT=ALL)
    # One is alone with its file, the other has let a reader in.
    assert sorted(
        lease["type"] for lease in leases(container).values() if lease.get("guessed")
    ) == [
        READ,
        WRITE,
    ]
    container.cr("checkpoint", container.name, "--stop", LXC_CR_FAULT=MEMBERS)
    container.restart()
    for victim in victims:
        victim.verify()


def test_an_order_that_is_not_shown(container):
    victim = container.add_victim("lock_waiter")
    container.start()
    victim.ready()
    outcome = container.try_cr("checkpoint", container.name, LXC_CR_FAULT=MEMBERS)
    assert outcome.code == 4
    assert "does not tell in which order" in outcome.text
    victim.verify()


DELEGATION = 1024 + 16  # F_SETDELEG, since Linux 6.19


def take_delegation(fd: int) -> int:
    """0, or what the kernel says."""
    try:
        fcntl.fcntl(fd, DELEGATION, struct.pack("=IHH", 0, fcntl.F_RDLCK, 0))
    except OSError as error:
        return error.errno or -1
    return 0


def test_a_delegation(container):
    """Refused where the kernel lets somebody take one; elsewhere it says that there is no such thing."""
    victim = container.add_victim("lock")
    container.start()
    victim.ready()
    file = (container.rootfs / "status" / "lock.passed").open()
    with file:
        taken = take_delegation(file.fileno())
        outcome = container.try_cr("check", container.name)
        if taken == 0:
            assert outcome.code == 4
            assert "delegation" in outcome.text
        else:
            assert taken == errno.EINVAL
            assert outcome.code == 0
    victim.verify()


def test_a_leased_file_is_read_without_a_break(container):
    """What its holder writes between two checkpoints is in the second one, and nobody is signalled."""
    victim = container.add_victim("lease")
    container.start()
    victim.ready()
    path = container.rootfs / "status" / "lease.write"
    container.checkpoint()
    pid = next(pid for pid, comm in container.processes.items() if comm == "lease")
    held = next(
        fd for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.stat().st_ino == path.stat().st_ino
    )
    ours = take_descriptor(pid, int(held.name))
    os.pwrite(ours, b"between", 0)
    os.close(ours)
    container.checkpoint("--stop")
    path.write_text("afterwards")
    container.restart()
    ours = take_descriptor(
        next(p for p, c in container.processes.items() if c == "lease"), int(held.name)
    )
    assert os.pread(ours, 100, 0) == b"between"
    os.close(ours)
    victim.verify()


@pytest.mark.parametrize("step", ["restart-files", "restart-states", "restart-release"])
def test_a_restart_that_is_killed(step, broken):
    """The sysctl is what it was: the fixture looks."""
    broken.checkpoint("--stop")
    assert broken.try_cr("restart", broken.name, LXC_CR_FAULT=step).code != 0
    assert broken.state == "STOPPED"


@contextlib.contextmanager
def watched(path: Path) -> Iterator[set[int]]:
    """The numbers that are in a file meanwhile, for 5 ms or longer."""
    seen: set[int] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.005):
            seen.add(int(path.read_text()))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()


def test_a_restart_that_is_killed_between_the_two_writes(broken):
    """Another process puts the sysctl back."""
    broken.checkpoint("--stop")
    outcome = broken.try_cr("restart", broken.name, LXC_CR_FAULT="restart-lease")
    assert outcome.code != 0
    wait_until(
        lambda: int(LEASE_BREAK_TIME.read_text()) == WHOLE // 10**9, what="the guard", timeout=60
    )
    assert broken.state == "STOPPED"
    # The step is where it should be: there the number is another one.
    with watched(LEASE_BREAK_TIME) as seen:
        assert broken.try_cr("restart", broken.name, LXC_CR_FAULT="restart-lease~50").code == 0
    assert seen > {WHOLE // 10**9}


F_SETLEASE = 1024


@contextlib.contextmanager
def leased(path: Path) -> Iterator[None]:
    """Somebody outside has a read lease, and does not mind its signal."""
    path.write_text("leased")
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    file = path.open()
    try:
        fcntl.fcntl(file, F_SETLEASE, fcntl.F_RDLCK)
        yield
    finally:
        file.close()
        signal.signal(signal.SIGIO, before)


def break_lease(path: Path) -> None:
    with pytest.raises(BlockingIOError):
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)


@pytest.fixture
def outside() -> Iterator[Path]:
    """On a file system that really has leases, whatever /tmp is."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as path:
        yield Path(path)


def test_a_lease_outside_that_got_our_time(broken, outside):
    """It is named; one that was broken before is not."""
    hit, before = outside / "hit", outside / "before"
    broken.checkpoint("--stop")
    with leased(hit), leased(before):
        break_lease(before)
        with (
            broken.spawn("restart", broken.name, LXC_CR_FAULT="restart-lease~20") as restart,
            restart.stdout,
        ):
            wait_until(lambda: int(LEASE_BREAK_TIME.read_text()) != WHOLE // 10**9, what="ours")
            break_lease(hit)
            text = restart.stdout.read()
            assert restart.wait() == 0, text
    warnings = [
        line for line in text.splitlines() if "lease-break-time was the container's" in line
    ]
    assert [str(path) in "".join(warnings) for path in (hit, before)] == [True, False], text
    assert f"process {os.getpid()} of the host" in warnings[0]


def test_the_lock_is_of_root_alone_and_not_waited_for_for_ever(broken):
    broken.checkpoint("--stop")
    LOCK.parent.mkdir(mode=0o700, exist_ok=True)
    with LOCK.open("w") as squatter:
        fcntl.flock(squatter, fcntl.LOCK_EX)
        outcome = broken.try_cr("restart", broken.name)
        assert outcome.code == HOST_ERROR
        assert str(LOCK) in outcome.text
        assert "fuser" in outcome.text
    assert LOCK.parent.stat().st_mode & 0o077 == 0
    assert broken.state == "STOPPED"
    broken.restart()


def forbid_bpf() -> None:
    """From now on bpf(2) fails here with EPERM, as where lockdown or a container forbids it."""
    load_number, same, errno_1, allow = 0x20, 0x15, 0x50001, 0x7FFF0000
    bpf = 321
    code = [(load_number, 0, 0, 0), (same, 0, 1, bpf), (6, 0, 0, errno_1), (6, 0, 0, allow)]
    filter_ = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    program = struct.pack("@HP", len(code), ctypes.addressof(filter_))
    assert ctypes.CDLL(None).prctl(22, 2, program, 0, 0) == 0  # PR_SET_SECCOMP, a filter


FORBIDDEN, HIDDEN = "no bpf(2)", "no BTF"


def without(missing: str, command: list[str], environment: dict[str, str]):
    """Run a command where the kernel does not let it look."""
    hide = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    hidden = ["unshare", "--mount", "sh", "-c", hide, "sh"] if missing == HIDDEN else []
    return subprocess.run(
        [*hidden, *command],
        env=environment,
        preexec_fn=forbid_bpf if missing == FORBIDDEN else None,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_bpf(broken):
    """Nothing is guessed where the kernel does not let us look: refused, with a remedy, untouched."""
    environment = broken.laboratory.environment
    for missing, remedy in ((FORBIDDEN, "CAP_BPF"), (HIDDEN, "CONFIG_DEBUG_INFO_BTF=y")):
        for command in ("check", "checkpoint"):
            done = without(missing, broken.command(command, broken.name), environment)
            assert done.returncode == HOST_ERROR, done.stdout + done.stderr
            assert remedy in done.stdout
            assert broken.state == "RUNNING"
            assert broken.images == []
