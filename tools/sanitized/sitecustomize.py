# SPDX-License-Identifier: LGPL-2.1-or-later
"""Python itself has the sanitizers' libraries, programs that it starts do not: gdb would not run.

Read by each Python that tools/sanitize.sh starts, and by those that are started by these.
"""

import os
import sys

LIBRARIES = os.environ["LXC_CR_SANITIZERS"]

if os.environ.get("LD_PRELOAD") == LIBRARIES:
    del os.environ["LD_PRELOAD"]
else:
    os.environ["LD_PRELOAD"] = LIBRARIES
    os.execv(sys.executable, sys.orig_argv)
