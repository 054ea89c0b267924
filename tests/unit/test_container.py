# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is common to all runtimes."""

import pytest

from lxc_cr_plugin import container as module
from lxc_cr_plugin.container import FROZEN, RUNNING, STOPPED, settle
from lxc_cr_plugin.errors import ContainerError
from tests.unit.containers import FakeContainer


class Changing(FakeContainer):
    """Shows one (state, init) after the other; the last one stays."""

    def __init__(self, *history):
        super().__init__()
        self.history = list(history)

    def state(self):
        if len(self.history) > 1:
            self.history.pop(0)
        self.now, self.pid = self.history[0]
        return self.now


@pytest.mark.parametrize(
    "history",
    [
        [(STOPPED, 0)],
        [("STARTING", 7), ("ABORTING", 7), (STOPPED, 0)],
        [(RUNNING, 7), (RUNNING, 7), ("STOPPING", 7), (STOPPED, 0)],
        [(RUNNING, 7), ("STOPPING", 7), ("STARTING", 8), (RUNNING, 8)],
        [(FROZEN, 8)],
    ],
)
def test_settle(history):
    container = Changing((None, 0), *history)
    settle(container, ended=7)
    assert container.history == history[-1:]


def test_a_container_that_does_not_settle(monkeypatch):
    monkeypatch.setattr(module, "SETTLE_TIMEOUT", 0.02)
    with pytest.raises(ContainerError, match="still RUNNING"):
        settle(Changing((RUNNING, 7)), ended=7)
