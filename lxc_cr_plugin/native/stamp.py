# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the engine that lies here was built from the header that lies here.

Structures are passed by their layout: an engine that was built from another api.h would read and
give numbers that mean something else, and nothing else would notice.

build_engine.py executes this file by its path: it must import nothing of the package at that time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

HEADER = Path(__file__).with_name("api.h")


def stamp() -> str:
    """The digest of api.h as it is now."""
    return hashlib.sha256(HEADER.read_bytes()).hexdigest()


def refuse_other(built: str | None) -> None:
    """Raise HostError unless an engine with the stamp @built belongs to this header; None: it has none."""
    if built != stamp():
        raise unusable("The engine was built from other sources than those that lie here now")


def unusable(message: str) -> Exception:
    """A HostError that says how to build the engine."""
    from ..errors import HostError

    return HostError(
        message,
        hint=f"Build again: in {HEADER.parents[2]}, `.venv/bin/python setup.py build_ext --inplace "
        "--force`, or install lxc-cr again",
    )
