# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several containers from one image, at the same time."""

import contextlib
import fcntl
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from lxc_cr_plugin.clone import BEING_MADE
from lxc_cr_plugin.snapshot.kept import kept_for

from .container import Container, wait_until
from .test_backends import verify
from .test_network import bridge, connect, in_network_of, mac, make_bridge, ports  # noqa: F401
from .test_unprivileged import FIRST_ID, IDS, shifted_tree


@pytest.fixture
def clones_of(laboratory, container_names):
    """Containers that are to become clones, and are gone after the test."""
    made = []

    def make(count: int) -> list[Container]:
        made.extend(
            Container(laboratory=laboratory, name=next(container_names)) for _ in range(count)
        )
        return made[-count:]

    yield make
    for clone in made:
        clone.destroy()


def leftovers(container: Container) -> list[str]:
    """What there is in the lxcpath besides the containers themselves."""
    return [path.name for path in container.laboratory.lxcpath.glob(".*")]


@contextlib.contextmanager
def busy_lock(directory: Path):
    """As a command that works there holds it."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def names(clones: list[Container]) -> list[str]:
    return [clone.name for clone in clones]


def victim_of(container: Container, victim):
    """The same victim in a clone."""
    return type(victim)(container=container, name=victim.name)


def test_three_clones_run_beside_the_original(container, clones_of, bridge):  # noqa: F811
    connect(container, bridge)
    victims = [container.add_victim(name) for name in ("ledger", "thread", "pipe")]
    container.start()
    for victim in victims:
        victim.ready()
    container.attach("sh", "-c", "echo original >/root/file")
    container.checkpoint()
    clones = clones_of(3)
    container.cr("clone", container.name, *names(clones))
    assert len(ports(bridge)) == 4
    assert len({mac(one) for one in (container, *clones)}) == 4
    for clone in clones:
        assert clone.state == "RUNNING"
        clone.attach("sh", "-c", f"echo {clone.name} >/root/file")
    for clone in clones:
        assert clone.attach("cat", "/root/file") == f"{clone.name}\n"
        assert clone.attach("hostname") == f"{clone.name}\n"
        for victim in victims:
            victim_of(clone, victim).verify()
    assert container.attach("cat", "/root/file") == "original\n"
    for victim in victims:
        victim.verify()
    assert len(container.images) == 1
    assert not leftovers(container)
    # each is a container as any other
    clones[0].checkpoint("--stop")
    clones[0].restart()
    assert clones[0].attach("cat", "/root/file") == f"{clones[0].name}\n"


def test_a_clone_that_is_not_started(container, clones_of, make_bridge, tmp_path):  # noqa: F811
    """What was said of bridges and mounts holds when it is started, and later."""
    bridges = [make_bridge(letter) for letter in "ab"]
    places = [tmp_path / name for name in ("shared", "other")]
    for place in places:
        place.mkdir()
        (place / "file").write_text(place.name)
    connect(container, bridges[0])
    container.configure(f"lxc.mount.entry = {places[0]} srv/data none bind,create=dir 0 0")
    (container.directory / "lxc-cr.toml").write_text('on_failure = "fail"\n')
    victim = container.add_victim("ledger")
    container.start()
    victim.ready()
    container.checkpoint("--stop")
    (clone,) = clones_of(1)
    substituted = ["--mount", f"/srv/data={places[1]}", "--bridge", f"eth0={bridges[1]}"]
    outcome = container.try_cr("clone", container.name, clone.name, "--no-start", "--bridge", "x=y")
    assert "no network interface or bridge 'x'" in outcome.text
    container.cr("clone", container.name, clone.name, "--no-start", *substituted)
    assert clone.state == "STOPPED"
    assert container.state == "STOPPED"
    clone.restart()
    assert clone.attach("cat", "/srv/data/file") == "other"
    victim_of(clone, victim).verify()
    clone.checkpoint("--stop")
    clone.start()
    assert [len(ports(one)) for one in bridges] == [0, 1]
    assert clone.attach("cat", "/srv/data/file") == "other"


def test_clones_with_another_directory_of_the_host(container, clones_of, tmp_path):
    places = [tmp_path / name for name in ("shared", "other")]
    for place in places:
        place.mkdir()
        (place / "file").write_text(place.name)
    container.configure(f"lxc.mount.entry = {places[0]} srv/data none bind,create=dir 0 0")
    victim = container.add_victim("ledger")
    container.start()
    victim.ready()
    container.checkpoint()
    clones = clones_of(2)
    container.cr("clone", container.name, *names(clones), "--mount", f"/srv/data={places[1]}")
    for clone in clones:
        assert clone.attach("cat", "/srv/data/file") == "other"
        victim_of(clone, victim).verify()
    assert container.attach("cat", "/srv/data/file") == "shared"
    victim.verify()


def test_fixed_addresses_are_not_taken_over(container, clones_of, bridge):  # noqa: F811
    fixed = "02:00:00:00:77:01"
    connect(
        container,
        bridge,
        f"lxc.net.0.hwaddr = {fixed}",
        f"lxc.net.0.veth.pair = {bridge}p",
        "lxc.net.0.ipv4.address = 10.78.0.2/24",
        "lxc.net.0.ipv4.gateway = 10.78.0.1",
    )
    container.start()
    for line in SET_INSIDE:
        in_network_of(container, *line.split())
    container.checkpoint()
    fresh, keep = clones_of(2)
    container.cr("clone", container.name, fresh.name)
    container.cr("clone", container.name, keep.name, "--network", "keep")
    assert mac(container) == "02:00:00:00:77:09"
    assert len({mac(one) for one in (container, fresh, keep)}) == 3
    assert len({mac_of(one, "mac0") for one in (container, fresh, keep)}) == 3
    for clone in (fresh, keep):
        assert mac(clone).startswith("00:16:3e:")
        addresses = in_network_of(clone, "ip", "address").stdout
        routes = in_network_of(clone, "ip", "route").stdout
        for text in ("10.77.0.2/24", "10.78.0.2/24", "fd77::2/64", "10.76.0.2/24"):
            assert (text in addresses) == (clone is keep), addresses
        assert "192.168.9.1/24" in addresses
        for text in ("default via 10.78.0.1", "10.5.0.0/16"):
            assert (text in routes) == (clone is keep), routes
        assert "blackhole 10.7.0.0/16" in routes


SET_INSIDE = """\
ip address add 10.77.0.2/24 dev eth0
ip address add fd77::2/64 dev eth0 nodad
ip link set eth0 address 02:00:00:00:77:09
ip route add 10.5.0.0/16 via 10.77.0.1
ip route add blackhole 10.7.0.0/16
ip link add mac0 link eth0 type macvlan mode bridge
ip link set mac0 up
ip address add 10.76.0.2/24 dev mac0
ip link add va type veth peer name vb
ip address add 192.168.9.1/24 dev va
""".splitlines()


def mac_of(container: Container, link: str) -> str:
    text = in_network_of(container, "ip", "-j", "link", "show", "dev", link).stdout
    return json.loads(text)[0]["address"]


def test_an_unprivileged_clone(laboratory, new_container, clones_of):
    container = new_container(shifted_tree(laboratory))
    container.configure(*(f"lxc.idmap = {sort} 0 {FIRST_ID} {IDS}" for sort in "ug"))
    victim = container.add_victim("ledger")
    container.start()
    victim.ready()
    container.checkpoint()
    (clone,) = clones_of(1)
    container.cr("clone", container.name, clone.name)
    victim_of(clone, victim).verify()
    victim.verify()


@pytest.mark.parametrize("backend", ["overlay@ext4", "btrfs@btrfs"])
def test_other_storage_is_cloned(backend, running, clones_of):
    container, victim = running(backend)
    container.attach("sh", "-c", "echo original >/root/file")
    container.checkpoint()
    container.attach("sh", "-c", "echo later >/root/file")
    (clone,) = clones_of(1)
    container.cr("clone", container.name, clone.name)
    assert clone.attach("cat", "/root/file") == "original\n"
    clone.attach("sh", "-c", "echo mine >/root/file")
    assert container.attach("cat", "/root/file") == "later\n"
    verify(victim_of(clone, victim))
    verify(victim)


def import_changed(container: Container, file: Path, tag: str, **changes: str) -> None:
    """Import the container's image as somebody sends it who has changed its manifest's `container`."""
    container.cr("export", container.name, file)
    changed = file.with_name(f"changed-{file.name}")
    with tarfile.open(file) as old, tarfile.open(changed, "w") as new:
        for entry in old:
            data = old.extractfile(entry).read()
            if entry.name == "manifest.json":
                manifest = json.loads(data)
                manifest["container"] |= changes
                data = json.dumps(manifest).encode()
                entry.size = len(data)
            new.addfile(entry, io.BytesIO(data))
    container.cr("import", changed, "--tag", tag)


def test_power_over_the_host_never_comes_from_the_image(running, clones_of, tmp_path):
    """Neither hooks nor mounts nor lower layers: they are those of the container here."""
    container, victim = running("overlay@ext4")
    container.checkpoint()
    trace, secret = tmp_path / "was-here", tmp_path / "secret"
    secret.mkdir()
    (secret / "key").touch()
    config = (container.directory / "config").read_text()
    hostile = (
        f"lxc.hook.pre-start = /bin/touch {trace}\nlxc.mount.entry = {secret} mnt none bind 0 0\n"
    )
    import_changed(
        container,
        tmp_path / "image",
        "hostile",
        config=f"{config}\n{hostile}",
        lxcpath=str(tmp_path),
        rootfs=f"overlay:{secret}:/x",
    )
    (clone,) = clones_of(1)
    container.cr("clone", f"{container.name}:hostile", clone.name)
    verify(victim_of(clone, victim))
    assert not trace.exists()
    assert clone.attach("ls", "/mnt") == ""
    assert "key" not in clone.attach("ls", "/")


def test_an_image_of_no_container_here_needs_one_to_be_like(container, clones_of, tmp_path):
    victim = container.add_victim("ledger")
    container.start()
    victim.ready()
    container.checkpoint()
    stranger = f"{container.name}-stranger"
    import_changed(container, tmp_path / "image", "latest", name=stranger)
    (clone,) = clones_of(1)
    outcome = container.try_cr("clone", stranger, clone.name)
    assert outcome.code == 3
    assert f"no container '{stranger}'" in outcome.result["message"]
    assert "--like" in outcome.result["hint"]
    assert not clone.directory.exists()
    container.cr("clone", stranger, clone.name, "--like", container.name)
    victim_of(clone, victim).verify()
    container.cr("rm", stranger)


def test_what_stands_in_an_included_file(container, clones_of, bridge):  # noqa: F811
    """Wherever it stands: a clone never runs on the files, or with the address, of the original."""
    config = container.directory / "config"
    lines = config.read_text().splitlines()
    moved = [line for line in lines if line.startswith("lxc.rootfs.path")]
    config.write_text("".join(f"{line}\n" for line in lines if line not in moved))
    connect(container, bridge)
    hook = container.directory / "hooks" / "ready"
    hook.parent.mkdir()
    hook.write_text('#!/bin/sh\ntouch "$(dirname "$LXC_CONFIG_FILE")/hook-of-$LXC_NAME"\n')
    hook.chmod(0o755)
    (container.directory / "more.conf").write_text(
        "\n".join(
            [
                *moved,
                "lxc.net.0.hwaddr = 02:00:00:00:77:02",
                f"lxc.net.0.veth.pair = {bridge}p",
                f"lxc.hook.pre-start = {hook}",
            ]
        )
    )
    container.configure(f"lxc.include = {container.directory}/more.conf")
    container.start()
    container.attach("sh", "-c", "echo original >/root/file")
    container.checkpoint()
    (clone,) = clones_of(1)
    container.cr("clone", container.name, clone.name)
    clone.attach("sh", "-c", "echo mine >/root/file")
    assert container.attach("cat", "/root/file") == "original\n"
    assert (clone.rootfs / "root/file").read_text() == "mine\n"
    assert len({mac(container), mac(clone)}) == 2
    assert (clone.directory / f"hook-of-{clone.name}").exists()
    assert (clone.directory / "hooks/ready").exists()


def test_a_failed_clone_leaves_nothing(container, clones_of):
    container.start()
    container.checkpoint()
    clones = clones_of(2)
    outcome = container.try_cr(
        "clone", container.name, *names(clones), LXC_CR_FAULT="restart-states!"
    )
    assert outcome.code == 10
    for clone in clones:
        assert f"Clone '{clone.name}' was not made: " in outcome.text
    assert container.try_cr("clone", f"{container.name}:none", *names(clones)).code == 8
    assert container.state == "RUNNING"
    assert not any(clone.directory.exists() for clone in clones)
    assert not leftovers(container)


def test_the_next_clone_removes_what_a_killed_one_has_left(container, clones_of):
    """Whatever name it makes; what another command is making just now stays."""
    (container.rootfs / "root/large").write_bytes(os.urandom(64 << 20))
    container.start()
    container.checkpoint()
    killed, next_one = clones_of(2)
    half = killed.directory.with_name(f".{killed.name}{BEING_MADE}")
    # The previous files of a container whose tree lies beside the others.
    kept = kept_for(killed.directory.with_name("files"))
    kept.mkdir()
    with container.spawn("clone", container.name, killed.name) as command:
        wait_until((half / "rootfs").exists, what="a clone being made")
        command.kill()
    assert (half / "rootfs").exists()
    assert not killed.directory.exists()
    busy = half.with_name(f".busy{BEING_MADE}")
    busy.mkdir()
    with busy_lock(busy):
        container.cr("clone", container.name, next_one.name, "--no-start")
    assert sorted(leftovers(container)) == [busy.name, kept.name]
    kept.rmdir()
    container.cr("clone", container.name, killed.name, "--no-start")
    assert not leftovers(container)


def test_a_name_that_is_taken(container, new_container):
    other = new_container()
    container.start()
    container.checkpoint()
    before = (other.directory / "config").read_text()
    for name in (other.name, ".hidden"):
        outcome = container.try_cr("clone", container.name, name)
        assert outcome.code == 3, outcome.text
    assert (other.directory / "config").read_text() == before
