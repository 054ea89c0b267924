# SPDX-License-Identifier: LGPL-2.1-or-later
"""Places between two steps at which a test lets everything end, as a power cut would."""

from __future__ import annotations

import os
import signal

FAULT_VARIABLE = "LXC_CR_FAULT"


def point(name: str) -> None:
    """Stand still here, to be killed, if the test hook says "files:@name"."""
    if os.environ.get(FAULT_VARIABLE) == f"files:{name}":
        os.kill(os.getpid(), signal.SIGSTOP)
