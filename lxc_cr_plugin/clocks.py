# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a restarted container is to see of the time that it was away.

With `continue` nothing: what ends after a span of time has as much left as at the checkpoint, and
CLOCK_MONOTONIC and CLOCK_BOOTTIME go on from there, in a time namespace. With `wall` all of it, as if
the machine had been suspended. The wall clock itself tells the time of the day in both.
"""

from __future__ import annotations

CONTINUE = "continue"
WALL = "wall"

# What the engine calls them: enum cr_time_policy.
POLICIES = {CONTINUE: 0, WALL: 1}
