# SPDX-License-Identifier: LGPL-2.1-or-later
"""The contents page of a restart, with an engine that only pretends."""

import os
import stat
from pathlib import Path

import pytest

from lxc_cr_plugin import native
from lxc_cr_plugin.container import RUNNING, STOPPED
from lxc_cr_plugin.errors import ContainerError, ImageError, LxcCrError, RestartError
from lxc_cr_plugin.restore import restart
from tests.unit.bench import Bench
from tests.unit.containers import FakeContainer, FakeStart
from tests.unit.images import add_image

# Any process that lives will do: only its start time is looked up.
OUR_INIT = os.getpid()

NUMBERS = native.RestartResult(
    init_pid=OUR_INIT,
    loading=1_000_000,
    building=2_000_000,
    releasing=3,
    released=5,
    late=0,
    processes=3,
    threads=4,
    files=5,
    pages=2,
)


class RestartBench(Bench):
    """Everything that a restart needs, and a place where the engine may fail."""

    def __init__(self, directory):
        super().__init__(directory, container=FakeContainer(state=STOPPED))
        self.container.pid = OUR_INIT
        self.image = add_image(self.store)
        self.fail_at = None
        self.options = {}
        self.steps = []

    def stop(self, entry):
        ours = entry.init == OUR_INIT and self.container.state() != STOPPED
        if ours:
            self.container.events.append(("kill",))
            self.container.now = STOPPED
        return ours

    def restart(self):
        return restart(
            self.container,
            image=self.image,
            journals=self.journals(),
            run_dir=self.run_dir,
            timeout=60,
            report=self.report,
            fault="here",
        )

    def nothing_left(self):
        assert [p for p in self.run_dir.iterdir() if p.suffix != ".lock"] == []
        return True


class FakeRestart:
    """Stands in for native.Restart."""

    def __init__(self, bench, options):
        self.bench = bench
        bench.options = options
        self.step("load")

    def step(self, name):
        self.bench.steps.append(name)
        if self.bench.fail_at == name:
            raise RestartError(f"Failed at {name}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bench.steps.append("end")

    def wait_ready(self):
        self.step("ready")

    def finish(self, *, starter):
        if starter.wait() != 0:
            raise starter.failure()
        self.bench.options["seized"](OUR_INIT)
        self.step("finish")
        self.bench.options["released"]()
        return NUMBERS


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = RestartBench(tmp_path)
    monkeypatch.setattr(native, "Restart", lambda **options: FakeRestart(bench, options))
    monkeypatch.setattr(native, "kinds", lambda: ["process", "pipe", "regular"])
    return bench


def test_it_runs_again(bench):
    done = bench.restart()
    assert bench.container.state() == RUNNING
    assert bench.steps == ["load", "ready", "finish", "end"]
    assert done.numbers == NUMBERS
    assert "3 processes, 4 threads" in done.summary("web")
    assert "1.0 ms loading, 2.0 ms building" in done.summary("web")
    assert done.as_json()["init_pid"] == OUR_INIT
    assert bench.nothing_left()
    assert bench.options["cgroup_hint"] == "lxc.payload.web"
    assert bench.options["fault"] == "here"


def test_the_hook_and_the_meeting_place(bench):
    seen = {}
    start = bench.container.start

    def look(*, hook, sources, settings, keep):
        shell, script, place = hook
        seen.update(
            {path.name: path.stat().st_mode for path in (Path(place), *Path(place).iterdir())}
        )
        assert shell == "/bin/sh"
        assert os.access(script, os.X_OK)
        assert len(keep) == 1
        return start(hook=hook, sources=sources, keep=keep)

    bench.container.start = look
    bench.restart()
    assert sorted(name for name, mode in seen.items() if stat.S_ISFIFO(mode)) == [
        "reply",
        "request",
    ]
    assert all(stat.S_IMODE(mode) & 0o077 == 0 for mode in seen.values())


def test_the_command_does_not_keep_the_fifos(bench):
    """Else the hook would wait for an engine that is dead."""
    start = bench.container.start

    def look(*, hook, sources, settings, keep):
        links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.exists()]
        assert not [link for link in links if "/meet-" in link]
        return start(hook=hook, sources=sources, keep=keep)

    bench.container.start = look
    bench.restart()


@pytest.mark.parametrize("step", ["load", "ready", "finish"])
def test_an_engine_that_fails(bench, step):
    bench.fail_at = step
    with pytest.raises(RestartError, match=f"Failed at {step}"):
        bench.restart()
    assert bench.container.state() == STOPPED
    assert (("kill",) in bench.container.events) == (step == "finish")
    assert bench.nothing_left()
    assert bench.image.manifest()


def test_a_start_that_fails(bench):
    bench.container.start_code = 1
    with pytest.raises(RestartError, match="It did not start"):
        bench.restart()
    assert bench.container.state() == STOPPED
    assert bench.nothing_left()


def test_a_start_that_came_too_late(bench):
    """Somebody else started the container meanwhile: that one is not ours to stop."""

    def fails(**_):
        bench.container.now = RUNNING
        return FakeStart(code=1)

    bench.container.start = fails
    with pytest.raises(RestartError, match="It did not start"):
        bench.restart()
    assert bench.container.state() == RUNNING
    assert bench.nothing_left()


def test_lxc_has_another_init(bench):
    bench.container.pid = 1
    with pytest.raises(RestartError, match=f"the engine restored {OUR_INIT}"):
        bench.restart()
    assert bench.container.state() == STOPPED


def test_it_dies_before_it_is_confirmed(bench):
    start = bench.container.start

    def dies(**options):
        made = start(**options)
        bench.container.now = STOPPED
        return made

    bench.container.start = dies
    with pytest.raises(RestartError, match="is STOPPED afterwards"):
        bench.restart()


@pytest.mark.parametrize(
    ("container", "message"),
    [
        (FakeContainer(exists=False, state=STOPPED), "There is no container"),
        (FakeContainer(state=RUNNING), "is running"),
    ],
)
def test_containers_that_cannot(bench, container, message):
    bench.container = container
    with pytest.raises(ContainerError, match=message):
        bench.restart()
    assert bench.steps == []
    assert container.events == []


def test_an_image_that_needs_more(bench, monkeypatch):
    monkeypatch.setattr(native, "kinds", lambda: ["process"])
    with pytest.raises(ImageError, match="needs feature 'pipe'"):
        bench.restart()
    assert bench.steps == []


def test_an_image_of_another_container(bench):
    bench.container.name = "db"
    with pytest.raises(ImageError, match="of container 'web', not of 'db'"):
        bench.restart()


@pytest.mark.parametrize(
    "name", ["manifest.json", "objects.cbor", "state.cbor", "pages", "files/5"]
)
def test_a_damaged_image_touches_nothing(bench, name):
    path = bench.image.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(LxcCrError) as caught:
        bench.restart()
    assert type(caught.value) is ImageError
    assert bench.container.events == []
    assert bench.nothing_left()
