# SPDX-License-Identifier: LGPL-2.1-or-later
"""Containers with an id map of their own: everything works there as it does elsewhere."""

import os
import shutil
from pathlib import Path

import pytest

from lxc_cr_plugin.config import FILE_VARIABLE

from .container import Container, Laboratory
from .filesystems import store_on
from .test_files import runs_on
from .test_hooks import mark_of, start
from .test_kinds import ALL, ALONE, add, stop_and_restart

pytestmark = pytest.mark.usefixtures("huge_pages")

FIRST_ID = 100000
# One victim has a group beyond 65536.
IDS = 131072

# These would wait too long for the others, or have too few huge pages beside them.
ALONE_HERE = {"lease_break", "sysv_shared_memory"}

# What these do has nothing to do with ids: many processes or mappings, and clocks, which the others
# would disturb.
LARGE = {"appender", "cow", "crowd", "fork_storm", "many_mappings", "memory"}
CLOCKS = {"itimer", "posix_timer", "restart_block", "timerfd"}
MOST = sorted(set(ALL) - ALONE - ALONE_HERE - LARGE - CLOCKS)


def shifted_tree(laboratory: Laboratory) -> Path:
    """The tree of all containers, as it belongs to the users of this one; made once."""
    tree = laboratory.path / "unprivileged"
    if not tree.exists():
        shutil.copytree(laboratory.base, tree, symlinks=True)
        shutil.copymode(laboratory.base, tree)
        for path in (tree, *tree.rglob("*")):
            os.chown(path, FIRST_ID, FIRST_ID, follow_symlinks=False)
    return tree


@pytest.fixture
def container(laboratory, new_container) -> Container:
    """One unprivileged container, made and not yet started."""
    container = new_container(shifted_tree(laboratory))
    for sort in "ug":
        container.configure(f"lxc.idmap = {sort} 0 {FIRST_ID} {IDS}")
    return container


def owner(container: Container, file: str) -> tuple[int, int]:
    """User and group of a file, as the container numbers them."""
    status = (container.rootfs / file).lstat()
    return status.st_uid - FIRST_ID, status.st_gid - FIRST_ID


@pytest.mark.parametrize("names", [MOST, sorted(ALONE_HERE)], ids=["most", "others"])
def test_no_victim_notices_a_restart(names, container):
    victims = [add(container, name) for name in names]
    container.start()
    for victim in victims:
        victim.ready()
    stop_and_restart(container)
    for victim in victims:
        victim.verify()


def test_files_come_back_with_their_owners(container):
    victim = container.add_victim("ledger")
    container.start()
    victim.ready()
    container.attach("sh", "-c", "echo then >/root/kept; chown 1000:100 /root/kept")
    container.checkpoint()
    container.attach("sh", "-c", "echo now >/root/kept; chown 7:7 /root/kept; touch /root/new")
    container.cr("rollback", container.name)
    assert container.attach("cat", "/root/kept") == "then\n"
    assert owner(container, "root/kept") == (1000, 100)
    assert not (container.rootfs / "root/new").exists()
    victim.verify()


def test_a_plain_start_resumes(container, stanza, monkeypatch):
    """The hooks run as root of the host, whatever the container's users are."""
    monkeypatch.setenv(FILE_VARIABLE, str(container.laboratory.config))
    container.configure(f"lxc.include = {stanza}")
    passwd = container.rootfs / "etc/passwd"
    os.chown(passwd, FIRST_ID, FIRST_ID)
    victim = container.add_victim("ledger")
    container.start()
    victim.ready()
    container.checkpoint("--stop", "--resume-at-start")
    passwd.write_text("changed while it was away")
    os.chown(passwd, 0, 0)
    assert start(container).returncode == 0
    assert not mark_of(container).exists()
    runs_on(victim)
    assert "changed" not in passwd.read_text()
    assert owner(container, "etc/passwd") == (0, 0)
    victim.verify()


def test_layers_come_back_with_their_owners(container, laboratory):
    home = laboratory.path / f"{container.name}-layers"
    home.mkdir()
    store_on(container, home, "overlay")
    # It is mounted by the container's own root, who makes another directory there.
    for path in (home, home / "rootfs", *(home / "rootfs").rglob("*")):
        os.chown(path, FIRST_ID, FIRST_ID)
    victim = container.add_victim("ledger")
    try:
        container.start()
        victim.ready()
        container.attach("sh", "-c", "echo then >/root/kept; chown 1000:100 /root/kept")
        container.checkpoint("--stop")
        (container.rootfs / "root/kept").write_text("now")
        os.chown(container.rootfs / "root/kept", 0, 0)
        assert "root/kept" in container.restart().result["rootfs"]["paths"]
        assert container.attach("cat", "/root/kept") == "then\n"
        assert owner(container, "root/kept") == (1000, 100)
        container.attach("touch", f"/status/{victim.name}.go")
        victim.wait_for("ok")
    finally:
        container.destroy()
        shutil.rmtree(home)


def test_another_id_map_is_refused(container):
    container.start()
    container.checkpoint("--stop")
    config = container.directory / "config"
    config.write_text(config.read_text().replace(f" {IDS}\n", f" {IDS - 1}\n"))
    outcome = container.try_cr("restart", container.name)
    assert outcome.result["class"] == "HostError"
    assert outcome.result["object"] == "user_namespace"
    assert "lxc.idmap" in outcome.result["hint"]
    assert container.state == "STOPPED"
