# SPDX-License-Identifier: LGPL-2.1-or-later
"""Engine and command may die at any moment: the container does not, and nothing is left behind."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from lxc_cr_plugin import native
from lxc_cr_plugin.in_use import try_lock

from .container import Container, Victim, run, wait_until
from .leaks import is_frozen

BUSY, HOST, STORE, CHECKPOINT_FAILED, RESTART_FAILED, ENGINE_DIED = 3, 7, 8, 9, 10, 11
CANCELLED = 130

# The only step of the engine behind the commit, and only with --stop.
COMMITTED = native.checkpoint_steps()[-1]

COMMAND_STEPS_CHECKPOINT = ("space", "staging", "files", "journal", "engine", "manifest", "commit")
COMMAND_STEPS_RESTART = ("manifest", "journal", "files", "engine", "start", "confirm")

# CR_RANDOM_RUNS gives more of them.
RANDOM_RUNS = int(os.environ.get("CR_RANDOM_RUNS", "12"))


@pytest.fixture
def victims(container: Container) -> list[Victim]:
    """A tree, threads that count, memory and pipes: whatever is hurt, one of them notices."""
    found = [container.add_victim(name) for name in ("process", "thread", "pipe", "shared_memory")]
    container.start()
    for victim in found:
        victim.ready()
    return found


def is_free(pid: int) -> bool:
    """Not traced, not stopped."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return status["TracerPid"] == "0" and status["State"][0] in "RSD"


def assert_free(container: Container) -> None:
    """Nothing is frozen, nothing is traced, no journal and no staging directory is left."""
    wait_until(
        lambda: all(is_free(pid) for pid in container.processes),
        what=f"freedom of {container.processes}",
    )
    assert not [cgroup for cgroup in container.cgroups if is_frozen(cgroup)]
    laboratory = container.laboratory
    assert list(laboratory.run_dir.glob("*.json")) == []
    staging = laboratory.store / ".staging"
    assert not staging.exists() or list(staging.iterdir()) == []


def images_after_death(container: Container) -> list[dict]:
    """Its images, listed by the first command since one was killed: what that has left is repaired then.

    An engine may take longer to end than any command waits for it.
    """
    journals = list(container.laboratory.run_dir.glob("*.json"))
    wait_until(lambda: all(map(is_unlocked, journals)), what="the end of the engines")
    return container.images


def is_unlocked(journal: Path) -> bool:
    """Whether nobody works on the container of this journal."""
    with journal.with_suffix(".lock").open() as lock:
        return try_lock(lock.fileno())


def assert_runs_on(container: Container, victims: list[Victim]) -> None:
    assert container.state == "RUNNING"
    assert_free(container)
    for victim in victims:
        victim.verify()


@pytest.mark.parametrize("step", native.checkpoint_steps())
class TestCheckpointFault:
    def test_engine_killed(self, step, container, victims):
        outcome = container.try_cr("checkpoint", container.name, LXC_CR_FAULT=step)
        # Without --stop the engine does not wait for the commit.
        assert outcome.code == (0 if step == COMMITTED else ENGINE_DIED), outcome.text
        assert len(container.images) == (1 if step == COMMITTED else 0)
        assert_runs_on(container, victims)

    def test_engine_fails(self, step, container, victims):
        outcome = container.try_cr("checkpoint", container.name, LXC_CR_FAULT=f"{step}!")
        assert outcome.code == (0 if step == COMMITTED else CHECKPOINT_FAILED), outcome.text
        assert len(container.images) == (1 if step == COMMITTED else 0)
        assert_runs_on(container, victims)

    def test_engine_killed_before_the_end(self, step, container, victims):
        """With --stop: either it runs on, or there is an image to restart it from."""
        outcome = container.try_cr("checkpoint", container.name, "--stop", LXC_CR_FAULT=step)
        # The image is complete: no longer a matter of the engine alone.
        wanted = CHECKPOINT_FAILED if step == COMMITTED else ENGINE_DIED
        assert outcome.code == wanted, outcome.text
        assert len(container.images) == (1 if step == COMMITTED else 0)
        if container.state == "STOPPED":
            assert step == COMMITTED
            container.restart()
        assert_runs_on(container, victims)


def test_what_the_engine_had_to_say_before_it_was_killed(container, victims):
    """Under the stop nobody hears it, but it does not go with the engine."""
    outcome = container.try_cr(
        "checkpoint", container.name, "--debug", LXC_CR_FAULT="checkpoint-pages"
    )
    assert outcome.code == ENGINE_DIED, outcome.text
    said = [event["text"] for event in outcome.events if event["event"] == "log"]
    for beginning in ("Seize and interrupt task", "Copy the pages of process"):
        assert any(text.startswith(beginning) for text in said), outcome.text
    assert_runs_on(container, victims)


@pytest.mark.parametrize("stop", [False, True], ids=["run-on", "stop"])
@pytest.mark.parametrize("step", COMMAND_STEPS_CHECKPOINT)
def test_command_killed_in_a_checkpoint(step, stop, container, victims):
    options = ["--stop"] if stop else []
    outcome = container.try_cr(
        "checkpoint", container.name, *options, LXC_CR_FAULT=f"python:{step}"
    )
    assert outcome.code == -signal.SIGKILL, outcome.text
    assert images_after_death(container) == []
    assert_runs_on(container, victims)


def test_killed_at_random_times(container, victims):
    """The command, or its engine, or both, somewhere between the first and the last instruction."""
    dice = random.Random(20)
    # Measured with what is killed, a program of its own: to load it takes a good part of its time.
    begin = time.monotonic()
    process = container.spawn("checkpoint", container.name)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    whole = time.monotonic() - begin
    inspected = set()
    for number in range(RANDOM_RUNS):
        after = dice.uniform(0, whole)
        what = dice.choice(["command", "engine", "both"])
        process = container.spawn("checkpoint", container.name)
        time.sleep(after)
        engines = children_of(process.pid)
        if what in ("command", "both"):
            process.kill()
        if what in ("engine", "both"):
            for pid in engines:
                kill(pid)
        process.communicate(timeout=240)
        try:
            for digest in {image["digest"] for image in images_after_death(container)} - inspected:
                container.cr("inspect", f"{container.name}@{digest}")
                inspected.add(digest)
            assert container.state == "RUNNING"
            assert_free(container)
        except Exception as error:
            error.add_note(f"run {number}: {what} killed after {after:.3f} s")
            raise
    # Nor has a later one damaged any.
    for image in container.images:
        container.cr("inspect", f"{container.name}@{image['digest']}")
        inspected.discard(image["digest"])
    assert not inspected
    assert_runs_on(container, victims)


def children_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def stopped(container, victims) -> list[Victim]:
    """The same victims, in an image."""
    container.checkpoint("--stop")
    assert container.state == "STOPPED"
    return victims


def tree_of(directory: Path) -> dict[str, tuple]:
    """What a directory holds: names, sizes, times of change."""
    return {
        str(path.relative_to(directory)): (status.st_mode, status.st_size, status.st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        for status in [path.lstat()]
        # LXC itself makes and removes what it needs in /dev at every start.
        if not path.is_dir() and path.relative_to(directory).parts[0] != "dev"
    }


def assert_restarts(container: Container, victims: list[Victim]) -> None:
    container.restart()
    for victim in victims:
        victim.verify()


@pytest.mark.parametrize("how", ["killed", "fails"])
@pytest.mark.parametrize("step", native.restart_steps())
def test_restart_fault(step, how, container, stopped):
    files = tree_of(container.rootfs)
    image = tree_of(container.laboratory.store / container.name)
    outcome = container.try_cr(
        "restart", container.name, LXC_CR_FAULT=step if how == "killed" else f"{step}!"
    )
    assert outcome.code not in (0, 1), outcome.text
    assert (outcome.code == ENGINE_DIED) == (how == "killed"), outcome.text
    assert container.state == "STOPPED"
    assert container.processes == {}
    assert tree_of(container.rootfs) == files
    assert tree_of(container.laboratory.store / container.name) == image
    assert_free(container)
    assert_restarts(container, stopped)


@pytest.mark.parametrize("step", COMMAND_STEPS_RESTART)
def test_command_killed_in_a_restart(step, container, stopped):
    outcome = container.try_cr("restart", container.name, LXC_CR_FAULT=f"python:{step}")
    assert outcome.code == -signal.SIGKILL, outcome.text
    assert len(images_after_death(container)) == 1
    # Killed after all were released, the container is good and stays.
    if step == "confirm":
        assert_runs_on(container, stopped)
    else:
        assert container.state == "STOPPED"
        assert_free(container)
        assert_restarts(container, stopped)


def noted_init(container: Container) -> int:
    """The init that a restart is about to take over, as soon as its journal names it."""

    def noted() -> list[int]:
        paths = container.laboratory.run_dir.glob("*.json")
        inits = [json.loads(path.read_text())["init"] for path in paths]
        return [init for init in inits if init]

    return wait_until(noted, what="the init")[0]


def test_an_image_is_not_removed_under_a_restart(container, stopped):
    process = container.spawn("restart", container.name, LXC_CR_FAULT="restart-noted~5000")
    noted_init(container)
    outcome = container.try_cr("rm", container.name)
    assert (outcome.code, len(container.images)) == (STORE, 1), outcome.text
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, output + errors
    container.cr("rm", container.name)
    assert_runs_on(container, stopped)


def test_lxc_that_does_not_see_the_end_of_its_init(container, stopped):
    """As when the init dies before LXC has got from it what it waits for: then nobody can ask LXC."""
    process = container.spawn("restart", container.name, LXC_CR_FAULT="restart-noted~20000")
    monitor = psutil.Process(noted_init(container)).parent()
    assert "lxc monitor" in " ".join(monitor.cmdline())
    monitor.suspend()
    for engine in children_of(process.pid):
        kill(engine)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == ENGINE_DIED, output + errors
    assert (container.state, container.processes) == ("STOPPED", {})
    assert_free(container)
    assert_restarts(container, stopped)


def is_stopped(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_STOPPED


def test_a_container_that_was_started_after_a_killed_restart(container, stopped):
    """It is not what the restart would have started, so nobody stops it."""
    outcome = container.try_cr("restart", container.name, LXC_CR_FAULT="python:start")
    assert outcome.code == -signal.SIGKILL
    container.start()
    init = container.init_pid
    images_after_death(container)
    assert (container.state, container.init_pid) == ("RUNNING", init)
    # Its files may be those of the image; they are brought back when it is stopped.
    container.stop()
    container.cr("ls", container.name)
    assert_free(container)


def test_a_container_that_somebody_starts_during_a_restart(container, stopped):
    process = container.spawn("restart", container.name, LXC_CR_FAULT="python:start~")
    wait_until(lambda: is_stopped(psutil.Process(process.pid)), what="the pause")
    container.start()
    init = container.init_pid
    process.send_signal(signal.SIGCONT)
    output, errors = process.communicate(timeout=240)
    assert process.returncode in (BUSY, RESTART_FAILED), output + errors
    assert (container.state, container.init_pid) == ("RUNNING", init)
    container.stop()
    container.cr("ls", container.name)
    assert_free(container)


def test_a_start_whose_restart_was_killed(container, victims):
    """LXC's monitor goes on by itself, but may not let a fresh init run."""
    container.checkpoint("--stop")
    slow = container.directory / "slow"
    slow.write_text(f"#!/bin/sh\n: >{container.directory}/begun\nsleep 1\n")
    slow.chmod(0o755)
    config = container.directory / "config"
    before = config.read_text()
    container.configure(f"lxc.hook.pre-start = {slow}")
    process = container.spawn("restart", container.name)
    wait_until((container.directory / "begun").exists, what="the pre-start hook")
    doomed = children_of(process.pid)
    process.kill()
    for pid in doomed:
        kill(pid)
    process.communicate(timeout=240)
    images_after_death(container)
    assert container.state == "STOPPED"
    assert container.processes == {}
    config.write_text(before)
    assert_free(container)
    assert_restarts(container, victims)


def test_a_reboot_after_a_restart(container, stopped):
    """The hook of the restart is still there, and lets it pass."""
    container.restart()
    init = container.init_pid
    container.lxc("stop", "-r")
    wait_until(lambda: container.state == "RUNNING" and container.init_pid != init, what="a reboot")


def test_restart_of_a_running_container_is_refused(container, victims):
    container.checkpoint()
    outcome = container.try_cr("restart", container.name)
    assert outcome.code == BUSY
    assert "running" in outcome.text
    assert_runs_on(container, victims)


def test_two_commands_at_once(container):
    victim = container.add_victim("cow")
    container.start()
    victim.ready()
    # It stands still where it has the container's lock and its journal is written.
    first = container.spawn("checkpoint", container.name, LXC_CR_FAULT="python:engine~")
    try:
        wait_until(lambda: is_stopped(psutil.Process(first.pid)), what="the first command")
        second = container.try_cr("checkpoint", container.name)
    finally:
        first.send_signal(signal.SIGCONT)
        first_output, first_errors = first.communicate(timeout=240)
    assert second.code == BUSY, second.text
    assert f"'{container.name}' is being worked on by the checkpoint of process" in second.text
    assert first.returncode == 0, first_output + first_errors
    assert len(container.images) == 1
    victim.verify()


def test_a_full_disk(container, victims, tmp_path):
    """The stop is over when the disk turns out to be full; the container runs on."""
    small = tmp_path / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=200k,mode=700", "none", small)
    try:
        outcome = container.try_cr("checkpoint", container.name, "--store", small)
        assert outcome.code == STORE, outcome.text
        assert list(small.rglob("manifest.json")) == []
    finally:
        subprocess.run(["umount", small], check=True)
    assert_runs_on(container, victims)


def test_interrupted_by_the_user(container, victims):
    """Ctrl-C in the middle of it."""
    process = container.spawn("checkpoint", container.name)
    wait_until(
        lambda: list(container.laboratory.run_dir.glob("*.json")) or process.poll() is not None,
        what="the command",
    )
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=240)
    assert process.returncode in (0, 130), output + errors
    assert len(container.images) == (1 if process.returncode == 0 else 0)
    assert_runs_on(container, victims)


def test_interrupted_while_the_runtime_comes_to_its_init(container, stopped):
    """An init that is ended on its way there leaves LXC waiting: the engine lets it come, and then ends it."""
    process = container.spawn("restart", container.name, LXC_CR_FAULT="restart-noted~5000")
    init = psutil.Process(noted_init(container))
    monitor = init.parent()
    monitor.suspend()
    try:
        (hook,) = (child for child in monitor.children() if child != init)
        assert hook.status() != psutil.STATUS_ZOMBIE, "LXC may have gone on"
        wait_until(lambda: hook.status() == psutil.STATUS_ZOMBIE, what="the end of the hook")
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        assert init.status() != psutil.STATUS_ZOMBIE
    finally:
        monitor.resume()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == CANCELLED, output + errors
    assert container.state == "STOPPED"
    assert_free(container)
    assert_restarts(container, stopped)
