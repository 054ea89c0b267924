# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr stanza`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ..errors import HostError
from ..session import Session

HELP = "Print the lines for LXC by which containers resume at their start, or a unit for systemd."

# The places in the files of config/ as they lie there.
HOOKS, PROGRAM, BUFFER = "/usr/share/lxc-cr/hooks", "/usr/bin/lxc-cr", "/dev/shm/lxc-cr"

UNITS = {"shutdown": "systemd/lxc-cr.service", "boot": "systemd/lxc-cr-repair.service"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--systemd",
        metavar="UNIT",
        nargs="?",
        choices=sorted(UNITS),
        const="shutdown",
        help="print a unit: shutdown, which saves containers (the default), or boot, which finishes "
        "what a power cut has cut off",
    )


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from ..resources import data_file, hook

    text = data_file(UNITS.get(session.arguments.systemd, "lxc/resume.conf")).read_text()
    places = {
        PROGRAM: program(),
        HOOKS: hook("lxc-pre-start").parent,
        BUFFER: session.settings.buffer_dir,
    }
    for there, here in places.items():
        text = text.replace(there, shlex.quote(str(here)))
    session.report.result({"command": "stanza", "text": text}, text=text.rstrip("\n"))
    return 0


def program() -> Path:
    """The program lxc-cr of this installation; raises HostError."""
    path = Path(sys.executable).with_name("lxc-cr")
    for found in (Path(sys.argv[0]).absolute(), path):
        if found.name == "lxc-cr" and found.exists():
            return found
    raise HostError("The program lxc-cr was not found", hint="Call it by its name")
