# SPDX-License-Identifier: LGPL-2.1-or-later
"""Containers that include the stanza of `lxc-cr stanza`: plain tools of LXC, and what follows."""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from lxc_cr_plugin import native
from lxc_cr_plugin.config import FILE_VARIABLE
from lxc_cr_plugin.resources import hook

from .container import LXC_CR, Container, Victim, run, wait_until
from .power import cut, stand_still
from .test_files import assert_nothing_kept, number_of_next, runs_on
from .test_robustness import tree_of

USAGE, CONTAINER, STORE = 2, 3, 8


@pytest.fixture(autouse=True)
def plain_tools_find_the_configuration(laboratory, monkeypatch):
    monkeypatch.setenv(FILE_VARIABLE, str(laboratory.config))


# A start of the real init can be told by that.
BEGIN_ANEW = "::sysinit:/bin/sh -c 'rm -f /status/*'"


@pytest.fixture
def hooked(container, stanza) -> Container:
    container.configure(f"lxc.include = {stanza}")
    container.lines.append(BEGIN_ANEW)
    return container


@pytest.fixture
def ledger(hooked: Container) -> Victim:
    victim = hooked.add_victim("ledger")
    hooked.start()
    victim.ready()
    return victim


def mark_of(container: Container) -> Path:
    return container.directory / "lxc-cr.pending"


def log_of(container: Container) -> str:
    text = (container.directory / "lxc-cr.log").read_text()
    assert "Traceback" not in text, text
    return text


def policy(container: Container, *lines: str) -> None:
    (container.directory / "lxc-cr.toml").write_text("".join(f"{line}\n" for line in lines))


def settled(container: Container) -> None:
    """The supervisor, if there was one, has nothing more to do; whatever it left is repaired."""
    run_dir = container.laboratory.run_dir

    def nothing_left() -> bool:
        if list(run_dir.glob("*.json")):
            container.cr("ls")  # it repairs what nobody works on any more
        return not list(run_dir.glob("*.json"))

    wait_until(nothing_left, what="the supervisor's end")


def start(container: Container, *arguments: str, fault: str = ""):
    """What everybody types."""
    variables = {"LXC_CR_FAULT": fault} if fault else {}
    done = run(
        "lxc-start", "-P", container.laboratory.lxcpath, "-n", container.name,
        "-o", container.log, "-l", "DEBUG", *arguments,
        env={**container.laboratory.environment, **variables}, check=False,
    )  # fmt: skip
    settled(container)
    return done


def assert_fresh(container: Container, victim: Victim) -> None:
    """It runs, but from its real init: the victim has begun anew."""
    assert container.state == "RUNNING"

    def begun_anew() -> bool:
        # What it has left is there until its init has removed that.
        with contextlib.suppress(FileNotFoundError):
            return number_of_next(victim) < FAR
        return False

    wait_until(begun_anew, what="a new beginning", timeout=60)
    victim.ready()


def reboot(container: Container) -> None:
    """From inside; the command may be killed by what it does."""
    init = container.init_pid
    container.attach("reboot", check=False)
    wait_until(
        lambda: container.state == "RUNNING" and container.init_pid != init, what="the reboot"
    )


FAR = 1000


def run_far(victim: Victim) -> None:
    """So far that a fresh start can be told from what went on."""
    wait_until(lambda: number_of_next(victim) > FAR, what="many entries")


def test_a_plain_start_resumes(hooked, ledger):
    run_far(ledger)
    hooked.checkpoint("--stop", "--resume-at-start")
    assert mark_of(hooked).exists()
    (hooked.rootfs / "etc/passwd").write_text("changed while it was away")
    assert start(hooked).returncode == 0
    runs_on(ledger)
    assert number_of_next(ledger) > FAR
    assert not mark_of(hooked).exists()
    wait_until(lambda: "runs again" in log_of(hooked), what="the end of the restart", timeout=60)
    assert "changed" not in (hooked.rootfs / "etc/passwd").read_text()
    assert_nothing_kept(hooked)
    assert hooked.attach("echo", "attached") == "attached\n"
    ledger.verify()
    # and the start after that is an ordinary one
    hooked.stop()
    assert start(hooked).returncode == 0
    assert_fresh(hooked, ledger)
    assert not (hooked.directory / "lxc-cr.resume").is_symlink()


def test_in_the_foreground_and_with_the_second_hook_version(hooked, ledger):
    """As lxc@.service starts it; hooks get no arguments then."""
    hooked.configure("lxc.hook.version = 1")
    run_far(ledger)
    hooked.checkpoint("--stop", "--resume-at-start")
    command = ["lxc-start", "-F", "-P", hooked.laboratory.lxcpath, "-n", hooked.name]
    with subprocess.Popen(
        command, env=hooked.laboratory.environment, stdin=subprocess.DEVNULL
    ) as foreground:
        wait_until(lambda: not mark_of(hooked).exists(), what="the restart")
        settled(hooked)
        runs_on(ledger)
        assert foreground.poll() is None
        ledger.verify()
        hooked.stop()
        assert foreground.wait() in (0, 1)  # as LXC says of one that was killed


def test_a_reboot_starts_the_real_init(hooked, ledger):
    """Whatever is pending: the container has been running since."""
    run_far(ledger)
    hooked.checkpoint("--stop", "--resume-at-start", "--image", f"{hooked.name}:old")
    assert start(hooked).returncode == 0
    run_far(ledger)
    hooked.cr("pending", hooked.name, f"{hooked.name}:old")
    reboot(hooked)
    assert_fresh(hooked, ledger)
    assert mark_of(hooked).exists()
    # asked for, and so the next start does go back
    hooked.stop()
    assert start(hooked).returncode == 0
    assert number_of_next(ledger) > FAR
    assert not mark_of(hooked).exists()


def test_nothing_older_than_its_end_stays_pending(hooked, ledger, tmp_path):
    """Ended with an image that is not to be resumed from, it must not go back to another one."""
    image = f"{hooked.name}:old"
    hooked.checkpoint("--image", image)
    hooked.cr("pending", hooked.name, image)
    run_far(ledger)
    # while it runs on, what was asked for holds
    hooked.checkpoint()
    assert mark_of(hooked).exists()
    told = hooked.checkpoint("--stop")
    assert "was to resume from an older image" in told.text
    assert not mark_of(hooked).exists()
    assert start(hooked).returncode == 0
    assert_fresh(hooked, ledger)
    hooked.cr("pending", hooked.name, image)
    run(
        LXC_CR.with_name("lxc-checkpoint"), "-P", hooked.laboratory.lxcpath, "-n", hooked.name,
        "-s", "-D", tmp_path / "there", env=hooked.laboratory.environment,
    )  # fmt: skip
    assert not mark_of(hooked).exists()
    # the next image takes the place of what was pending
    hooked.restart()
    hooked.cr("pending", hooked.name, image)
    run_far(ledger)
    hooked.checkpoint("--stop", "--resume-at-start")
    assert start(hooked).returncode == 0
    assert number_of_next(ledger) > FAR
    ledger.verify()


def test_a_plain_start_after_a_rollback_that_was_cut_off(hooked, ledger):
    """What ran before it goes on, without any command of lxc-cr."""
    hooked.checkpoint("--image", f"{hooked.name}:old")
    run_far(ledger)
    cut(hooked, "rollback", hooked.name, f"{hooked.name}:old", at="files:brought")
    assert mark_of(hooked).exists()
    assert start(hooked).returncode == 0
    assert number_of_next(ledger) > FAR
    assert not mark_of(hooked).exists()
    ledger.verify()


def test_another_configuration_does_not_pass_by_what_is_pending(hooked, ledger, tmp_path):
    """lxc-start -f: the next ordinary start would go back behind it."""
    other = tmp_path / "other.conf"
    other.write_text((hooked.directory / "config").read_text())
    hooked.checkpoint("--stop", "--resume-at-start")
    before = tree_of(hooked.rootfs)
    assert start(hooked, "-f", other).returncode != 0
    assert hooked.state == "STOPPED"
    for place in (["-P", hooked.laboratory.lxcpath], [f"--lxcpath={hooked.laboratory.lxcpath}"]):
        command = ["lxc-start", "-F", *place, "-n", hooked.name, "-f", other]
        assert run(*command, check=False, timeout=60, stdin=subprocess.DEVNULL).returncode != 0
        assert hooked.state == "STOPPED"
    assert f"remove '{mark_of(hooked)}'" in hooked.log.read_text()
    assert tree_of(hooked.rootfs) == before
    hooked.cr("pending", hooked.name, "--clear")
    assert start(hooked, "-f", other).returncode == 0
    assert_fresh(hooked, ledger)
    hooked.stop()
    hooked.restart()
    ledger.verify()


def test_what_becomes_pending_during_a_start_is_for_the_next(hooked, ledger):
    """Here by a hook after ours, as it may be by a command at that moment."""
    run_far(ledger)
    hooked.checkpoint("--image", f"{hooked.name}:old")
    hooked.cr("pending", hooked.name, f"{hooked.name}:old")
    mark_of(hooked).rename(hooked.directory / "later")
    hooked.stop()
    config = hooked.directory / "config"
    text = config.read_text()
    hooked.configure(f"lxc.hook.pre-start = cp {hooked.directory}/later {mark_of(hooked)}; :")
    assert start(hooked).returncode == 0
    assert_fresh(hooked, ledger)
    assert mark_of(hooked).exists()
    config.write_text(text)
    hooked.stop()
    assert start(hooked).returncode == 0
    assert number_of_next(ledger) > FAR
    ledger.verify()


def test_pending_is_shown_set_and_cleared(hooked, ledger):
    hooked.checkpoint("--stop", "--image", f"{hooked.name}:one")
    assert hooked.cr("pending", hooked.name).result["digest"] is None
    shown = hooked.cr("pending", hooked.name, f"{hooked.name}:one").result
    assert shown["image"] == f"{hooked.name}:one"
    assert mark_of(hooked).stat().st_mode & 0o777 == 0o600
    # what is needed is not removed
    refused = hooked.try_cr("rm", f"{hooked.name}:one")
    assert refused.code == STORE
    assert "--clear" in refused.result["hint"]
    hooked.cr("prune", hooked.name, "--keep-last", 0, "--tagged")
    assert len(hooked.images) == 1
    assert hooked.cr("pending", hooked.name, "--clear").result["digest"] is None
    assert not mark_of(hooked).exists()
    hooked.cr("rm", f"{hooked.name}:one")
    assert start(hooked).returncode == 0
    assert_fresh(hooked, ledger)


def test_lxc_cr_restart_answers_the_mark(hooked, ledger):
    """Which may be made by policy, too."""
    policy(hooked, "resume_at_start = true")
    hooked.checkpoint("--stop", "--no-resume-at-start")
    assert not mark_of(hooked).exists()
    hooked.restart()
    hooked.checkpoint("--stop")
    assert mark_of(hooked).exists()
    hooked.restart()
    assert not mark_of(hooked).exists()
    runs_on(ledger)
    ledger.verify()


def test_without_the_stanza_nothing_can_be_pending(container):
    victim = container.add_victim("pipe")
    container.start()
    victim.ready()
    outcome = container.try_cr("checkpoint", container.name, "--stop", "--resume-at-start")
    assert outcome.code == CONTAINER
    assert "lxc-cr stanza" in outcome.result["hint"]
    assert container.state == "RUNNING"
    container.checkpoint()
    assert container.try_cr("pending", container.name, container.name).code == CONTAINER
    # a policy is for containers that can
    policy(container, "resume_at_start = true")
    container.checkpoint("--stop")
    assert not mark_of(container).exists()
    container.restart()
    victim.verify()


def test_a_checkpoint_that_fails_to_end_it_leaves_no_mark(hooked, ledger):
    arguments = ("--stop", "--resume-at-start")
    for fault in (native.checkpoint_steps()[-1], "python:pending"):
        outcome = hooked.try_cr("checkpoint", hooked.name, *arguments, LXC_CR_FAULT=fault)
        assert outcome.code != 0
        hooked.cr("ls")
        assert hooked.state == "RUNNING"
        assert not mark_of(hooked).exists()
        runs_on(ledger)
    # Both command and engine are killed, and then nobody comes but LXC; or the engine hears of it.
    at = f"{native.checkpoint_steps()[-1]}~9000"
    cut(hooked, "checkpoint", hooked.name, *arguments, at=at)
    assert mark_of(hooked).exists()
    run_far(ledger)
    hooked.stop()
    assert start(hooked).returncode == 0
    assert not mark_of(hooked).exists()
    assert_fresh(hooked, ledger)
    with stand_still(hooked, "checkpoint", hooked.name, *arguments, at="files:promised") as command:
        assert mark_of(hooked).exists()
        command.kill()
    wait_until(lambda: not mark_of(hooked).exists(), what="the engine to take it back")
    runs_on(ledger)
    hooked.cr("ls")
    ledger.verify()


def damage(container: Container) -> None:
    pages = next((container.laboratory.store / container.name).glob("*/pages"))
    data = pages.read_bytes()
    pages.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def test_a_failed_resume_is_no_start(hooked, ledger):
    run_far(ledger)
    hooked.checkpoint("--stop", "--resume-at-start")
    (hooked.rootfs / "etc/passwd").write_text("changed while it was away")
    before = tree_of(hooked.rootfs)
    # early: before LXC goes on; late: when it runs already
    for fault in (
        "restart-load!",
        "restart-ready",
        "python:engine",
        "restart-taken-over",
        "restart-states!",
    ):
        start(hooked, fault=fault)
        wait_until(lambda: hooked.state == "STOPPED", what="the end")
        assert tree_of(hooked.rootfs) == before, fault
        assert_nothing_kept(hooked)
        assert mark_of(hooked).exists(), fault
    damage(hooked)
    assert start(hooked).returncode != 0
    assert "The content of 'pages' is not what was written" in log_of(hooked)
    assert "is not what was written" in hooked.log.read_text()
    assert tree_of(hooked.rootfs) == before


@pytest.mark.parametrize("fault", ["restart-load!", "restart-states!"])
def test_a_failed_resume_starts_afresh_if_that_is_the_policy(fault, hooked, ledger):
    policy(hooked, 'on_failure = "fresh"')
    run_far(ledger)
    hooked.checkpoint("--stop", "--resume-at-start")
    start(hooked, fault=fault)
    wait_until(lambda: not mark_of(hooked).exists() and hooked.state == "RUNNING", what="a start")
    assert_fresh(hooked, ledger)
    assert not mark_of(hooked).exists()
    assert "starts afresh" in log_of(hooked)
    assert_nothing_kept(hooked)


@pytest.mark.parametrize("step", ["files", "start", "confirm"])
def test_a_killed_supervisor(step, hooked, ledger):
    """Old or new: it is stopped and may be started again, or it runs and nothing is pending."""
    run_far(ledger)
    hooked.checkpoint("--stop", "--resume-at-start")
    start(hooked, fault=f"python:{step}")
    if step == "confirm":
        # LXC's start is over as soon as init is executed
        wait_until(lambda: not mark_of(hooked).exists(), what="the end of the restart")
        # and the next command repairs when the engine has ended too
        journals = hooked.laboratory.run_dir
        wait_until(lambda: hooked.cr("ls") and not [*journals.glob("*.json")], what="the repair")
    else:
        wait_until(lambda: hooked.state == "STOPPED", what="the end")
        assert mark_of(hooked).exists()
        assert start(hooked).returncode == 0
    assert_nothing_kept(hooked)
    runs_on(ledger)
    assert number_of_next(ledger) > FAR
    ledger.verify()


def test_somebody_elses_mark_is_not_followed(hooked, ledger):
    hooked.checkpoint("--stop", "--resume-at-start")
    mark_of(hooked).chmod(0o666)
    assert start(hooked).returncode != 0
    assert "can be written by others than root" in log_of(hooked)
    mark_of(hooked).chmod(0o600)
    assert start(hooked).returncode == 0
    ledger.verify()


@pytest.mark.parametrize("missing", ["everything", "python"])
def test_a_broken_plugin_breaks_no_start(missing, container, stanza, tmp_path):
    """Only one that is pending, because that would be a fresh start in the disguise of a resumed one."""
    text = stanza.read_text().replace(str(LXC_CR), str(tmp_path / "lxc-cr"))
    if missing == "everything":
        text = text.replace(str(hook("lxc-pre-start").parent), str(tmp_path / "gone"))
    broken = tmp_path / "broken.conf"
    broken.write_text(text)
    container.configure(f"lxc.include = {broken}")
    container.lines.append(BEGIN_ANEW)
    victim = container.add_victim("ledger")
    container.start()
    victim.ready()
    reboot(container)
    victim.ready()
    run("lxc-stop", "-P", container.laboratory.lxcpath, "-n", container.name)
    # what LXC itself does with it goes on as well
    copy = container.name + "-copy"
    run("lxc-copy", "-P", container.laboratory.lxcpath, "-n", container.name, "-N", copy)
    run("lxc-destroy", "-P", container.laboratory.lxcpath, "-n", copy)
    mark_of(container).write_text(f"{container.name}@sha256:{'0' * 64}\n")
    assert start(container).returncode != 0
    assert container.state == "STOPPED"
    if missing == "python":
        assert "to start afresh, remove" in container.log.read_text()
    mark_of(container).unlink()
    assert start(container).returncode == 0


def test_buffered_images_of_a_container_that_ends(hooked, ledger):
    """Kept, dropped or flushed; what lxc-cr itself ends is its own business."""
    policy(hooked, 'on_stop = "drop"')
    hooked.checkpoint("--buffered", "--stop")
    assert [image["buffered"] for image in hooked.images] == [True]
    hooked.restart()
    hooked.cr("rollback", hooked.name, "--no-checkpoint")
    assert len(hooked.images) == 1
    reboot(hooked)
    assert len(hooked.images) == 1
    hooked.stop()
    assert hooked.images == []
    hooked.start()
    ledger.ready()
    policy(hooked, 'on_stop = "flush"')
    hooked.checkpoint("--buffered")
    hooked.stop()
    assert [image["buffered"] for image in hooked.images] == [False]
    hooked.restart()
    ledger.verify()
    policy(hooked, 'on_stop = "keep"')
    hooked.checkpoint("--buffered")
    hooked.stop()
    assert sorted(image["buffered"] for image in hooked.images) == [False, True]


@pytest.fixture
def copied(hooked, ledger, new_container):
    """A function that has lxc-copy make a copy; its container."""
    copies = []

    def copy() -> Container:
        other = new_container()
        shutil.rmtree(other.directory)
        hooked.lxc("copy", "-N", other.name)
        copies.append(other)
        return other

    return copy


def test_a_copy_without_the_images(hooked, copied, ledger):
    policy(hooked, 'at_shutdown = "checkpoint"')
    hooked.checkpoint("--stop", "--resume-at-start")
    copy = copied()
    assert copy.images == []
    assert not mark_of(copy).exists()
    assert "at_shutdown" in (copy.directory / "lxc-cr.toml").read_text()
    assert start(copy).returncode == 0
    assert_fresh(copy, Victim(container=copy, name="ledger"))
    assert start(hooked).returncode == 0
    ledger.verify()


def test_a_copy_with_the_images(hooked, copied, ledger):
    """Both go on from the same instant, each with files of its own."""
    policy(hooked, 'on_clone = "follow"')
    run_far(ledger)
    hooked.checkpoint("--stop", "--image", f"{hooked.name}:here")
    copy = copied()
    twin = Victim(container=copy, name="ledger")
    assert [image["tags"] for image in copy.images] == [["here"]]
    copy.restart(f"{copy.name}:here")
    hooked.restart(f"{hooked.name}:here")
    for victim in (ledger, twin):
        runs_on(victim)
        assert number_of_next(victim) > FAR
        victim.verify()
    hooked.cr("rm", f"{hooked.name}:here")
    copy.cr("verify", f"{copy.name}:here")


def test_destroy(hooked, ledger, laboratory):
    hooked.checkpoint("--stop")
    hooked.lxc("destroy")
    assert not hooked.directory.exists()
    assert len(hooked.images) == 1


def test_destroy_with_the_images(hooked, ledger):
    policy(hooked, 'on_destroy = "remove"')
    hooked.checkpoint("--stop")
    hooked.lxc("destroy")
    assert not hooked.directory.exists()
    assert hooked.images == []


def test_shutdown_and_boot(hooked, ledger, new_container, stanza):
    """What config/systemd/ runs: the one is saved and resumes, the other is left to LXC."""
    policy(hooked, 'at_shutdown = "checkpoint"')
    hooked.configure("lxc.start.auto = 1")
    other = new_container()
    bystander = other.add_victim("pipe")
    other.start()
    bystander.ready()
    run_far(ledger)
    told = hooked.cr("shutdown", "--dry-run").result["containers"]
    assert told == [hooked.name]
    assert hooked.cr("shutdown").result["containers"] == [hooked.name]
    assert (hooked.state, other.state) == ("STOPPED", "RUNNING")
    bystander.verify()
    run("lxc-autostart", "-P", hooked.laboratory.lxcpath, env=hooked.laboratory.environment)
    settled(hooked)
    assert not mark_of(hooked).exists()
    runs_on(ledger)
    assert number_of_next(ledger) > FAR
    ledger.verify()


def test_shutdown_goes_on_after_a_failure(hooked, ledger):
    policy(hooked, 'at_shutdown = "checkpoint"', "nonsense = 1")
    outcome = hooked.try_cr("shutdown")
    assert outcome.code == USAGE
    assert "lxc-cr.toml:2: nonsense" in outcome.text
    assert outcome.result["event"] == "result"
    assert hooked.state == "RUNNING"
    ledger.verify()


def test_another_directory_of_the_host_is_accepted_by_policy(hooked, tmp_path):
    """Nobody who starts a container plainly could say so; a rollback may say it as well."""
    shared, other = tmp_path / "shared", tmp_path / "other"
    for directory in (shared, other):
        directory.mkdir()
        (directory / "file").write_text(directory.name)
    hooked.configure(f"lxc.mount.entry = {shared} srv/data none bind,create=dir 0 0")
    victim = hooked.add_victim("ledger")
    hooked.start()
    victim.ready()
    hooked.checkpoint("--stop", "--resume-at-start")
    config = hooked.directory / "config"
    config.write_text(config.read_text().replace(str(shared), str(other)))
    start(hooked)
    wait_until(lambda: hooked.state == "STOPPED", what="the end of a start that failed")
    assert 'other_mounts = ["/srv/data"]' in log_of(hooked)
    policy(hooked, 'other_mounts = ["/srv/data"]')
    assert start(hooked).returncode == 0
    runs_on(victim)
    seen = Path(f"/proc/{hooked.init_pid}/root/srv/data/file")
    assert seen.read_text() == "other"
    policy(hooked)
    hooked.cr("rollback", hooked.name, "--no-checkpoint", "--mount", f"/srv/data={shared}")
    assert Path(f"/proc/{hooked.init_pid}/root/srv/data/file").read_text() == "shared"
    victim.verify()
