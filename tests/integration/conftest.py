# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures of the integration tests: containers that leave nothing behind."""

import contextlib
import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from ..trees import build
from .container import LXC_CR, Container, Laboratory, Victim, run, wait_until
from .container import container as make_container
from .debian import make_debian
from .filesystems import loop_filesystem, remove_store, store_on
from .leaks import Machine, leftovers_of
from .preloaded import Preloaded
from .settings import HUGE_PAGES, kept


def pytest_configure(config):
    """A run that is told to end (timeout(1), a CI's own limit) still removes its containers.

    One in the background of a shell ignores control-C, and so would all programs of its containers:
    a shell never takes that back.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)


@pytest.fixture(scope="session")
def laboratory():
    """What the session's containers share; at its end the machine must be as before."""
    if os.geteuid() != 0:
        pytest.skip("only root can start containers")
    with tempfile.TemporaryDirectory(prefix="lxc-cr-test-") as path:
        laboratory = Laboratory(path=Path(path), session=f"crt{os.getpid()}")
        before = Machine.look(laboratory)
        laboratory.prepare()
        if os.environ.get("CR_EXECUTE") == "1":
            yield laboratory
        else:
            with Preloaded(laboratory.environment) as laboratory.preloaded:
                yield laboratory
        laboratory.remove()
    # A network namespace, and with it the ends of its interfaces, goes a moment after its container.
    wait_until(
        lambda: not Machine.look(laboratory).left_since(before),
        what=f"the machine as before: {Machine.look(laboratory).left_since(before)}",
        timeout=60,
    )


@pytest.fixture(scope="session")
def debian(laboratory):
    """A Debian tree; its files are shared by all copies, so they are replaced, never written to."""
    return make_debian(laboratory)


@pytest.fixture(scope="session")
def stanza(laboratory) -> Path:
    """The lines for LXC, as `lxc-cr stanza` prints them."""
    path = laboratory.path / "lxc-cr.conf"
    path.write_text(run(LXC_CR, "--config", laboratory.config, "stanza").stdout)
    return path


@pytest.fixture(scope="session")
def container_names(laboratory):
    return (f"{laboratory.session}-{number}" for number in itertools.count(1))


@contextlib.contextmanager
def containers_of(
    laboratory: Laboratory, names: Iterator[str]
) -> Iterator[Callable[..., Container]]:
    """Make containers: each call gives one more; at the end all are gone, and what was theirs."""
    with contextlib.ExitStack() as scopes:

        def make(tree: Path | None = None) -> Container:
            return scopes.enter_context(make_container(laboratory, next(names), tree=tree))

        yield make
    wait_until(
        lambda: not leftovers_of(laboratory), what=f"no leftovers: {leftovers_of(laboratory)}"
    )


class Shared:
    """What several tests have in common, one at a time: made by its key, gone when another is asked for.

    Parameters of a class or a module would do the same if pytest did not choose itself when it makes
    them again.
    """

    def __init__(self, make: Callable[[Any], AbstractContextManager]) -> None:
        self._make = make
        self._scope = contextlib.ExitStack()
        self._key: Any = None
        self._failure: Exception | None = None

    def __enter__(self) -> "Shared":
        return self

    def __exit__(self, *_: object) -> None:
        self._scope.close()

    def of(self, key: Any) -> Any:
        """The one of @key; what has failed once fails for all."""
        if key != self._key:
            self._scope.close()
            self._key, self._failure = key, None
            try:
                self._made = self._scope.enter_context(self._make(key))
            except Exception as error:
                self._failure = error
        if self._failure:
            raise self._failure
        return self._made


def asked_for(request: pytest.FixtureRequest, key: Any) -> list[str]:
    """Parameters `name` of all tests of this session whose `company` is @key."""
    parameters = [
        item.callspec.params for item in request.session.items if hasattr(item, "callspec")
    ]
    return [given["name"] for given in parameters if given.get("company") == key]


@pytest.fixture
def new_container(laboratory, container_names):
    """Make containers: each call gives one more, all are gone after the test."""
    with containers_of(laboratory, container_names) as make:
        yield make


@pytest.fixture
def container(new_container):
    """One container, made and not yet started."""
    return new_container()


@pytest.fixture(scope="module")
def huge_pages():
    """Some may be made; afterwards as many as before."""
    with kept(HUGE_PAGES):
        if int(HUGE_PAGES.read_text()) < 64:
            HUGE_PAGES.write_text("64")
        yield


@pytest.fixture(scope="session")
def pools(tmp_path_factory):
    """A btrfs, an xfs with reflinks, and an ext4 without, for the whole session."""
    place = tmp_path_factory.mktemp("pools")
    with (
        loop_filesystem("btrfs", place / "btrfs", megabytes=2048) as btrfs,
        loop_filesystem("xfs", place / "xfs", megabytes=1024) as xfs,
        loop_filesystem("ext4", place / "ext4", megabytes=1024) as ext4,
    ):
        yield {"btrfs": btrfs, "xfs": xfs, "ext4": ext4}


@pytest.fixture
def make(new_container, pools):
    """Make a container whose files are on a backend, its store on the same file system."""
    made = []

    def make(backend: str) -> Container:
        container = new_container()
        kind, _, pool = backend.partition("@")
        home = pools[pool or "btrfs"] / container.name
        home.mkdir()
        made.append((container, home))
        store_on(container, home, kind)
        return container

    yield make
    for container, home in made:
        container.destroy()
        remove_store(home, pools["btrfs"])


@pytest.fixture
def running(make):
    """A container on a backend in which a victim runs, with one of everything in /kinds."""

    def running(backend: str, name: str = "ledger") -> tuple[Container, Victim]:
        container = make(backend)
        (container.rootfs / "kinds").mkdir()
        build(container.rootfs / "kinds")
        victim = container.add_victim(name)
        container.start()
        victim.ready()
        return container, victim

    return running
