# SPDX-License-Identifier: LGPL-2.1-or-later
"""Leases that are being broken: the time that is left to them is the user's choice."""

from pathlib import Path

import pytest

from .container import Container, wait_until

LEASE_BREAK_TIME = Path("/proc/sys/fs/lease-break-time")
WHOLE = 40 * 10**9

READ = 0  # F_RDLCK

# Of a machine that does a lot besides; the time a restart takes comes to it.
TOLERANCE = 5 * 10**9


@pytest.fixture(autouse=True)
def _whole():
    """Time enough for two checkpoints; put back."""
    before = LEASE_BREAK_TIME.read_text()
    LEASE_BREAK_TIME.write_text(str(WHOLE // 10**9))
    yield
    assert int(LEASE_BREAK_TIME.read_text()) == WHOLE // 10**9
    LEASE_BREAK_TIME.write_text(before)


@pytest.fixture
def broken(container: Container) -> Container:
    victim = container.add_victim("lease_break")
    container.start()
    victim.ready()
    return container


def leases(container: Container) -> dict[tuple[int, int], dict]:
    """The leases of the last checkpoint, by process and descriptor."""
    image = container.try_cr("inspect", container.name).result
    found = [record["fields"] for record in image["state"] if record["kind"] == "lease"]
    return {(lease["pid"], lease["fd"]): lease for lease in found}


def left(lease: dict) -> int:
    return lease["unlock_remaining"] if lease["unlock"] else lease["downgrade_remaining"]


def restart(container: Container, *policy: str) -> tuple[dict, dict]:
    """Leases before and right after a restart."""
    container.checkpoint("--stop")
    before = leases(container)
    assert container.try_cr("restart", container.name, *policy).code == 0
    container.checkpoint()
    return before, leases(container)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ([], lambda ns: ns),
        (["--lease", "remaining"], lambda ns: ns),
        (["--lease", "holder"], lambda _: WHOLE),
        (["--lease", "+100.5"], lambda ns: ns + 100_500_000_000),
    ],
    ids=["default", "remaining", "holder", "more"],
)
def test_time_that_is_left(broken, policy, expected):
    before, after = restart(broken, *policy)
    assert len(before) == 12
    assert before.keys() == after.keys()
    for place, lease in before.items():
        assert 0 < left(lease) <= WHOLE
        assert after[place]["type"] == lease["type"]
        assert after[place]["downgrade"] == lease["downgrade"]
        assert after[place]["unlock"] == lease["unlock"]
        assert expected(left(lease)) - TOLERANCE < left(after[place]) <= expected(left(lease))


def test_nothing_left_for_the_holder(broken):
    truncated = broken.rootfs / "status" / "lease_break.o_trunc"
    broken.checkpoint("--stop")
    assert truncated.stat().st_size > 0
    broken.restart("--lease", "breaker")
    wait_until(lambda: truncated.stat().st_size == 0, what="the breaker")
    # What the kernel has taken down by force nobody could take so, but a restart gives it back.
    before, after = restart(broken)
    down = [lease for lease in before.values() if not lease["downgrade"] and not lease["unlock"]]
    # Two of them on what is open for writing.
    assert [lease["type"] for lease in down] == [READ, READ, READ]
    assert before.keys() == after.keys()
    assert all(after[place]["type"] == before[place]["type"] for place in before)


def test_a_policy_that_is_none(broken):
    outcome = broken.try_cr("restart", broken.name, "--lease", "nobody")
    assert outcome.code == 2
    assert "remaining, holder, breaker or +SECONDS" in outcome.text


def test_time_of_one_lease(broken):
    """By its object and by its path; what has no lease is an error before anything starts."""
    broken.checkpoint("--stop")
    before = leases(broken)
    chosen, other = sorted(before)[:2]
    objects = broken.cr("inspect", broken.name).result["objects"]
    path = next(item["path"] for item in objects if item["id"] == before[other]["object"])
    for wrong in ("/etc/passwd=holder", f"{before[chosen]['object']}=nobody"):
        outcome = broken.try_cr("restart", broken.name, "--lease-of", wrong)
        assert outcome.code == 2
        assert broken.state == "STOPPED"
    broken.restart(
        *("--lease-of", f"{before[chosen]['object']}=+100"),
        *("--lease-of", f"{path}=+200"),
    )
    broken.checkpoint()
    after = leases(broken)
    more = {chosen: 100 * 10**9, other: 200 * 10**9}
    for place, lease in before.items():
        expected = left(lease) + more.get(place, 0)
        assert expected - TOLERANCE < left(after[place]) <= expected
