# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an image may say of a network, and what would have the host's own touched."""

import contextlib
import copy
import errno
import json
import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lxc_cr_plugin import network
from lxc_cr_plugin.errors import Cancelled, HostError, ImageError, Obstacle, UnsupportedError
from lxc_cr_plugin.network import Watch, nft, routing, sysctl
from lxc_cr_plugin.run import signals_cancel

from . import processes
from .processes import open_fds, run_inside

LINK = {
    "name": "va",
    "index": 3,
    "kind": "veth",
    "runtime": False,
    "address": None,
    "mtu": 1500,
    "queue": 1000,
    "group": 0,
    "alias": None,
    "flags": 0,
    "below": "vb",
    "master": None,
    "qdisc": None,
    "data": {},
}
ROUTE = {
    "family": 2,
    "attributes": {
        "RTA_DST": "10.0.0.0",
        "RTA_MULTIPATH": [{"oif": "eth0", "flags": 0, "attrs": [["RTA_GATEWAY", "10.0.0.1"]]}],
    },
}
STATE = {
    "format": 1,
    "links": [LINK, {**LINK, "name": "tun0", "kind": "tun", "runtime": True}],
    "addresses": [{"family": 2, "attributes": {"IFA_LOCAL": "10.0.0.2"}}],
    "routes": [ROUTE],
    "rules": [],
    "neighbours": [],
    "settings": {},
    "filter": "table inet guard {\n}\n",
}


def load(state: dict, directory: Path) -> dict:
    """What a restart takes of an image with this state."""
    (directory / network.NAME).write_text(json.dumps(state))
    file = SimpleNamespace(name=network.NAME)
    return network.load(SimpleNamespace(path=directory), SimpleNamespace(files=[file]))


def test_what_a_checkpoint_writes_is_taken(tmp_path):
    assert load(STATE, tmp_path) == STATE


def alter(path: str, value: object) -> dict:
    """A state with something else at a path."""
    state = copy.deepcopy(STATE)
    *way, last = (int(step) if step.isdigit() else step for step in path.split("/"))
    place = state
    for step in way:
        place = place[step]
    place[last] = value
    return state


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("links/0/data/VETH_INFO_PEER", {"attrs": [["IFLA_NET_NS_PID", 1]]}),
        ("links/0/data/IFLA_VLAN_ID", 5),  # of another kind
        ("links/1/data/IFLA_TUN_TYPE", 1),
        ("links/0/kind", "vxlan"),
        ("links/0/kind", None),
        ("addresses/0/attributes/IFA_TARGET_NETNSID", 1),
        ("routes/0/attributes/RTA_ENCAP", 1),
        ("routes/0/attributes/RTA_MULTIPATH", 1),
        ("routes/0/attributes/RTA_MULTIPATH/0/attrs", [["RTA_ENCAP", 1]]),
        ("routes/0/attributes/RTA_MULTIPATH/0", "x"),
        ("filter", 'include "/etc/shadow"'),
    ],
)
def test_what_no_checkpoint_writes_is_refused(path, value, tmp_path):
    with pytest.raises(ImageError):
        load(alter(path, value), tmp_path)


@pytest.mark.parametrize(
    "ruleset",
    [
        'include "/etc/shadow"',
        'include \\\n"/etc/shadow"',
        'table ip a {\n\t1include "/etc/shadow"\n}',
        # A quote that reaches over the line: what looks quoted is not.
        'table ip a {\n comment "\n" include "/etc/shadow"\n}',
        '# "\n include "/etc/shadow"\n# "',
        'table ip a { comment "#" include "/etc/shadow"',
    ],
)
def test_no_ruleset_reads_a_file(ruleset):
    with pytest.raises(ImageError):
        nft.refuse_commands(ruleset)


def test_names_and_comments_may_say_include():
    nft.refuse_commands("table ip includes {\n\taccept comment \"include 'x'\"\n}\n")


@pytest.mark.parametrize(
    ("ruleset", "lively"),
    [
        ("table inet a {\n\tset s {\n\t\tflags dynamic\n\t}\n}", True),
        ("ip saddr 10.0.0.1 add @s { ip saddr } accept", True),
        ("ct count over 10 drop", True),
        ("last used 3s", True),
        ('accept comment "counter dynamic"', False),
        ("ct state established accept", False),
    ],
)
def test_what_packets_change_is_taken_again_under_the_stop(ruleset, lively):
    assert nft.is_lively(ruleset) is lively


def test_the_kernel_is_asked_for_nftables():
    unknown = 15
    assert nft.is_supported()
    assert not nft.is_supported(unknown)


def test_a_look_at_settings_leaves_limits_and_low_descriptors():
    """A container that is started later inherits the limit; libnftables needs the descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = open_fds()
    settings = sysctl.Settings(sysctl.paths())
    try:
        opened = open_fds() - low
        assert len(opened) > 100
        assert len([fd for fd in opened if fd < sysctl.FD_SETSIZE]) <= 1  # iterdir's own
    finally:
        settings.close()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


@pytest.fixture
def apart(tmp_path):
    """The pid of a process in a network of its own."""
    with processes.apart("net", tmp_path) as shell:
        yield shell.pid


PAIR = "ip link add va type veth peer name vb"


def test_settings_are_opened_again_when_interfaces_come(monkeypatch, apart):
    """Not for every change that is heard of: under the stop that would take longer than all the rest."""
    opened = []
    paths = sysctl.paths
    monkeypatch.setattr(sysctl, "paths", lambda: opened.append(1) or paths())
    with contextlib.closing(Watch(apart, [])) as watch:
        for words in ("address add 10.0.0.1/32 dev lo", "link add va type veth peer name vb"):
            run_inside(apart, "ip", *words.split())
            assert watch._renew(written=False)
            assert len(opened) == (2 if "veth" in words else 1)
        assert "ipv4/conf/va/rp_filter" in watch._settings.values()
        assert [one for one in watch._state["addresses"] if "10.0.0.1" in str(one)]


@pytest.mark.parametrize("place", ["rds", "netfilter/nf_late", "ipv4/vs/am_droprate"])
def test_settings_of_a_module_that_comes_later_are_noticed(monkeypatch, tmp_path, place):
    for name in ("netfilter", "ipv4/conf"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    before = sysctl.modules()
    (tmp_path / place).mkdir(parents=True)
    assert sysctl.modules() != before


def test_a_scheduler_of_ip_vs_that_comes_later_is_noticed(monkeypatch, tmp_path):
    (tmp_path / "ipv4/vs/am_droprate").mkdir(parents=True)
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    before = sysctl.modules()
    (tmp_path / "ipv4/vs/lblc_expiration").touch()
    assert sysctl.modules() != before


@pytest.mark.parametrize("kind", ["ifb", "veth peer name other", "bridge"])
def test_an_interface_made_inside_has_its_address_again(apart, tmp_path, kind):
    """Some take one only when they are made."""
    run_inside(apart, *f"ip link add odd0 type {kind}".split())
    with contextlib.closing(Watch(apart, [])) as watch:
        assert not watch.obstacles()
        watch.write(tmp_path)
    state = json.loads((tmp_path / network.NAME).read_text())
    run_inside(apart, "ip", "link", "del", "odd0")
    network.put_back(apart, state)
    with contextlib.closing(Watch(apart, [])) as watch:
        (back,) = (link for link in watch._state["links"] if link["name"] == "odd0")
    assert back in state["links"]


class Writes:
    """In place of SettingWrites: who else writes settings on this machine is of no concern."""

    begun = 0

    def count(self):
        return self.begun

    def close(self):
        pass


@pytest.fixture
def writes(monkeypatch):
    writes = Writes()
    monkeypatch.setattr(sysctl, "count_writes", lambda _: writes)
    return writes


@pytest.fixture
def watch(apart):
    """Over that network; a test with @writes has them before this."""
    with contextlib.closing(Watch(apart, [])) as watch:
        yield watch


def set_inside(pid, name, value):
    run_inside(pid, "sh", "-c", f"echo {value} >/proc/sys/net/{name}")


FORWARD = "ipv4/ip_forward"


def test_a_setting_that_was_written_is_in_the_image(apart, watch):
    """However it is that somebody finds out here."""
    watch.rehearse()
    for value in "10":
        set_inside(apart, FORWARD, value)
        watch.freeze()
        assert watch._settings.values()[FORWARD] == value


def test_settings_are_read_again_if_nobody_can_count_who_writes(monkeypatch, apart):
    def nobody(_):
        raise HostError("no", hint="not here")

    monkeypatch.setattr(sysctl, "count_writes", nobody)
    with contextlib.closing(Watch(apart, [])) as watch:
        assert watch.uncounted == "no (not here)"
        watch.rehearse()
        set_inside(apart, FORWARD, 1)
        watch.freeze()
        assert watch._settings.values()[FORWARD] == "1"


def test_settings_are_spared_under_the_stop_if_nobody_has_written(apart, writes, watch):
    """Also if something was heard of before."""
    assert not watch.uncounted
    run_inside(apart, "ip", "address", "add", "10.0.0.1/32", "dev", "lo")
    watch.rehearse()
    set_inside(apart, FORWARD, 1)  # as our counter has it nobody has
    watch.freeze()
    assert watch._settings.values()[FORWARD] == "0"
    writes.begun += 1
    watch.freeze()
    assert watch._settings.values()[FORWARD] == "1"


def test_a_write_that_is_under_way_at_the_rehearsal_is_in_the_image(apart, writes, watch):
    """It is counted before it has any effect."""
    writes.begun += 1
    watch.rehearse()
    set_inside(apart, FORWARD, 1)
    watch.freeze()
    assert watch._settings.values()[FORWARD] == "1"


def test_a_write_that_is_under_way_at_the_first_look_is_in_the_image(apart, writes, watch):
    """Nobody counts it, so the rehearsal takes nothing for granted."""
    set_inside(apart, FORWARD, 1)
    watch.rehearse()
    watch.freeze()
    assert watch._settings.values()[FORWARD] == "1"


def test_writes_are_counted_from_the_first_look_on(monkeypatch, apart):
    seen = []
    take = sysctl.Settings.take
    monkeypatch.setattr(sysctl, "count_writes", lambda _: seen.append("count") or Writes())
    monkeypatch.setattr(sysctl.Settings, "take", lambda self: seen.append("take") or take(self))
    with contextlib.closing(Watch(apart, [])):
        assert seen == ["count", "take"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ipv6/conf/va/hop_limit", "77"),
        ("ipv6/conf/va/mtu", "1400"),
        ("ipv6/neigh/va/retrans_time_ms", "2000"),
        ("ipv6/neigh/va/base_reachable_time_ms", "50000"),
        ("ipv6/neigh/va/gc_stale_time", "77"),
    ],
)
def test_settings_that_routers_advertise_are_always_read_again(apart, writes, watch, name, value):
    run_inside(apart, *PAIR.split())
    watch.rehearse()
    assert watch._settings.values()[name] != value
    set_inside(apart, name, value)
    watch.freeze()
    assert watch._settings.values()[name] == value


def lifetimes(addresses):
    return {
        row["attributes"].get("IFA_LOCAL"): (row["preferred"], row["valid"]) for row in addresses
    }


def test_addresses_live_as_long_as_was_left_at_the_stop(apart, monkeypatch, tmp_path):
    """They are read before, and the kernel tells of no second that passes."""
    run_inside(apart, "ip", "link", "set", "lo", "up")
    for address, times in (
        ("10.0.0.1", ("valid_lft", "900", "preferred_lft", "100")),
        ("10.0.0.2", ("valid_lft", "190", "preferred_lft", "150")),
        ("10.0.0.3", ()),
    ):
        run_inside(apart, "ip", "address", "add", f"{address}/32", "dev", "lo", *times)
    now = network.monotonic()
    monkeypatch.setattr(network, "monotonic", lambda: now)
    with contextlib.closing(Watch(apart, [])) as watch:
        read = lifetimes(watch._state["addresses"])
        now += 200.5
        watch.freeze()
        watch.write(tmp_path)
    found = lifetimes(json.loads((tmp_path / network.NAME).read_text())["addresses"])
    assert found["10.0.0.1"] == (0, read["10.0.0.1"][1] - 200)
    assert found["10.0.0.2"] == (0, 1)
    assert found["10.0.0.3"] == (routing.NEVER, routing.NEVER)


def test_routes_that_end_by_themselves_do_so_again(apart, monkeypatch, tmp_path):
    """Those that routers advertise, for example."""
    for words in (
        PAIR,
        "ip link set va up",
        "ip link set vb up",
        "ip -6 route add fd05::/64 dev va expires 900",
    ):
        run_inside(apart, *words.split())
    now = network.monotonic()
    monkeypatch.setattr(network, "monotonic", lambda: now)
    with contextlib.closing(Watch(apart, [])) as watch:
        now += 200.5
        watch.freeze()
        watch.write(tmp_path)
    state = json.loads((tmp_path / network.NAME).read_text())
    (row,) = (row for row in state["routes"] if row["attributes"]["RTA_DST"] == "fd05::")
    assert 0 < row["expires"] <= 700
    run_inside(apart, "ip", "-6", "route", "del", "fd05::/64")
    network.put_back(apart, state)
    shown = run_inside(
        apart, "ip", "-6", "-j", "route", "show", "fd05::/64", stdout=subprocess.PIPE
    )
    assert 0 < json.loads(shown.stdout)[0]["expires"] <= row["expires"]


@pytest.mark.parametrize("look", ["rehearse", "freeze"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ip tuntap add odd0 mode tun", "'odd0' is a tun"),
        ("tc qdisc add dev lo root pfifo", "'lo' has the queueing discipline 'pfifo'"),
    ],
)
def test_what_has_come_since_the_first_look_is_refused(apart, watch, look, words, message):
    run_inside(apart, *words.split())
    with pytest.raises(UnsupportedError, match=message):
        getattr(watch, look)()


def test_a_legacy_table_that_has_come_since_the_first_look_is_refused(monkeypatch, watch):
    """Nothing tells of them."""
    watch.rehearse()
    table = Obstacle(kind="unsupported", message="has the table", hint=None, object="legacy_table")
    monkeypatch.setattr(network, "_legacy_tables", lambda: [table])
    with pytest.raises(UnsupportedError, match="has the table"):
        watch.rehearse()


def test_a_look_that_fails_leaves_nothing(monkeypatch, apart):
    def fail(*_, **__):
        raise HostError("no")

    monkeypatch.setattr(routing, "read", fail)
    before = open_fds(), resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(HostError):
        Watch(apart, [])
    assert (open_fds(), resource.getrlimit(resource.RLIMIT_NOFILE)) == before


def test_a_look_under_the_stop_that_fails_leaves_nothing(monkeypatch, apart):
    """Settings that are closed already are not closed again: their numbers may be those of others."""

    def fail():
        raise HostError("no")

    before = open_fds(), resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.closing(Watch(apart, [])) as watch:
        run_inside(apart, *PAIR.split())
        monkeypatch.setattr(sysctl, "paths", fail)
        with pytest.raises(HostError):
            watch.freeze()
    assert (open_fds(), resource.getrlimit(resource.RLIMIT_NOFILE)) == before


def test_writes_are_not_counted_where_the_container_would_not_be_among_the_writers(tmp_path):
    """It is outside of what the mounted cgroups show."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text("1:name=systemd:/\n0::/../lxc.payload.web\n")
    with pytest.raises(HostError, match="cgroup v2 with process 7 in it is mounted nowhere"):
        sysctl.count_writes(7, proc=tmp_path)


def test_a_kernel_that_does_not_count_says_why(monkeypatch):
    def refuse(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(sysctl, "SettingWrites", refuse)
    mount = SimpleNamespace(type="cgroup2", root="/", place="/c")
    monkeypatch.setattr(sysctl.mounts, "read", lambda _: [mount])
    with pytest.raises(HostError, match="who writes settings: Invalid argument") as caught:
        sysctl.count_writes(os.getpid())
    assert "CONFIG_CGROUP_BPF" in caught.value.hint


def test_what_a_clone_has_of_its_own():
    """Whatever others outside see: also the bridge that eth0 is a port of, and a vlan on that."""
    mine = {**LINK, "address": "02:00:00:00:00:01", "below": None}
    links = [
        {**mine, "name": "eth0", "runtime": True, "master": "br0"},
        {**mine, "name": "br0", "kind": "bridge"},
        {**mine, "name": "v5", "kind": "vlan", "below": "br0"},
        {**mine, "name": "va", "below": "vb"},
    ]
    addresses = [
        {"index": name, "attributes": {"IFA_PROTO": proto}}
        for name in ("br0", "v5", "va")
        for proto in (None, 3)
    ]
    routes = [
        {"attributes": {"RTA_OIF": "br0"}},
        {"attributes": {"RTA_MULTIPATH": [{"oif": "va"}, {"oif": "v5"}]}},
        {"attributes": {"RTA_OIF": "va"}},
        {"attributes": {}},
    ]
    state = {"links": links, "addresses": addresses, "routes": routes}
    keep, fresh = copy.deepcopy(state), copy.deepcopy(state)
    network.forget_identity(keep, addresses=True)
    network.forget_identity(fresh, addresses=False)
    for one in (keep, fresh):
        assert [link["name"] for link in one["links"] if link["address"]] == ["va"]
    assert keep["addresses"] == [
        row for row in addresses if row["index"] == "va" or not row["attributes"]["IFA_PROTO"]
    ]
    assert keep["routes"] == routes
    assert [row["index"] for row in fresh["addresses"]] == ["va", "va"]
    assert fresh["routes"] == routes[2:]


def test_an_interruption_while_settings_are_opened(apart, monkeypatch):
    """The thread that opens them goes on; they are closed when it has ended."""
    paths = sysctl.paths

    def slowly():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
        time.sleep(0.3)
        return paths()

    monkeypatch.setattr(sysctl, "paths", slowly)
    before = open_fds(), resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(Cancelled), signals_cancel():
        Watch(apart, [])
    assert (open_fds(), resource.getrlimit(resource.RLIMIT_NOFILE)) == before
