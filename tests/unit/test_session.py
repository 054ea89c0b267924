# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is ended of a restart that has failed: the processes that it has made, nobody else; several failures."""

import argparse
import signal

import pytest

from lxc_cr_plugin import config, session
from lxc_cr_plugin.errors import Cancelled, HostError, StoreError
from lxc_cr_plugin.journal import RESTART, Entry
from lxc_cr_plugin.log import Reporter
from lxc_cr_plugin.run import fork, is_reapable, kill_process, start_time, until


def sleep():
    signal.pause()
    return 0


@pytest.fixture
def monitor():
    with fork(sleep) as child:
        yield child


@pytest.fixture
def entry(monitor, monkeypatch):
    """A journal of a restart whose init is a child of ours: nobody reaps it before we do."""
    monkeypatch.setattr(session, "END_TIMEOUT", 0.2)
    monkeypatch.setattr(session, "REAP_TIMEOUT", 0.2)
    with fork(sleep) as init:
        yield Entry(
            operation=RESTART,
            container="web",
            lxcpath="/var/lib/lxc",
            pid=1,
            started=0,
            init=init.pid,
            init_started=start_time(init.pid),
            monitor=monitor.pid,
            monitor_started=start_time(monitor.pid),
        )


def kill_init(entry):
    assert kill_process(entry.init, started=entry.init_started)
    assert until(lambda: is_reapable(entry.init, started=entry.init_started), timeout=60)


def test_each_goes_on_after_a_failure_but_not_after_a_signal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(config, "SYSTEM_FILE", tmp_path / "none.toml")
    one = session.Session(argparse.Namespace(), Reporter())

    def work(error):
        if error:
            raise error

    assert one.each([None, StoreError("a"), HostError("b")], work) == StoreError.exit_code
    assert capsys.readouterr().err == "lxc-cr: a\nlxc-cr: b\n"
    with pytest.raises(Cancelled, match="d"):
        one.each([HostError("c"), Cancelled("d"), HostError("e")], work)


def test_a_monitor_that_does_not_reap_its_init_is_ended(entry, monitor):
    kill_init(entry)
    session.end_stuck_monitor(entry)
    assert monitor.wait(timeout=60) == -signal.SIGKILL


def test_the_monitor_of_an_init_that_is_still_ending_is_left_alone(entry, monitor):
    """It may have much memory, or a child that cannot be killed just now."""
    session.end_stuck_monitor(entry)
    assert monitor.wait(timeout=0.1) is None
