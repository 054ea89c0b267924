# SPDX-License-Identifier: LGPL-2.1-or-later
"""The hooks, run under every POSIX shell that is here, with the test as the engine."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from lxc_cr_plugin import unfinished
from lxc_cr_plugin.resources import data_file, hook

SHELLS = [
    [path, *arguments]
    for name, *arguments in (["dash"], ["busybox", "sh"], ["bash", "--posix"], ["sh"])
    if (path := shutil.which(name))
]


@pytest.fixture(params=SHELLS, ids=lambda command: Path(command[0]).name)
def shell(request):
    return request.param


@pytest.fixture
def place(tmp_path):
    for name in ("request", "reply"):
        os.mkfifo(tmp_path / name, 0o600)
    return tmp_path


def start(
    shell, place, *, pid="4711", seconds="60", arguments=("web", "lxc", "start-host"), **variables
):
    environment = {"PATH": os.environ["PATH"], "LXC_CR_HOOK_TIMEOUT": seconds, **variables}
    if pid is not None:
        environment["LXC_PID"] = pid
    return subprocess.Popen(
        [*shell, hook("lxc-start-host"), place, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process, timeout=60):
    with process:
        out, err = process.communicate(timeout=timeout)
    assert out == ""
    return process.returncode, err


class Engine:
    """Both fifos as the engine has them: open for reading and writing, so that nothing blocks."""

    def __init__(self, place):
        self.request = os.open(place / "request", os.O_RDWR)
        self.reply = os.open(place / "reply", os.O_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for fd in (self.request, self.reply):
            os.close(fd)


def test_go(shell, place):
    with Engine(place) as engine:
        process = start(shell, place)
        assert os.read(engine.request, 100) == b"4711\n"
        assert process.poll() is None
        os.write(engine.reply, b"go\n")
        assert outcome(process) == (0, "")


def test_abort(shell, place):
    with Engine(place) as engine:
        process = start(shell, place)
        os.read(engine.request, 100)
        os.write(engine.reply, b"abort\n")
        assert outcome(process) == (
            1,
            "lxc-start-host: the restart engine did not take over (abort)\n",
        )


def test_without_lxcs_own_arguments(shell, place):
    """lxc.hook.version = 1 passes none."""
    with Engine(place) as engine:
        process = start(shell, place, arguments=())
        os.read(engine.request, 100)
        os.write(engine.reply, b"go\n")
        assert outcome(process) == (0, "")


def test_a_reboot_long_after(shell, tmp_path):
    assert outcome(start(shell, tmp_path / "gone", LXC_TARGET="reboot")) == (0, "")


def test_a_reboot_before_the_place_is_gone(shell, place):
    assert outcome(start(shell, place, LXC_TARGET="reboot")) == (0, "")


def test_a_restart_that_was_given_up(shell, tmp_path):
    """A fresh init must not run under the name of the image's."""
    given_up = (1, "lxc-start-host: the restart was given up\n")
    assert outcome(start(shell, tmp_path / "gone")) == given_up
    assert outcome(start(shell, tmp_path / "gone", LXC_TARGET="stop")) == given_up


def test_a_meeting_place_without_fifos(shell, tmp_path):
    (tmp_path / "request").touch()
    (tmp_path / "reply").touch()
    assert outcome(start(shell, tmp_path))[0] == 1


@pytest.mark.parametrize("pid", [None, "", "12x", "1; rm -rf /", "-1"])
def test_a_pid_that_is_none(shell, place, pid):
    code, err = outcome(start(shell, place, pid=pid))
    assert code == 1
    assert "not a process id" in err


def test_no_engine_ever(shell, place):
    """Nobody has opened the fifos: the hook gives up and the start fails."""
    code, err = outcome(start(shell, place, seconds="0.3"))
    assert code == 1
    assert "no answer" in err


def test_an_engine_that_dies_before_it_answers(shell, place):
    with Engine(place) as engine:
        process = start(shell, place, seconds="600")
        os.read(engine.request, 100)
        # The hook stands in its read, or is about to open the fifo.
        time.sleep(0.2)
    code, _err = outcome(process)
    assert code == 1


def test_an_engine_that_is_silent(shell, place):
    with Engine(place) as engine:
        process = start(shell, place, seconds="0.3")
        os.read(engine.request, 100)
        assert outcome(process)[0] == 1


def test_of_several_starts_one_is_taken_over(shell, place):
    with Engine(place) as engine:
        processes = [start(shell, place, pid=str(number)) for number in range(100, 110)]
        winner = os.read(engine.request, 100)
        os.write(engine.reply, b"go\n")
        assert sorted(outcome(process)[0] for process in processes) == [0] + [1] * 9
        assert winner.decode().strip() in {str(number) for number in range(100, 110)}
        os.set_blocking(engine.request, False)
        with pytest.raises(BlockingIOError):
            os.read(engine.request, 100)


def test_a_path_with_everything_in_it(shell, tmp_path):
    place = tmp_path / "a b'c\"$(x)"
    place.mkdir()
    for name in ("request", "reply"):
        os.mkfifo(place / name, 0o600)
    with Engine(place) as engine:
        process = start(shell, place)
        os.read(engine.request, 100)
        os.write(engine.reply, b"go\n")
        assert outcome(process) == (0, "")


def test_the_hook_is_executable():
    assert os.access(hook("lxc-start-host"), os.X_OK)


# ---- the scripts of config/lxc/resume.conf ----


@pytest.fixture
def program(tmp_path):
    """Stands in for lxc-cr: tells what it was called with."""
    path = tmp_path / "lxc cr"
    path.write_text('#!/bin/sh\necho "$*" >"$0.called"\n[ ! -e "$0.fails" ]\n')
    path.chmod(0o700)
    return path


def called(program):
    path = program.with_name(f"{program.name}.called")
    return path.read_text() if path.exists() else None


def call(shell, name, program, *arguments, **variables):
    done = subprocess.run(
        [*shell, hook(name), program, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "LXC_NAME": "web",
            "LXC_CONFIG_FILE": "/nonexistent/web/config",
            **variables,
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_pre_start(shell, program):
    assert call(shell, "lxc-pre-start", program, "web", "lxc", "pre-start") == (0, "")
    assert called(program) == "hook pre-start\n"
    program.with_name(f"{program.name}.fails").touch()
    assert call(shell, "lxc-pre-start", program)[0] == 1


@pytest.mark.parametrize("variables", [{"LXC_TARGET": "reboot"}, {"LXC_CR_RESTART": "1"}])
def test_pre_start_of_somebody_else(variables, shell, program):
    assert call(shell, "lxc-pre-start", program, **variables) == (0, "")
    assert called(program) is None


def test_pre_start_by_another_configuration(shell, program):
    """Nobody here is called like LXC's daemon: it cannot be told which container it is."""
    variables = {"LXC_CONFIG_FILE": "/nonexistent/other.conf"}
    assert call(shell, "lxc-pre-start", program, **variables) == (0, "")
    assert called(program) is None


def test_pre_start_without_the_program(shell, tmp_path):
    code, err = call(shell, "lxc-pre-start", tmp_path / "gone")
    assert code == 1
    assert "remove '/nonexistent/web/lxc-cr.pending'" in err


@pytest.mark.parametrize("kind", ["post-stop", "clone", "destroy"])
def test_after(kind, shell, program, tmp_path):
    """Whatever happens, LXC goes on."""
    assert call(shell, "lxc-after", program, kind, "web", "lxc", kind) == (0, "")
    assert called(program) == f"hook {kind}\n"
    program.with_name(f"{program.name}.fails").touch()
    code, err = call(shell, "lxc-after", program, kind)
    assert code == 0
    assert "failed" in err
    assert call(shell, "lxc-after", tmp_path / "gone", kind) == (0, "")


def test_after_a_reboot_nothing_is_cleaned_up(shell, program):
    assert call(shell, "lxc-after", program, "post-stop", LXC_TARGET="reboot") == (0, "")
    assert called(program) is None


def test_stop_removes_the_way_to_the_meeting_place(shell, program, tmp_path):
    link = tmp_path / "lxc-cr.resume"
    link.symlink_to("/nonexistent")
    variables = {"LXC_CONFIG_FILE": f"{tmp_path}/config"}
    assert call(shell, "lxc-after", program, "stop", "web", "lxc", "stop", **variables) == (0, "")
    assert not link.is_symlink()
    assert called(program) is None


def stanza_lines():
    text = data_file("lxc/resume.conf").read_text()
    pairs = [line.split(" = ", 1) for line in text.splitlines() if line.startswith("lxc.hook.")]
    return {key.removeprefix("lxc.hook."): line for key, line in pairs}


@pytest.mark.parametrize("kind", list(stanza_lines()))
@pytest.mark.parametrize("arguments", ["", " web lxc hook"])
def test_an_ordinary_life_needs_nothing_of_ours(kind, arguments, shell, tmp_path):
    """LXC has a shell run "exec LINE ARGUMENTS"; builtins alone decide, without a PATH."""
    line = stanza_lines()[kind]
    done = subprocess.run(
        [*shell, "-c", f"exec {line}{arguments}"],
        env={"LXC_CONFIG_FILE": f"{tmp_path}/config", "LXC_NAME": "web", "PATH": "/nonexistent"},
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def run_line(shell, kind, directory):
    """A line of the stanza as LXC runs it, with the plugin gone; the exit code."""
    line = stanza_lines()[kind].replace("/usr/share/lxc-cr/hooks", str(directory / "gone"))
    variables = {"LXC_CONFIG_FILE": f"{directory}/config", "LXC_NAME": "web"}
    return subprocess.run(
        [*shell, "-c", f"exec {line}"],
        env={"PATH": os.environ["PATH"], **variables}, capture_output=True, check=False,
    ).returncode  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("pre-start", "lxc-cr.pending"),
        ("pre-start", unfinished.NOTE),
        ("start-host", "lxc-cr.resume"),
    ],
)
def test_a_pending_start_needs_our_hooks(kind, file, shell, tmp_path):
    (tmp_path / file).symlink_to(tmp_path)
    assert run_line(shell, kind, tmp_path) == 127


def test_what_becomes_pending_during_a_start_is_for_the_next(shell, tmp_path):
    """pre-start has not seen it, so nobody waits for start-host."""
    assert run_line(shell, "pre-start", tmp_path) == 0
    (tmp_path / "lxc-cr.pending").touch()
    assert run_line(shell, "start-host", tmp_path) == 0


def test_what_an_earlier_start_has_left_stops_no_other(shell, tmp_path):
    link = tmp_path / "lxc-cr.resume"
    link.symlink_to(tmp_path / "given-up")
    assert run_line(shell, "start-host", tmp_path) != 0
    assert run_line(shell, "pre-start", tmp_path) == 0
    assert not link.is_symlink()
    assert run_line(shell, "start-host", tmp_path) == 0
