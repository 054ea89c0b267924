# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run a shell command in a virtual machine: python -m tests.vm.run bookworm [COMMAND]

The command runs as root in a copy of this checkout, with everything installed that ./test.sh
installs. Its output and its exit status are those of this program; 124 if it took too long.
"""

import argparse
import contextlib
import shlex
import subprocess
import sys
import time

from .machine import PROCESSORS, SUITES, boot

TOO_LONG = 124  # as timeout(1)


def main() -> int:
    """Boot, run, power off."""
    parser = argparse.ArgumentParser(prog="tests.vm.run", description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=SUITES, help="the Debian whose kernel and LXC are used")
    parser.add_argument("command", nargs="?", default="uname -r", help="of a shell; uname -r")
    parser.add_argument("--timeout", type=float, default=3600, help="of the command, in seconds")
    parser.add_argument("--hold", action="store_true", help="keep the machine until this is killed")
    parser.add_argument("--accelerator", choices=PROCESSORS, default="tcg", help="of QEMU: tcg")
    arguments = parser.parse_args()
    with boot(arguments.suite, accelerator=arguments.accelerator) as machine:
        try:
            code = machine.run(arguments.command, timeout=arguments.timeout).returncode
        except subprocess.TimeoutExpired:
            print(f"not done after {arguments.timeout} s: {arguments.command}", file=sys.stderr)
            code = TOO_LONG
        if arguments.hold:
            print(shlex.join(machine.ssh("")[:-1]), flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                while machine.process.poll() is None:
                    time.sleep(1)
    return code


if __name__ == "__main__":
    sys.exit(main())
