# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is left, at a restart, of the time after which a lease that is being broken ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .errors import UsageError

if TYPE_CHECKING:
    from .image import Records
    from .store import Image

# What the engine calls them: enum cr_lease_policy.
POLICIES = {"remaining": 0, "holder": 1, "breaker": 2}

CHOICES = "remaining, holder, breaker or +SECONDS"
LONGEST = 10 * 365 * 86400


class LeasePolicy(NamedTuple):
    """Whom a restart favours; @extra, nanoseconds, comes to what was left.

    @choices are for single leases, by their open file description.

    "remaining" is what was left, "holder" at least what a new break would give, "breaker" nothing.
    """

    name: str = "remaining"
    extra: int = 0
    choices: tuple[tuple[int, LeasePolicy], ...] = ()

    @property
    def number(self) -> int:
        """The policy as the engine knows it."""
        return POLICIES[self.name]

    @classmethod
    def parse(cls, text: str) -> LeasePolicy:
        """The value of --lease; raises UsageError."""
        if text in POLICIES:
            return cls(text)
        try:
            seconds = float(text[1:]) if text.startswith("+") else math.nan
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= LONGEST:
            raise UsageError(f"'{text}' is no policy for leases", hint=f"Write {CHOICES}")
        return cls(extra=round(seconds * 1e9))

    def choosing(self, choices: Sequence[LeaseChoice], image: Image) -> LeasePolicy:
        """The same, with @choices for leases of @image; UsageError when one of them is not there."""
        if not choices:
            return self
        from .image import read_records

        return self._replace(choices=choices_by_object(choices, read_records(image.path)))


REMAINING = LeasePolicy()


class LeaseChoice(NamedTuple):
    """A policy for the leases of one file: --lease-of OBJECT=WHOM.

    @wanted is the number of an open file description, as `lxc-cr inspect` shows it, or a path in the
    container.
    """

    wanted: str
    policy: LeasePolicy

    @classmethod
    def parse(cls, text: str) -> LeaseChoice:
        """The value of --lease-of; raises UsageError."""
        wanted, equals, policy = text.rpartition("=")
        if not wanted or not equals:
            raise UsageError(f"'{text}' is no OBJECT=WHOM", hint=f"WHOM is {CHOICES}")
        return cls(wanted, LeasePolicy.parse(policy))


def choices_by_object(
    choices: Sequence[LeaseChoice], records: Records
) -> tuple[tuple[int, LeasePolicy], ...]:
    """What is wanted for which open file description of an image.

    Raises UsageError for what has no lease that is being broken, or is wanted twice.
    """
    breaking = {
        record.fields.get("object")
        for record in records.state
        if record.kind == "lease"
        and (record.fields.get("downgrade") or record.fields.get("unlock"))
    }
    paths = {item.get("id"): item.get("path") for item in records.objects}
    found: dict[int, LeasePolicy] = {}
    for choice in choices:
        meant = [
            number
            for number in breaking
            if isinstance(number, int) and choice.wanted in (str(number), paths.get(number))
        ]
        if not meant:
            raise UsageError(
                f"'{choice.wanted}' has no lease in the image that is being broken",
                hint="`lxc-cr inspect` shows the leases with their objects and paths",
            )
        if any(number in found for number in meant):
            raise UsageError(f"The lease on '{choice.wanted}' is chosen for twice")
        found |= dict.fromkeys(meant, choice.policy)
    return tuple(sorted(found.items()))
