# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that come with the package: schemas, the default configuration, hooks."""

from __future__ import annotations

import sys
from pathlib import Path

from .errors import HostError

PACKAGE = Path(__file__).resolve().parent


def data_file(name: str) -> Path:
    """A file of config/, in a checkout or where an installation puts it; HostError if missing."""
    for directory in (PACKAGE.parent / "config", Path(sys.prefix) / "share/lxc-cr"):
        path = directory / name
        if path.exists():
            return path
    raise HostError(
        f"'{name}' of lxc-cr is missing", hint="The installation is incomplete: install again"
    )


def hook(name: str) -> Path:
    """A script of hooks/."""
    return PACKAGE / "hooks" / name
