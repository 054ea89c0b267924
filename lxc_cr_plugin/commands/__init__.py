# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands of lxc-cr, a file each: HELP, add_arguments() and run(), perhaps ALIASES.

What a command works with is a Session; what is heavy is imported when the command runs.
"""

from __future__ import annotations

import argparse

# In the order of the help text. A module whose name would be a keyword has an underscore behind it.
NAMES = (
    "checkpoint",
    "restart",
    "rollback",
    "clone",
    "check",
    "pending",
    "repair",
    "ls",
    "inspect",
    "diff",
    "verify",
    "prune",
    "export",
    "import_",
    "rm",
    "flush",
    "shutdown",
    "stanza",
    "hook",
)


def replacement(text: str) -> tuple[str, str]:
    """OLD=NEW on the command line."""
    old, equals, new = text.partition("=")
    if not old or not equals or not new:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form WHICH=NEW")
    return old, new


def not_negative(text: str) -> int:
    """A count on the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number")
    return int(text)
