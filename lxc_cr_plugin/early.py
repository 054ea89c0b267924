# SPDX-License-Identifier: LGPL-2.1-or-later
"""Control-C before a command has begun: there is nothing to undo, and nothing loaded to say so with."""

from __future__ import annotations

import os
import signal
import sys

# As that of errors.Cancelled: 128 + SIGINT.
EXIT_CODE = 130


def interrupted(number: int, _frame: object) -> None:
    """The handler until run.signals_cancel() puts its own in place: say it, and end."""
    text = f"Interrupted by {signal.Signals(number).name}"
    if "--json" in sys.argv:
        event = f'{{"event": "error", "class": "Cancelled", "exit_code": {EXIT_CODE}, "message": "{text}"}}'
        tell(1, event)
    else:
        tell(2, f"lxc-cr: {text}")
    os._exit(EXIT_CODE)


def tell(fd: int, text: str) -> None:
    """Write a line, if somebody takes it."""
    try:
        os.write(fd, text.encode() + b"\n")
    except OSError:
        return
