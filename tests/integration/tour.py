# SPDX-License-Identifier: LGPL-2.1-or-later
"""The victims, a few at once, through one checkpoint and one restart each: what can this kernel do?

For machines on which every command takes its time, as tests/vm has them. Runs by its name only:

    python3 -m tests.vm.run bookworm './test.sh -s tests/integration/tour.py'
"""

import time

import pytest

from .container import Victim, VictimError
from .test_kinds import (
    ALL,
    ALONE,
    AWAY_SECONDS,
    HEAVY,
    LEASE_SECONDS,
    add,
    is_hidden,
)

pytestmark = pytest.mark.usefixtures("huge_pages")

PARTS = 12


def names() -> list[str]:
    here = {name for name in ALL if not is_hidden(name)}
    return sorted(here - ALONE - HEAVY - set(LEASE_SECONDS))


def failures_of(victims: list[Victim], verb: str) -> dict[str, str]:
    """What each victim says that is not content."""
    found = {}
    for victim in victims:
        try:
            getattr(victim, verb)()
        except (VictimError, TimeoutError) as error:
            found[victim.name] = str(error)
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_tour(part, container):
    victims = [add(container, name) for name in names()[part::PARTS]]
    container.start()
    assert failures_of(victims, "ready") == {}
    container.checkpoint("--stop")
    time.sleep(AWAY_SECONDS)
    container.restart()
    assert failures_of(victims, "verify") == {}
