# SPDX-License-Identifier: LGPL-2.1-or-later
"""A rollback that fails, however it does, lets run what ran before."""

import io

import pytest

from lxc_cr_plugin import native
from lxc_cr_plugin.errors import HostError
from lxc_cr_plugin.journal import Journals
from lxc_cr_plugin.log import Reporter
from lxc_cr_plugin.rollback import roll_back
from lxc_cr_plugin.store import Store
from tests.unit.containers import FakeContainer
from tests.unit.images import add_image


@pytest.mark.parametrize("error", [HostError("x"), OSError(36, "File name too long")])
def test_it_returns_after_any_error(error, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "kinds", lambda: ["process", "pipe", "regular"])
    store = Store(root=tmp_path / "store", buffer=tmp_path / "buffer")
    image = add_image(store, tag="good")
    before = add_image(store, tag="before-rollback", downtime=2000)
    started = []

    def restart(wanted):
        started.append(wanted)
        if wanted is image:
            raise error

    with pytest.raises(type(error)):
        roll_back(
            FakeContainer(),
            image=image,
            journals=Journals(
                run_dir=tmp_path / "run", report=Reporter(), stop_container=lambda _: False
            ),
            end=lambda: before,
            restart=restart,
            report=Reporter(err=io.StringIO()),
        )
    assert started == [image, before]
