# SPDX-License-Identifier: LGPL-2.1-or-later
"""Entry point of `lxc-cr` and `python -m lxc_cr_plugin`."""

from __future__ import annotations

import os
import sys

from .cli import main as run


def main() -> None:
    """Run the command line and exit with its code."""
    code = run()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is cleaned up; taking the interpreter apart would be a tenth of a small restart.
    os._exit(code)


if __name__ == "__main__":
    main()
