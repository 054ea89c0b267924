# SPDX-License-Identifier: LGPL-2.1-or-later
"""Locks and leases in words, and the policy for leases that are being broken."""

import pytest

from lxc_cr_plugin.errors import UsageError
from lxc_cr_plugin.image import Record, Records
from lxc_cr_plugin.lease import LeasePolicy
from lxc_cr_plugin.listing import lock_table

OBJECTS = [{"id": 7, "path": "/srv/db"}]


def table(*records: tuple[str, dict]) -> str:
    state = [Record(kind, number, fields) for number, (kind, fields) in enumerate(records)]
    return lock_table(Records(OBJECTS, {}, state))


def lock(**fields) -> tuple[str, dict]:
    return "lock", {"sort": 0, "type": 1, "start": 0, "pid": 3, "fd": 4, "object": 7, **fields}


def lease(**fields) -> tuple[str, dict]:
    return "lease", {"type": 1, "pid": 3, "fd": 4, "object": 7, **fields}


class TestTable:
    @pytest.mark.parametrize(
        ("record", "words"),
        [
            (lock(end=19), "POSIX write lock, bytes 0 to 19"),
            (lock(sort=1, type=0, start=5, end=2**63 - 1), "OFD read lock, bytes 5 to the end"),
            (lock(sort=2, end=2**63 - 1), "flock write lock, whole file"),
            (lease(type=0), "read lease"),
            (
                lease(downgrade=True, downgrade_remaining=1_250_000_000),
                "write lease, being broken for a reader, 1.250 s left",
            ),
            (
                lease(
                    downgrade=True,
                    downgrade_remaining=300_000_000,
                    unlock=True,
                    unlock_remaining=2_000_000_000,
                ),
                "write lease, being broken for a reader, 0.300 s left, "
                "being broken for a writer, 2.000 s left",
            ),
        ],
    )
    def test_words(self, record, words):
        head, line = table(record).splitlines()
        assert head.split() == ["PID", "FD", "WHAT", "PATH"]
        assert line.split(maxsplit=2)[:2] == ["3", "4"]
        assert f"  {words}  " in line
        assert line.endswith("/srv/db")

    def test_waiters_are_numbered(self):
        waiters = [{"sort": 1, "pid": 3, "tid": tid, "fd": 4} for tid in (9, 8)]
        text = table(*(("lock_waiter", fields) for fields in waiters))
        assert "thread 9 waits for a OFD lock, number 1 of all that wait" in text
        assert "thread 8 waits for a OFD lock, number 2 of all that wait" in text

    def test_nothing(self):
        assert table() == ""

    def test_nonsense(self):
        """An image may say anything."""
        assert "? ? lock" in table(("lock", {"sort": 9, "type": "x", "object": [7]}))
        assert "? lease" in table(("lease", {"unlock": True, "unlock_remaining": "soon"}))


class TestPolicy:
    @pytest.mark.parametrize(
        ("text", "number", "extra"),
        [
            ("remaining", 0, 0),
            ("holder", 1, 0),
            ("breaker", 2, 0),
            ("+3", 0, 3_000_000_000),
            ("+0.25", 0, 250_000_000),
        ],
    )
    def test_parse(self, text, number, extra):
        policy = LeasePolicy.parse(text)
        assert (policy.number, policy.extra) == (number, extra)

    @pytest.mark.parametrize(
        "text", ["", "nobody", "3", "+", "+x", "+-1", "+nan", "+inf", "+1e300"]
    )
    def test_refuse(self, text):
        with pytest.raises(UsageError, match="no policy for leases"):
            LeasePolicy.parse(text)
