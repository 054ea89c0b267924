# SPDX-License-Identifier: LGPL-2.1-or-later
"""Timers and waits in words."""

import pytest

from lxc_cr_plugin.image import Record, Records
from lxc_cr_plugin.listing import time_table

# As the engine writes them: objects, then each process with what it has, then its threads.
PROCESS = [
    Record("process", 1, {"pid": 12}),
    Record("files", 1, {"descriptors": [[5, 7, False]]}),
    Record("thread", 2, {"tid": 34}),
]


def table(*records: Record) -> list[str]:
    return time_table(Records([], {}, [*records])).splitlines()


def itimer(**timers: dict) -> Record:
    return Record("itimer", 1, timers)


def posix(**fields: object) -> Record:
    return Record("posix_timer", 1, {"timers": [{"id": 3, "clock": 1, **fields}]})


def timerfd(**fields: object) -> Record:
    return Record("timerfd", 7, fields)


def wait(**fields: object) -> Record:
    return Record("restart_block", 2, fields)


DATE = 1_700_000_000 * 10**9


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (
            itimer(real={"remaining": 1_500_000_000, "interval": 10**9}),
            ["interval timer ITIMER_REAL", "1.500 s", "1.000 s"],
        ),
        (posix(armed=True, remaining=2_000_000), ["POSIX timer 3 on CLOCK_MONOTONIC", "0.002 s"]),
        (posix(), ["POSIX timer 3 on CLOCK_MONOTONIC", "not armed"]),
        (posix(clock=-6), ["POSIX timer 3 on another's CPU time", "not armed"]),
        (posix(due=True, queued=True), ["has fired, its signal waits"]),
        (posix(due=True), ["  has fired"]),
        (
            posix(clock=0, armed=True, realtime=True, remaining=DATE),
            ["on CLOCK_REALTIME", "2023-11-14 22:13:20 UTC"],
        ),
        (
            timerfd(clock=7, remaining=10**9, ticks=2),
            ["timerfd, descriptor 5, on CLOCK_BOOTTIME", "1.000 s, 2 expirations unread"],
        ),
        (timerfd(clock=0, remaining=1, deadline=DATE), ["2023-11-14 22:13:20 UTC"]),
        (
            wait(syscall=232, timed=True, remaining=250_000_000),
            ["thread 34 waits in epoll_wait", "0.250 s"],
        ),
        (wait(syscall=0, timed=True, remaining=10**9), ["thread 34 waits in read", "1.000 s"]),
        (wait(syscall=7, timed=False), ["thread 34 waits in poll", "no end"]),
        (wait(syscall=999, timed=True, remaining=0), ["waits in a system call", "0.000 s"]),
    ],
)
def test_words(record, words):
    head, line = table(*PROCESS, record)
    assert head.split() == ["PID", "WHAT", "LEFT", "THEN", "EVERY"]
    assert line.split()[0] == "12"
    for word in words:
        assert word in line


def test_nothing_to_tell():
    nothing = [itimer(real={"remaining": 0}), wait(syscall=0), Record("posix_timer", 1, {})]
    assert table(*PROCESS, *nothing) == []


@pytest.mark.parametrize(
    "record",
    [
        itimer(real=7),
        itimer(real={"remaining": "soon"}),
        Record("posix_timer", 1, {"timers": [1, {}]}),
        posix(clock=[], armed=True, realtime=True, remaining=2**70),
        timerfd(clock={}, remaining="x", ticks="y", deadline=-1),
        wait(syscall=[], timed=3, remaining={}),
    ],
)
def test_nonsense_is_no_crash(record):
    assert isinstance(table(record), list)
