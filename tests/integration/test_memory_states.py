# SPDX-License-Identifier: LGPL-2.1-or-later
"""States of memory that only a host can bring about which swaps or merges pages."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .container import Container, Victim, run
from .settings import HUGE_PAGES_PAUSE, MAKES_HUGE, MERGING, MERGING_SETTINGS, kept
from .test_kinds import stop_and_restart

SWAPS = Path("/proc/swaps")


@pytest.fixture(scope="module")
def swap(laboratory):
    """Some swap space more, for a while."""
    file = laboratory.path / "swap"
    with file.open("wb") as made:
        os.posix_fallocate(made.fileno(), 0, 64 << 20)
    file.chmod(0o600)
    run("mkswap", file)
    try:
        run("swapon", file)
    except AssertionError as error:
        pytest.skip(f"this machine cannot swap to a file of {laboratory.path}: {error}")
    yield
    run("swapoff", file)
    file.unlink()


@pytest.fixture(scope="module")
def merging():
    """The kernel looks for equal pages, faster than it would by itself."""
    if not MERGING.exists():
        pytest.skip("this kernel does not merge pages")
    with kept(*MERGING_SETTINGS):
        for file, value in zip(MERGING_SETTINGS, ("5000", "10", "1"), strict=True):
            file.write_text(value)
        yield


@contextlib.contextmanager
def huge_pages(when: str) -> Iterator[None]:
    """The kernel makes transparent huge pages at the first touch, and never later on."""
    if not MAKES_HUGE.exists():
        pytest.skip("this kernel has no transparent huge pages")
    with kept(HUGE_PAGES_PAUSE, MAKES_HUGE):
        HUGE_PAGES_PAUSE.write_text(str(3_600_000))
        MAKES_HUGE.write_text(when)
        yield


@pytest.fixture(scope="module")
def always_huge():
    with huge_pages("always"):
        yield


@pytest.fixture(scope="module")
def advised_huge():
    with huge_pages("madvise"):
        yield


# id of the test: victim and fixture
STATES = {
    "swapped": ("swapped", "swap"),
    "merged": ("merged", "merging"),
    "huge_pages-always": ("huge_pages", "always_huge"),
    "huge_pages-advised": ("huge_pages", "advised_huge"),
}


@pytest.mark.parametrize(
    ("name", "host"),
    [
        pytest.param(name, host, marks=pytest.mark.support(name, "works"), id=which)
        for which, (name, host) in STATES.items()
    ],
)
class TestStateOfTheHost:
    @pytest.fixture
    def victim(self, name, host, request, container: Container) -> Victim:
        request.getfixturevalue(host)
        victim = container.add_victim(name)
        container.start()
        victim.ready()
        return victim

    def test_runs_on_after_a_checkpoint(self, name, host, container, victim):
        container.checkpoint()
        victim.verify()

    def test_runs_on_after_a_restart(self, name, host, container, victim):
        stop_and_restart(container)
        victim.verify()

    def test_runs_on_after_a_restart_of_a_restart(self, name, host, container, victim):
        stop_and_restart(container)
        stop_and_restart(container)
        victim.verify()


@pytest.mark.usefixtures("advised_huge")
def test_large_memory_is_not_cleared_first(container):
    """What userfaultfd(2) cannot fill is written, so that nobody would notice."""
    victim = container.add_victim("huge_pages")
    container.start()
    victim.ready()
    container.checkpoint("--stop")
    outcome = container.restart("--debug")
    assert any("make a userfaultfd" in line.lower() for line in outcome.log)
    assert not [line for line in outcome.log if "are written:" in line or "No userfaultfd" in line]
    victim.verify()
