# SPDX-License-Identifier: LGPL-2.1-or-later
"""The check for leaks finds what is ours, and leaves others their work on the same machine."""

import pytest

from . import leaks, settings
from .container import container, run
from .leaks import Machine


@pytest.fixture
def made():
    """Make bridges on the host, which are gone after the test."""
    names = []

    def make(name: str) -> str:
        run("ip", "link", "add", name, "type", "bridge")
        names.append(name)
        return name

    yield make
    for name in names:
        run("ip", "link", "del", name)


def test_links_of_this_session_and_of_others(laboratory, made):
    before = Machine.look(laboratory)
    made(f"cr{laboratory.number % 10**6}9z")  # the next but nine sessions
    made(f"{laboratory.link('z')}9")
    assert Machine.look(laboratory).left_since(before) == []
    ours = made(laboratory.link("z"))
    port = f"v{laboratory.number}"
    run("ip", "link", "add", port, "type", "veth", "peer", "name", f"{port}p")
    try:
        run("ip", "link", "set", port, "master", ours)
        assert Machine.look(laboratory).left_since(before) == [f"links {ours}", f"links {port}"]
    finally:
        run("ip", "link", "del", port)


@pytest.mark.parametrize("must_run", [True, False])
def test_settings_of_the_kernel(must_run, laboratory, tmp_path, monkeypatch):
    """Looked at where nobody else's tests run at the same time."""
    number, choice = tmp_path / "number", tmp_path / "choice"
    number.write_text("45\n")
    choice.write_text("always [madvise] never\n")
    monkeypatch.setattr(settings, "ALL", [number, choice, tmp_path / "unknown", tmp_path / "new"])
    monkeypatch.setattr(leaks, "MUST_RUN", must_run)
    before = Machine.look(laboratory)
    (tmp_path / "new").write_text("1\n")
    number.write_text("8\n")
    choice.write_text("[always] madvise never\n")
    changed = [f"setting {number}: 8, not 45", f"setting {choice}: always, not madvise"]
    assert Machine.look(laboratory).left_since(before) == (changed if must_run else [])


def test_what_a_container_needs_around_it_stays_until_it_is_gone(laboratory, container_names):
    was_there = []
    with container(laboratory, next(container_names)) as box:
        box.scope.callback(lambda: was_there.append(box.directory.exists()))
    assert was_there == [False]
