# SPDX-License-Identifier: LGPL-2.1-or-later
"""The contents page of a checkpoint, with an engine that only pretends."""

import io
import os
import signal
from types import SimpleNamespace

import pytest

from lxc_cr_plugin import check, mounts, native, network
from lxc_cr_plugin.checkpoint import checkpoint, rehearse
from lxc_cr_plugin.container import FROZEN, STOPPED
from lxc_cr_plugin.errors import (
    Cancelled,
    CheckpointError,
    ContainerError,
    EngineDied,
    ImageError,
    IsolationError,
    Obstacle,
    StoreError,
    UnsupportedError,
)
from lxc_cr_plugin.freezer import Cgroups, Freezer
from lxc_cr_plugin.image import verify_pages, verify_records
from lxc_cr_plugin.log import Reporter
from lxc_cr_plugin.run import signals_cancel
from lxc_cr_plugin.store import Reference
from tests.unit.bench import Bench
from tests.unit.containers import FakeContainer
from tests.unit.images import write_files

NUMBERS = native.CheckpointResult(
    clocks=native.Clocks(1, 2, 3),
    downtime=2_000_000,
    stopping=1,
    collecting=2,
    capturing=0,
    writing=3,
    processes=3,
    threads=4,
    files=5,
    pages=2,
)


class CheckpointBench(Bench):
    """Everything that a checkpoint needs; `engine` may be replaced."""

    def __init__(self, directory):
        super().__init__(directory, container=FakeContainer())
        self.calls = []
        freezer = directory / "freezer"
        freezer.mkdir()
        (freezer / "freezer.state").write_text("THAWED")
        (freezer / "cgroup.procs").write_text("")
        self.cgroups = Cgroups(tasks=freezer, freezer=Freezer(freezer, False), memory=None)

    def engine(self, *, target, stop, commit, capture, fault, **_):
        self.calls.append((target, stop, fault))
        write_files(self.staging)
        capture()
        commit(NUMBERS)
        if stop:
            self.container.now = STOPPED
        return NUMBERS

    @property
    def staging(self):
        (path,) = self.directory.glob("*/.staging/*")
        return path

    def checkpoint(self, *, stop=False, buffered=False, files="none", tag="latest", fault=None):
        return checkpoint(
            self.container,
            reference=Reference("web", tag),
            stop=stop,
            buffered=buffered,
            files=files,
            store=self.store,
            journals=self.journals(),
            report=self.report,
            fault=fault,
        )

    def nothing_left(self):
        assert list(self.directory.glob("*/.staging/*")) == []
        assert list(self.directory.glob("run/*.json")) == []
        assert not self.cgroups.freezer.frozen()
        return True


class NoMounts:
    """In place of a MountWatch: there is no such init."""

    text = b""

    def __init__(self, pid):
        pass

    def changed(self):
        return False

    def renew(self):
        return False

    def close(self):
        pass


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = CheckpointBench(tmp_path)
    monkeypatch.setattr(check, "find_cgroups", lambda init_pid: bench.cgroups)
    monkeypatch.setattr(mounts, "MountWatch", NoMounts)
    monkeypatch.setattr(check.isolation, "obstacles", lambda **_: [])
    monkeypatch.setattr(check.mounts, "obstacles", lambda **_: [])
    monkeypatch.setattr(native, "checkpoint", lambda **options: bench.engine(**options))
    return bench


def test_it_runs_on(bench):
    done = bench.checkpoint(fault="here")
    (image,) = bench.store.images()
    assert done.image == image
    verify_records(image, image.manifest())
    verify_pages(image, image.manifest())
    assert bench.calls == [
        (native.Target(4711, str(bench.cgroups.tasks), str(bench.cgroups.tasks), False), False,
         "here"),
    ]  # fmt: skip
    assert bench.container.state() == "RUNNING"
    assert bench.nothing_left()


def test_the_manifest(bench):
    manifest = bench.checkpoint().image.manifest()
    assert manifest.clocks == {"monotonic": 1, "boottime": 2, "realtime": 3}
    assert manifest.statistics["downtime"] == 2_000_000
    assert manifest.container["config"] == "lxc.uts.name = web\n"
    assert manifest.host["page_size"] == os.sysconf("SC_PAGE_SIZE")
    assert manifest.requires == ("process", "pipe")


def test_the_summary(bench):
    done = bench.checkpoint()
    assert "web:latest: 3 processes, 4 threads, stood 2.0 ms" in done.summary(stopped=False)
    assert str(done.image.path) in done.summary(stopped=False)
    assert "ended with the checkpoint" in done.summary(stopped=True)
    assert done.as_json()["size"] > 8192 + 16


def test_it_ends(bench):
    bench.checkpoint(stop=True)
    assert bench.container.state() == STOPPED


def test_it_does_not_end(bench, monkeypatch):
    bench.engine = lambda **options: (write_files(bench.staging), options["commit"](NUMBERS))
    with pytest.raises(CheckpointError, match="The image is complete, but"):
        bench.checkpoint(stop=True)
    assert len(bench.store.images()) == 1


def test_an_engine_that_fails_after_the_commit(bench):
    def fail(**options):
        write_files(bench.staging)
        options["commit"](NUMBERS)
        raise EngineDied("The engine was killed")

    bench.engine = fail
    with pytest.raises(CheckpointError, match=r"web:latest is complete, but .* was killed"):
        bench.checkpoint(stop=True)
    assert len(bench.store.images()) == 1
    assert bench.nothing_left()


def test_the_network_is_rehearsed_last():
    """But for the leases, that are quickly forgotten; they come before it as well, when they take long."""
    seen = []

    def part(*names):
        return SimpleNamespace(
            rehearse=lambda: seen.extend(names), look_at_leases=lambda: seen.append("leases")
        )

    rehearse(part("leases", "files"), part("network"))
    assert seen == ["leases", "files", "network", "leases"]


def test_why_settings_are_read_again_is_told_to_whoever_asks(bench, monkeypatch):
    watch = SimpleNamespace(
        uncounted="no cgroups",
        obstacles=list,
        close=lambda: None,
        freeze=lambda: None,
        write=lambda _: None,
    )
    said = io.StringIO()
    bench.report = Reporter(err=said, debug=True)
    monkeypatch.setattr(network, "Watch", lambda *_: watch)
    monkeypatch.setattr(bench.container, "shares_network", lambda: False)
    bench.checkpoint()
    assert "Settings will be read again under the stop: no cgroups" in said.getvalue()


def test_buffered(bench):
    done = bench.checkpoint(buffered=True)
    assert done.image.buffered
    assert "lxc-cr flush" in done.summary(stopped=False)


@pytest.mark.parametrize(
    ("container", "message"),
    [
        (FakeContainer(exists=False), "There is no container"),
        (FakeContainer(state=STOPPED), "is not running"),
        (FakeContainer(state=FROZEN), "is frozen"),
    ],
)
def test_containers_that_cannot(bench, container, message):
    bench.container = container
    with pytest.raises(ContainerError, match=message):
        bench.checkpoint()
    assert bench.calls == []


def test_a_container_frozen_behind_lxcs_back(bench):
    (bench.cgroups.tasks / "freezer.state").write_text("FROZEN")
    with pytest.raises(ContainerError, match="is frozen"):
        bench.checkpoint()
    assert bench.cgroups.freezer.frozen()


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["isolation"], IsolationError),
        (["isolation", "unsupported"], UnsupportedError),
    ],
)
def test_no_isolation(bench, monkeypatch, kinds, expected):
    found = [Obstacle(kind, "Shared") for kind in kinds]
    monkeypatch.setattr(check.isolation, "obstacles", lambda **_: found)
    with pytest.raises(expected, match="it runs on") as caught:
        bench.checkpoint()
    assert caught.value.obstacles == tuple(found)
    assert bench.calls == []


def test_no_space(bench, monkeypatch):
    monkeypatch.setattr("lxc_cr_plugin.checkpoint.memory_use", lambda _cgroups: 1 << 60)
    with pytest.raises(StoreError, match="the image needs about"):
        bench.checkpoint()
    assert bench.calls == []


@pytest.mark.parametrize("error", [EngineDied("killed"), UnsupportedError("an inotify")])
def test_an_engine_that_fails(bench, error):
    def fail(**_):
        write_files(bench.staging)
        (bench.cgroups.tasks / "freezer.state").write_text("FROZEN")
        raise error

    bench.engine = fail
    with pytest.raises(type(error), match=str(error)):
        bench.checkpoint()
    assert bench.store.images() == []
    assert bench.nothing_left()


def test_obstacles_that_the_engine_meets(bench):
    error = UnsupportedError("2 obstacles", obstacles=(Obstacle("host", "No BTF"),))
    bench.engine = lambda **_: (_ for _ in ()).throw(error)
    with pytest.raises(UnsupportedError, match="Container 'web' cannot be checkpointed now"):
        bench.checkpoint()


def test_a_commit_that_fails(bench, monkeypatch):
    monkeypatch.setattr("lxc_cr_plugin.manifest.now", lambda: "yesterday")
    with pytest.raises(ImageError):
        bench.checkpoint()
    assert bench.store.images() == []
    assert bench.nothing_left()


def test_an_old_image_survives_a_failure(bench):
    old = bench.checkpoint().image
    bench.engine = lambda **_: (_ for _ in ()).throw(EngineDied("killed"))
    with pytest.raises(EngineDied):
        bench.checkpoint()
    assert bench.store.resolve(Reference("web")) == old


def test_cancelled_before_the_commit(bench):
    def interrupted(**options):
        os.kill(os.getpid(), signal.SIGTERM)
        options["commit"](NUMBERS)

    bench.engine = interrupted
    with pytest.raises(Cancelled), signals_cancel():
        bench.checkpoint()
    assert bench.store.images() == []
    assert bench.nothing_left()


def test_cancelled_after_the_commit_is_too_late(bench):
    def interrupted(**options):
        write_files(bench.staging)
        options["commit"](NUMBERS)
        os.kill(os.getpid(), signal.SIGTERM)
        return NUMBERS

    bench.engine = interrupted
    with signals_cancel():
        bench.checkpoint()
    assert len(bench.store.images()) == 1


def test_check_asks_the_engine_only_about_an_isolated_container(bench, monkeypatch):
    asked = []
    monkeypatch.setattr(
        native, "check", lambda **options: asked.append(options) or [Obstacle("host", "No BTF")]
    )
    subject = check.examine(bench.container)

    def look():
        return check.find_obstacles(
            bench.container,
            subject,
            scope=native.Scope(deleted_file_limit=7, drop_attached=True),
            report=bench.report,
        )

    found = look()
    assert [obstacle.message for obstacle in found] == ["No BTF"]
    monkeypatch.setattr(check.mounts, "obstacles", lambda **_: [Obstacle("unsupported", "ramfs")])
    found = look()
    assert [obstacle.message for obstacle in found] == ["ramfs", "No BTF"]
    monkeypatch.setattr(check.isolation, "obstacles", lambda **_: [Obstacle("isolation", "Shared")])
    found = look()
    assert [obstacle.message for obstacle in found] == ["Shared"]
    assert [options["scope"] for options in asked] == 2 * [native.Scope(7, drop_attached=True)]


def test_a_mount_that_is_refused_hides_no_other_obstacle(bench, monkeypatch):
    looks = []
    ramfs = [Obstacle("unsupported", "ramfs")]
    monkeypatch.setattr(check.isolation, "obstacles", lambda **_: looks.append("isolation") or [])
    monkeypatch.setattr(check.mounts, "obstacles", lambda **_: looks.append("mounts") or ramfs)
    monkeypatch.setattr(native, "check", lambda **_: [Obstacle("unsupported", "An inotify")])
    with pytest.raises(UnsupportedError) as caught:
        bench.checkpoint()
    assert [obstacle.message for obstacle in caught.value.obstacles] == ["ramfs", "An inotify"]
    assert looks == ["isolation", "mounts"], "once each"
    assert not bench.calls
