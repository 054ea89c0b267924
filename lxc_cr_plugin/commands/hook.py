# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr hook TYPE`: what the scripts of hooks/ call when there is something to do."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import UsageError
from ..session import Session

HELP = "For the hooks of LXC that `lxc-cr stanza` writes; not to be called by hand."

TYPES = ("pre-start", "post-stop", "clone", "destroy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("type", choices=TYPES, help="which hook; LXC's environment says the rest")


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    directory = container_directory()
    session = session.of(name=directory.name, lxcpath=str(directory.parent))
    if session.arguments.type == "pre-start":
        from ..resume import before_start

        return before_start(session, directory)
    from ..aftermath import after_clone, after_destroy, after_stop

    actions = {"post-stop": after_stop, "clone": after_clone, "destroy": after_destroy}
    actions[session.arguments.type](session, directory)
    return 0


def container_directory() -> Path:
    """Where the container lives, from the variables that LXC sets; raises UsageError."""
    name = os.environ.get("LXC_NAME", "")
    config = os.environ.get("LXC_CONFIG_FILE", "")
    directory = Path(config).parent
    if not name or directory.name != name or not directory.is_absolute():
        raise UsageError(
            f"LXC_NAME is '{name}' and LXC_CONFIG_FILE '{config}': these are no variables of a hook",
            hint="The container must be configured by the file LXCPATH/NAME/config",
        )
    return directory
