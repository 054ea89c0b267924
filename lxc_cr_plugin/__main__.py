# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where `lxc-cr` (and `python -m lxc_cr_plugin`), `lxc-checkpoint` and `lxc-restart` begin.

To load the rest takes longer than many a command, so control-C may come before anything else does.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from .early import interrupted

if TYPE_CHECKING:
    from typing import NoReturn

if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, interrupted)


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    from .cli import main as run

    code = run()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is cleaned up; taking the interpreter apart would be a tenth of a small restart.
    os._exit(code)


def called() -> NoReturn:
    """The command by whose name the program was called."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119
    if name not in ("lxc-checkpoint", "lxc-restart"):
        main()
    from .lxc_checkpoint import run

    sys.exit(run(None, restart=name == "lxc-restart"))


if __name__ == "__main__":
    main()
