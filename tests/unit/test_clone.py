# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several clones at a time: what becomes of the commands that make one each."""

import subprocess
import sys

import pytest

from lxc_cr_plugin.commands import clone
from lxc_cr_plugin.errors import EngineDied, HostError

NAMES = ["one", "two", "three"]


class Session:
    """As far as the commands are concerned."""

    def each(self, names, work):
        for name in names:
            work(name)
        return 0


def says(code):
    """A command that runs this Python code."""
    return lambda _session, _name: [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("import os; print('{\"event\": \"lo', end='', flush=True); os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("print('{\"event\": \"log\"}'); raise SystemExit(3)", "ended with code 3"),
    ],
    ids=["silent", "half-a-line", "no-result"],
)  # fmt: skip
def test_how_a_command_has_ended(code, how, monkeypatch):
    monkeypatch.setattr(clone, "_command", says(code))
    with pytest.raises(EngineDied, match=f"makes clone 'one' {how} and has not said"):
        clone.clone_all(Session(), NAMES)


def test_a_command_that_cannot_be_executed(monkeypatch):
    """Those that run already are ended."""
    started = []
    real = subprocess.Popen

    def fails_at_last(words, **options):
        if len(started) == len(NAMES) - 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(real(words, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", fails_at_last)
    monkeypatch.setattr(clone, "_command", says("import time; time.sleep(1000)"))
    with pytest.raises(HostError, match="makes clone 'three': Resource temporarily"):
        clone.clone_all(Session(), NAMES)
    assert [command.returncode for command in started] == [-15, -15]
