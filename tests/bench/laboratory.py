# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where containers to be measured are made."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.container import Laboratory


@contextmanager
def new_laboratory(prefix: str) -> Iterator[Laboratory]:
    """A prepared one, whose containers' names begin with @prefix; nothing of it stays."""
    with tempfile.TemporaryDirectory(prefix="lxc-cr-bench-") as path:
        made = Laboratory(path=Path(path), session=f"{prefix}{os.getpid()}")
        made.prepare()
        try:
            yield made
        finally:
            made.remove()
