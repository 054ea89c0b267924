# SPDX-License-Identifier: LGPL-2.1-or-later
"""The time that a container was away: what its programs see of it, and what they do not."""

import contextlib
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

import cbor2
import psutil
import pytest

from .container import Container, wait_until
from .test_damage import Lab, reseal

CHECKPOINT_FAILED = 9

SECOND = 10**9
AWAY_SECONDS = 2.5
DAY = 86400

# Of a machine that does a lot besides, seconds.
TOLERANCE = 3.0

# How long an engine waits at a step; it is found there by its system call. Seconds.
PAUSE = 3
CLOCK_NANOSLEEP = "230"
TIMESPEC = struct.Struct("qq")


def uptime(container: Container) -> float:
    """CLOCK_BOOTTIME as a process of the container sees it, who came in through LXC."""
    return float(container.attach("cat", "/proc/uptime").split()[0])


def host_uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def time_namespace(pid: int | str) -> str:
    return str(Path(f"/proc/{pid}/ns/time").readlink())


def stop(container: Container, *, away: float = 0) -> float:
    """Checkpoint and end it; returns what its clock showed just before."""
    before = uptime(container)
    container.checkpoint("--stop")
    time.sleep(away)
    return before


def test_the_clocks_go_on_where_they_were(container):
    """For those who enter too, also in a restart of a restart; a reboot begins with the host's."""
    container.start()
    for _ in range(2):
        before = stop(container, away=AWAY_SECONDS)
        container.restart()
        assert before <= uptime(container) < before + TOLERANCE
        assert uptime(container) < host_uptime() - AWAY_SECONDS
        inside = container.attach("readlink", "/proc/self/ns/time").strip()
        assert inside == time_namespace(container.init_pid) != time_namespace("self")
        container.cr("check", container.name)
    init = container.init_pid
    container.lxc("stop", "-r")
    wait_until(lambda: container.state == "RUNNING" and container.init_pid != init, what="a reboot")
    assert abs(uptime(container) - host_uptime()) < TOLERANCE


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("lxc.cap.drop = sys_admin", "restart_block"),
        ("lxc.time.offset.boot = 1000000s", "restart_block"),
        ("lxc.environment = MEMORY=shared", "sharing"),
    ],
    ids=["init-may-not-enter", "offset-of-its-own", "processes-share-memory"],
)
def test_containers_of_every_sort(line, name, container):
    """Where nobody can enter a time namespace by himself, init does by its execve."""
    container.configure(line)
    victim = container.add_victim(name)
    container.start()
    victim.ready()
    before = stop(container, away=AWAY_SECONDS)
    container.restart()
    assert before <= uptime(container) < before + TOLERANCE
    victim.verify()


@pytest.mark.parametrize("how", ["option", "configuration"])
def test_a_program_that_sees_all_time(how, container):
    victim = container.add_victim("wall")
    container.start()
    victim.ready()
    stop(container, away=AWAY_SECONDS)
    if how == "option":
        container.restart("--time", "wall")
    else:
        (container.directory / "lxc-cr.toml").write_text('time = "wall"\n')
        container.restart()
    victim.verify()
    assert abs(uptime(container) - host_uptime()) < TOLERANCE


def test_no_policy_of_that_name(container):
    outcome = container.try_cr("restart", container.name, "--time", "yesterday")
    assert outcome.code == 2
    assert "continue" in outcome.text


def rewrite_clocks(lab: Lab, change: Callable[[dict], object]) -> None:
    """Change the clocks in the image's header, and seal it again."""
    path = lab.image / "state.cbor"
    items = []
    with path.open("rb") as stream:
        while stream.peek(1):
            items.append(cbor2.load(stream))
    change(items[0]["clocks"])
    path.write_bytes(b"".join(cbor2.dumps(item) for item in items))
    reseal(lab, lambda manifest: None)


class TestAnotherBoot:
    """As if the host had been up for long at the checkpoint, and been rebooted since."""

    @pytest.fixture
    def before(self, container, tmp_path) -> float:
        victim = container.add_victim("pipe")
        container.start()
        victim.ready()
        before = stop(container, away=AWAY_SECONDS)

        def move(clocks: dict) -> None:
            clocks["boot"] = "another"
            clocks["monotonic"] += 40 * DAY * SECOND
            clocks["boottime"] += 40 * DAY * SECOND

        rewrite_clocks(Lab(container, victim, tmp_path), move)
        return before + 40 * DAY

    def test_the_clocks_go_on(self, before, container):
        container.restart()
        assert before <= uptime(container) < before + TOLERANCE

    def test_all_time_is_seen(self, before, container):
        """By the wall clock: there is no other that both boots have."""
        container.restart("--time", "wall")
        assert before + AWAY_SECONDS <= uptime(container) < before + AWAY_SECONDS + TOLERANCE


def test_clocks_that_no_kernel_has(container, tmp_path):
    victim = container.add_victim("pipe")
    container.start()
    victim.ready()
    stop(container)
    lab = Lab(container, victim, tmp_path)
    for name, value in (
        ("monotonic", 2**63 - 1),
        ("monotonic_offset", -(2**60)),
        ("boottime_offset", -(2**60)),
    ):
        rewrite_clocks(lab, lambda clocks, name=name, value=value: clocks.update({name: value}))
        outcome = container.try_cr("restart", container.name)
        assert outcome.code in (6, 7, 10), outcome.text
        assert container.state == "STOPPED"
        lab.mend()
    lab.assert_restarts()


class TestSlowRestart:
    """However long a restart takes, nothing expires during it."""

    @pytest.mark.parametrize("name", ["restart_block", "timerfd"])
    def test_before_the_clocks_are_set(self, name, container):
        """Also what ends at a moment, not after a span, has as much left as before."""
        victim = container.add_victim(name)
        container.start()
        victim.ready()
        container.checkpoint("--stop")
        container.cr("restart", container.name, LXC_CR_FAULT="restart-taken-over~1500")
        victim.verify()

    @pytest.mark.parametrize("name", ["socket_wait", "timer_edge"])
    def test_afterwards(self, name, container):
        """The clocks go on then, as in a machine that is too busy, and the result says how far."""
        victim = container.add_victim(name)
        container.start()
        victim.ready()
        before = stop(container)
        outcome = container.cr("restart", container.name, LXC_CR_FAULT="restart-states~1500")
        assert 1.0 < outcome.result["late"] / SECOND < 1.5 + TOLERANCE
        assert before + 1.0 < uptime(container)
        victim.verify()


class TestHandlerDue:
    """A signal that ends a call does so once, whenever it comes, also to those who stand in a queue."""

    @pytest.fixture
    def victim(self, container):
        victim = container.add_victim("handler_due")
        container.start()
        victim.ready()
        return victim

    @staticmethod
    def send_in_the_stop(container: Container, verb: str, *arguments: str, at: str) -> None:
        """A command that waits at a step, and a signal to everybody meanwhile."""
        before = {pid for pid, _ in waiters(container)} if verb == "checkpoint" else set()
        fault = f"{at}~{PAUSE * 1000}"
        with container.spawn(verb, container.name, *arguments, LXC_CR_FAULT=fault) as process:
            engine = wait_until(lambda: engine_at_step(container), what=at)
            engine.suspend()
            try:
                wait_until(lambda: engine.status() == psutil.STATUS_STOPPED, what="a halt")
                # However long that has taken.
                assert engine_at_step(container) == engine
                assert all_stand(container, before)
                for pid, _ in waiters(container):
                    os.kill(pid, signal.SIGUSR1)
            finally:
                engine.resume()
            stdout, stderr = process.communicate(timeout=240)
        assert process.returncode == 0, stdout + stderr

    @pytest.mark.parametrize("step", ["checkpoint-stopped", "checkpoint-pages"])
    def test_while_everything_stands(self, step, container, victim):
        """Before anybody was looked at, and after everybody was."""
        self.send_in_the_stop(container, "checkpoint", at=step)
        victim.wait_for("ok", timeout=60)

    def test_it_is_in_the_image(self, container, victim):
        self.send_in_the_stop(container, "checkpoint", "--stop", at="checkpoint-stopped")
        container.restart()
        victim.wait_for("ok", timeout=60)

    def test_in_a_restart(self, container, victim):
        container.checkpoint("--stop")
        self.send_in_the_stop(container, "restart", at="restart-states")
        victim.wait_for("ok", timeout=60)

    def test_a_checkpoint_that_fails(self, container, victim):
        """Nobody was looked at; the calls go on until their signal comes."""
        outcome = container.try_cr("checkpoint", container.name, LXC_CR_FAULT="checkpoint-tree!")
        assert outcome.code == CHECKPOINT_FAILED, outcome.text
        for pid, _ in waiters(container):
            os.kill(pid, signal.SIGUSR1)
        victim.wait_for("ok", timeout=60)


def engine_at_step(container: Container) -> psutil.Process | None:
    """The tracer of the victim, while it makes a pause of PAUSE seconds and no shorter one."""
    for pid, _ in waiters(container):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            tracer = int(status.partition("TracerPid:")[2].split()[0])
            number, *words = Path(f"/proc/{tracer}/syscall").read_text().split()
            with Path(f"/proc/{tracer}/mem").open("rb", buffering=0) as memory:
                if number == CLOCK_NANOSLEEP:
                    memory.seek(int(words[2], 16))
                    if memory.read(TIMESPEC.size) == TIMESPEC.pack(PAUSE, 0):
                        return psutil.Process(tracer)
    return None


def waiters(container: Container) -> list[tuple[int, str]]:
    """Processes of the victim, with their states; the first one ignores the signal."""
    found = []
    for pid, name in container.processes.items():
        if name != "handler_due":
            continue
        text = Path(f"/proc/{pid}/stat").read_text()
        found.append((pid, text.rpartition(")")[2].split()[0]))
    return found


def all_stand(container: Container, pids: set[int]) -> bool:
    """Are these all there, or any when they are none, and traced?"""
    now = waiters(container)
    return bool(now) and pids <= {pid for pid, _ in now} and all(state == "t" for _, state in now)
