# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the command says, to people and to machines."""

import io
import json
import signal

import pytest

from lxc_cr_plugin.errors import ImageError, Obstacle, UnsupportedError
from lxc_cr_plugin.log import INFO, ProgressBar, Reporter, human_size, human_time, printable
from lxc_cr_plugin.run import fork


class Terminal(io.StringIO):
    def isatty(self):
        return True


def spoken(**options):
    out, err = io.StringIO(), io.StringIO()
    return Reporter(out=out, err=err, **options), out, err


def test_people_get_results_on_stdout_and_the_rest_on_stderr():
    report, out, err = spoken()
    report.info("Going")
    report.debug("not shown")
    report.warning("careful")
    report.progress("writing", 1, 2)
    report.error(ImageError("Broken", hint="Throw it away"))
    report.result({"a": 1}, text="Done")
    assert out.getvalue() == "Done\n"
    assert err.getvalue() == "Going\nwarning: careful\nlxc-cr: Broken\nlxc-cr: Throw it away\n"


def test_machines_get_one_object_per_line():
    report, out, err = spoken(json_lines=True)
    report.log(INFO, "Going")
    report.progress("writing", 1, 2)
    obstacle = Obstacle("unsupported", "An inotify", pid=3)
    report.error(UnsupportedError("Cannot", obstacles=(obstacle,)))
    report.result({"command": "ls"}, text="Done")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"event": "log", "level": "info", "text": "Going"},
        {"event": "progress", "stage": "writing", "done": 1, "total": 2},
        {"event": "obstacle", "kind": "unsupported", "message": "An inotify", "pid": 3},
        {
            "event": "error",
            "class": "UnsupportedError",
            "exit_code": 4,
            "message": "Cannot",
            "obstacles": [{"kind": "unsupported", "message": "An inotify", "pid": 3}],
        },
        {"event": "result", "command": "ls"},
    ]
    assert err.getvalue() == ""


def test_people_see_every_obstacle_with_its_remedy():
    report, _out, err = spoken()
    found = (
        Obstacle("unsupported", "An inotify", hint="Close it"),
        Obstacle("isolation", "Shared memory"),
    )
    report.error(UnsupportedError("Cannot", hint="Look again", obstacles=found))
    assert err.getvalue().splitlines() == [
        "lxc-cr: Cannot",
        "- An inotify",
        "  Close it",
        "- Shared memory",
        "lxc-cr: Look again",
    ]


def test_steps_are_described_before_they_run():
    report, _out, err = spoken(debug=True)
    with report.step("outer", "Do all"):
        with report.step("inner", "Do a part"):
            report.debug("working")
    assert err.getvalue().splitlines() == ["+ Do all", "  + Do a part", "working"]


def test_a_failed_step_is_named_in_parentheses():
    report, _out, err = spoken(debug=True)
    with pytest.raises(ValueError, match="boom"), report.step("outer", "Do all"):
        raise ValueError("boom")
    assert err.getvalue().splitlines() == ["+ Do all", "(Do all)"]


def test_the_fault_of_a_step_kills():
    def work():
        report, _out, _err = spoken(fault="python:here")
        with report.step("there", "Go on"):
            pass
        with report.step("here", "Die"):
            return 0

    with fork(work) as child:
        assert child.wait() == -signal.SIGKILL


def test_progress_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    bar = ProgressBar.for_terminal(terminal)
    bar.show(stage="writing", done=1, total=2)
    bar.show(stage="too soon", done=2, total=2)
    bar.clear()
    assert terminal.getvalue() == f"\r\033[Kwriting      [{'#' * 15}{' ' * 15}]  50%\r\033[K"


def test_no_bar_without_a_terminal(monkeypatch):
    assert ProgressBar.for_terminal(io.StringIO()) is None
    monkeypatch.setenv("TERM", "dumb")
    assert ProgressBar.for_terminal(Terminal()) is None


def test_a_container_cannot_steer_the_terminal():
    assert printable("a\033[2J\udcffé") == "a\\x1b[2J\\udcffé"


def test_a_container_cannot_add_a_line():
    err = io.StringIO()
    report = Reporter(err=err, debug=True)
    name = "x\nlxc-cr: All is well"
    report.debug(f"Look at {name}")
    report.error(UnsupportedError("No", obstacles=(Obstacle("unsupported", name, hint=name),)))
    assert len(err.getvalue().splitlines()) == 4
    assert err.getvalue().count("x\\nlxc-cr: All is well") == 3


def test_units():
    assert [human_size(n) for n in (0, 1023, 1536, 5 << 20, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "3072.0 GiB",
    ]
    assert [human_time(n) for n in (850_000, 12_300_000, 1_250_000_000)] == [
        "850 µs",
        "12.3 ms",
        "1.25 s",
    ]
