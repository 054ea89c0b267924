# SPDX-License-Identifier: LGPL-2.1-or-later
"""Entry point of `lxc-cr` and `python -m lxc_cr_plugin`."""

from __future__ import annotations

import sys

from .cli import main as run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
