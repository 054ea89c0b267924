# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is left, at a restart, of the time after which a lease that is being broken ends."""

from __future__ import annotations

import math
from typing import NamedTuple

from .errors import UsageError

# What the engine calls them: enum cr_lease_policy.
POLICIES = {"remaining": 0, "holder": 1, "breaker": 2}

CHOICES = "remaining, holder, breaker or +SECONDS"
LONGEST = 10 * 365 * 86400


class LeasePolicy(NamedTuple):
    """Whom a restart favours; @extra, nanoseconds, comes to what was left.

    "remaining" is what was left, "holder" at least what a new break would give, "breaker" nothing.
    """

    name: str = "remaining"
    extra: int = 0

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


REMAINING = LeasePolicy()
