# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a command works with, in a directory: a container that is none, a store and journals."""

import io
from pathlib import Path

import pytest

from lxc_cr_plugin.journal import Journals
from lxc_cr_plugin.log import Reporter
from lxc_cr_plugin.store import Store
from tests.unit.containers import FakeContainer


class Bench:
    """Nobody may be stopped by its journals, unless stop() says otherwise."""

    def __init__(self, directory: Path, *, container: FakeContainer) -> None:
        self.directory = directory
        self.run_dir = directory / "run"
        self.container = container
        self.store = Store(root=directory / "store", buffer=directory / "buffer")
        self.report = Reporter(err=io.StringIO())

    def stop(self, entry):
        pytest.fail(f"stops {entry}")

    def journals(self):
        return Journals(run_dir=self.run_dir, report=self.report, stop_container=self.stop)
