# SPDX-License-Identifier: LGPL-2.1-or-later
"""A container over a reboot of its host: python -m tests.vm.boot_cycle bookworm

Debian's LXC and systemd, the units and the stanza as lxc-cr prints them, nothing called by hand: the
shutdown saves the container, the boot starts it, and it counts on from the number in its memory.
"""

import argparse
import sys

from .machine import SUITES, Machine, boot

NAME = "lxc-cr-demo"  # the demonstration's: its look at the numbers is used
PATIENCE = 300

SET_UP = f"""set -e
echo USE_LXC_BRIDGE=false >/etc/default/lxc-net
.venv/bin/lxc-cr stanza >/etc/lxc/lxc-cr.conf
.venv/bin/lxc-cr stanza --systemd >/etc/systemd/system/lxc-cr.service
systemctl enable --now lxc-cr.service lxc.service
cat >/root/lxc.conf <<END
lxc.net.0.type = empty
lxc.apparmor.profile = unconfined
lxc.start.auto = 1
lxc.include = /etc/lxc/lxc-cr.conf
END
lxc-create -n {NAME} -f /root/lxc.conf -t busybox >/dev/null
cd /var/lib/lxc/{NAME}
echo 'at_shutdown = "checkpoint"' >lxc-cr.toml
gcc -O2 -static -pthread $OLDPWD/demo/counter.c -o rootfs/bin/counter
printf '#!/bin/sh\\n/bin/mount -a\\n/bin/counter /progress </dev/null >/dev/null 2>&1 &\\n' >rootfs/etc/init.d/rcS
lxc-start -n {NAME}
"""

COUNTED = f"wc -l </var/lib/lxc/{NAME}/rootfs/progress"

# After a boot: it runs, has counted on, and in all the file no number is lost or told twice.
LOOK = f"""set -e
lxc-wait -n {NAME} -s RUNNING -t 120
exec .venv/bin/python -c '
from pathlib import Path
from demo.demo import Demo
demo = Demo(path=Path("/var/lib"), keep=True)
demo.wait_for_progress()
demo.check_numbers(after=%d)
'
"""

WHY = f"""journalctl -b -u lxc -u lxc-cr --no-pager | tail -30
cat /var/lib/lxc/{NAME}/lxc-cr.log; tail /var/log/lxc/{NAME}.log; .venv/bin/lxc-cr ls {NAME}"""


def run(machine: Machine, command: str) -> str:
    """Its output; with what the machine has to say when it fails."""
    done = machine.run(command, timeout=PATIENCE, capture_output=True, text=True)
    if done.returncode != 0:
        why = machine.run(WHY, timeout=PATIENCE, capture_output=True, text=True)
        sys.exit(f"{command}\n{done.stdout}{done.stderr}\n{why.stdout}{why.stderr}")
    return done.stdout.strip()


def main() -> int:
    """Twice, for what was resumed must be saved as well as what was started."""
    parser = argparse.ArgumentParser(
        prog="tests.vm.boot_cycle", description=__doc__.splitlines()[0]
    )
    parser.add_argument("suite", choices=SUITES)
    with boot(parser.parse_args().suite) as machine:
        run(machine, SET_UP)
        for number in ("first", "second"):
            counted = int(run(machine, COUNTED))
            print(f"{counted} lines; {number} reboot", flush=True)
            machine.reboot()
            print(run(machine, LOOK % counted), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
