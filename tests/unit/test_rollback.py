# SPDX-License-Identifier: LGPL-2.1-or-later
"""A rollback that fails, however it does, lets run what ran before."""

import io

import pytest

from lxc_cr_plugin import native, pending, resume, snapshot
from lxc_cr_plugin.config import FRESH, Settings
from lxc_cr_plugin.container import STOPPED
from lxc_cr_plugin.errors import Cancelled, HostError
from lxc_cr_plugin.journal import Journals
from lxc_cr_plugin.log import Reporter
from lxc_cr_plugin.rollback import finish, roll_back
from lxc_cr_plugin.store import Image, Store
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


def interrupt(*_arguments):
    raise Cancelled("Interrupted by SIGINT")


@pytest.mark.parametrize("step", ["resolve", "restart"])
def test_a_signal_leaves_it_to_the_next_command(step, tmp_path):
    """It is no failure: the container is still to be started, by whoever comes next."""
    store = Store(root=tmp_path / "store", buffer=tmp_path / "buffer")
    image = add_image(store)
    container = FakeContainer(state=STOPPED)
    container.directory = tmp_path / "web"
    container.directory.mkdir()
    pending.set_pending(container.directory, image, rollback=True)
    steps = {"resolve": store.resolve, "restart": lambda _: None, step: interrupt}
    journals = Journals(run_dir=tmp_path / "run", report=Reporter(), stop_container=lambda _: False)
    with pytest.raises(Cancelled):
        finish(container, journals=journals, report=Reporter(), **steps)
    assert pending.read(container.directory).rollback


def test_a_signal_while_the_place_of_the_previous_files_is_looked_for(monkeypatch):
    monkeypatch.setattr(snapshot, "backend_for", interrupt)
    with pytest.raises(Cancelled):
        snapshot.kept_beside("dir:/nonexistent")


def test_a_signal_is_no_failure_that_lets_a_container_start_afresh(tmp_path, monkeypatch):
    class Session:
        report = Reporter(err=io.StringIO())

        def policy_of(self, _directory):
            return Settings(on_failure=FRESH)

    container = FakeContainer()
    container.directory = tmp_path
    pending.set_pending(tmp_path, Image("web", "ab" * 32, None, False))
    supervisor = resume.Supervisor(Session(), container=container, word=-1)
    monkeypatch.setattr(supervisor, "_restart", interrupt)
    monkeypatch.setattr(supervisor, "_start_afresh", lambda: pending.clear(tmp_path))
    assert supervisor.run() == Cancelled.exit_code
    assert pending.pending(tmp_path) is not None
