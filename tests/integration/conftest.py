# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures of the integration tests: containers that leave nothing behind."""

import itertools
import os
import signal
import tempfile
from pathlib import Path

import pytest

from .container import Container, Laboratory, wait_until
from .container import container as make_container
from .leaks import Machine, leftovers_of


def pytest_configure(config):
    """A run that is told to end (timeout(1), a CI's own limit) still removes its containers."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def laboratory():
    """What the session's containers share; at its end the machine must be as before."""
    if os.geteuid() != 0:
        pytest.skip("only root can start containers")
    before = Machine.look()
    with tempfile.TemporaryDirectory(prefix="lxc-cr-test-") as path:
        laboratory = Laboratory(path=Path(path), session=f"crt{os.getpid()}")
        laboratory.prepare()
        yield laboratory
        laboratory.remove()
    assert not Machine.look().left_since(before)


@pytest.fixture(scope="session")
def container_names(laboratory):
    return (f"{laboratory.session}-{number}" for number in itertools.count(1))


@pytest.fixture
def new_container(laboratory, container_names):
    """Make containers: each call gives one more, all are gone after the test."""
    scopes = []

    def make(tree: Path | None = None) -> Container:
        scope = make_container(laboratory, next(container_names), tree=tree)
        scopes.append(scope)
        return scope.__enter__()

    yield make
    for scope in scopes:
        scope.__exit__(None, None, None)
    wait_until(
        lambda: not leftovers_of(laboratory), what=f"no leftovers: {leftovers_of(laboratory)}"
    )


@pytest.fixture
def container(new_container):
    """One container, made and not yet started."""
    return new_container()
