# SPDX-License-Identifier: LGPL-2.1-or-later
"""Entry points of `lxc-cr` (and `python -m lxc_cr_plugin`), `lxc-checkpoint` and `lxc-restart`.

To load the rest takes longer than many a command, so control-C may come before anything else does.
"""

from __future__ import annotations

import os
import signal
import sys

from .early import interrupted

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, interrupted)


def main() -> None:
    """Run the command line and exit with its code."""
    from .cli import main as run

    code = run()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is cleaned up; taking the interpreter apart would be a tenth of a small restart.
    os._exit(code)


def checkpoint_main() -> None:
    """Entry point of `lxc-checkpoint`."""
    from .lxc_checkpoint import run

    sys.exit(run(None, restart=False))


def restart_main() -> None:
    """Entry point of `lxc-restart`."""
    from .lxc_checkpoint import run

    sys.exit(run(None, restart=True))


if __name__ == "__main__":
    main()
