# SPDX-License-Identifier: LGPL-2.1-or-later
"""Locks and leases in words, and the policy for leases that are being broken."""

import pytest

from lxc_cr_plugin.errors import UsageError
from lxc_cr_plugin.image import Record, Records
from lxc_cr_plugin.lease import LeaseChoice, LeasePolicy, choices_by_object
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
            (lock(sort=2, end=2**63 - 1), "flock exclusive lock, whole file"),
            (lock(start=7, end=7), "POSIX write lock, byte 7"),
            (lease(type=0), "read lease"),
            (
                lease(downgrade=True, downgrade_remaining=1_250_000_000),
                "write lease, being broken for a reader, 1.250 s left",
            ),
            (
                lease(unlock=True, unlock_remaining=10**9, waiters=[{"tid": 8}, {"tid": 9}]),
                "write lease, being broken for a writer, 1.000 s left, "
                "threads 8, 9 waiting for it to be given back",
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
        assert head.split() == ["PID", "FD", "OBJECT", "WHAT", "PATH"]
        assert line.split(maxsplit=3)[:3] == ["3", "4", "7"]
        assert f"  {words}  " in line
        assert line.endswith("/srv/db")

    def test_waiters_are_numbered(self):
        waiters = [{"sort": 1, "pid": 3, "tid": tid, "fd": 4} for tid in (9, 8)]
        # The table of process 3, whose record is the one before.
        records = [("process", {"pid": 3}), *(("lock_waiter", fields) for fields in waiters)]
        state = [Record(kind, number, fields) for number, (kind, fields) in enumerate(records)]
        state.append(Record("files", 0, {"descriptors": [[4, 7, 0]]}))
        text = lock_table(Records(OBJECTS, {}, state))
        assert "thread 9 waits for a lock (OFD), number 1 of 2 for this file" in text
        assert "thread 8 waits for a lock (OFD), number 2 of 2 for this file" in text
        assert text.count("/srv/db") == 2

    def test_what_only_a_mapping_keeps(self):
        assert " mapped " in table(lock(fd=-1, end=2**63 - 1))
        assert " mapped " in table(lease(mapped=True))

    def test_somebody_outside(self):
        fields = {"sort": 2, "type": 0, "start": 0, "end": 2**63 - 1, "host_pid": 99}
        text = table(("outside_lock", {**fields, "comm": "rsync", "what": "descriptor 3"}))
        assert "flock shared lock, whole file, of process 99 of the host (rsync), ignored" in text

    def test_nothing(self):
        assert table() == ""

    def test_nonsense(self):
        """An image may say anything."""
        assert "? ? lock" in table(("lock", {"sort": 9, "type": "x", "object": [7]}))
        assert "? lease" in table(("lease", {"unlock": True, "unlock_remaining": "soon"}))
        assert "thread ? waiting" in table(lease(waiters=[None]))


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


class TestChoices:
    BREAKING = lease(unlock=True, unlock_remaining=1)

    def chosen(self, *texts: str, records=(BREAKING,)):
        state = [Record(kind, number, fields) for number, (kind, fields) in enumerate(records)]
        choices = [LeaseChoice.parse(text) for text in texts]
        return choices_by_object(choices, Records(OBJECTS, {}, state))

    @pytest.mark.parametrize("object_", ["7", "/srv/db"])
    def test_by_number_or_path(self, object_):
        assert self.chosen(f"{object_}=+2") == ((7, LeasePolicy(extra=2_000_000_000)),)

    def test_none(self):
        assert self.chosen() == ()

    @pytest.mark.parametrize("text", ["", "7", "=holder", "7=", "7=nobody"])
    def test_nonsense(self, text):
        with pytest.raises(UsageError):
            LeaseChoice.parse(text)

    @pytest.mark.parametrize("object_", ["8", "/srv/other", "srv/db"])
    def test_what_has_no_lease(self, object_):
        with pytest.raises(UsageError, match="no lease in the image"):
            self.chosen(f"{object_}=holder")

    def test_a_lease_that_nobody_breaks(self):
        with pytest.raises(UsageError, match="no lease in the image"):
            self.chosen("7=holder", records=(lease(),))

    def test_twice(self):
        with pytest.raises(UsageError, match="twice"):
            self.chosen("7=holder", "/srv/db=breaker")
