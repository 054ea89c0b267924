# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bridges inside a container: what is set of them comes back, or stands in the way."""

import contextlib
import errno
import json
import struct
import subprocess

import pytest

from lxc_cr_plugin import network
from lxc_cr_plugin.errors import HostError, ImageError, UnsupportedError
from lxc_cr_plugin.network import Watch, bridges, ears, netlink, unsaved

from ..integration.container import wait_until
from . import processes
from .processes import run_inside

MAKE = """\
ip link add b0 type bridge
ip link add va type veth peer name vb
ip link add wa type veth peer name wb
ip link set va master b0
ip link set wa master b0
ip link set b0 up
ip link set va up
ip link set vb up
"""

# Nothing of it is so by itself.
SET = """\
ip link set b0 type bridge group_address 01:80:c2:00:00:04 group_fwd_mask 8 mcast_hash_max 512
ip link set b0 type bridge mcast_query_use_ifaddr 1 mcast_stats_enabled 1 mcast_igmp_version 3
ip link set b0 type bridge mcast_mld_version 2 mcast_last_member_count 3 mcast_startup_query_count 4
ip link set b0 type bridge mcast_last_member_interval 200 mcast_membership_interval 30000
ip link set b0 type bridge mcast_querier_interval 30100 mcast_query_interval 13000
ip link set b0 type bridge mcast_query_response_interval 1100 mcast_startup_query_interval 3200
ip link set b0 type bridge nf_call_iptables 1 nf_call_ip6tables 1 nf_call_arptables 1
ip link set va type bridge_slave cost 77 priority 9 hairpin on guard on root_block on fastleave on
ip link set va type bridge_slave learning off flood off mcast_flood off bcast_flood off
ip link set va type bridge_slave mcast_to_unicast on mcast_router 2 neigh_suppress on
ip link set va type bridge_slave group_fwd_mask 8 isolated on backup_port wa
ip link set wa type bridge_slave proxy_arp on proxy_arp_wifi on locked on
ip link set wa type bridge_slave vlan_tunnel on
"""

ENTRIES = """\
bridge fdb add 02:00:00:00:00:11 dev va master static
bridge fdb add 02:00:00:00:00:12 dev va master static sticky
bridge fdb add 02:00:00:00:00:13 dev wa master permanent
bridge fdb add 02:00:00:00:00:14 dev va master extern_learn
bridge fdb add 02:00:00:00:00:15 dev b0 self local
"""
LEARNED = "bridge fdb add 02:00:00:00:00:16 dev va master dynamic"


@pytest.fixture
def apart(tmp_path):
    """The pid of a process in a network of its own, with a bridge that has two ports."""
    with processes.apart("net", tmp_path) as shell:
        set_up(shell.pid, MAKE)
        yield shell.pid


def set_up(pid, lines):
    for line in lines.splitlines():
        run_inside(pid, *line.split())


def shown(pid, *words):
    return json.loads(run_inside(pid, *words, stdout=subprocess.PIPE).stdout)


def saved(pid, directory):
    """What an image says of its network, as a restart has it."""
    with contextlib.closing(Watch(pid, [])) as watch:
        assert not watch.obstacles()
        watch.freeze()
        watch.write(directory)
    state = json.loads((directory / network.NAME).read_text())
    assert not network.violations(state, schema="network.json")
    network.refuse_unknown(state)
    return state


def lose(pid):
    set_up(pid, "ip link del b0\nip link del va\nip link del wa")


# What goes by itself, or is a number that the kernel gives.
PASSING = {"gc_timer", "forward_delay_timer", "message_age_timer", "hold_timer", "hello_timer"}
PASSING |= {"tcn_timer", "topology_change_timer", "state", "mcast_n_groups"}


def bridge_data(pid):
    """Of the bridge and its ports, by name."""
    return {
        row["ifname"]: {
            part: {key: value for key, value in info.items() if key not in PASSING}
            for part, info in row["linkinfo"].items()
            if part in ("info_data", "info_slave_data")
        }
        for row in shown(pid, "ip", "-j", "-d", "link")
        if "linkinfo" in row
    }


def test_what_is_set_of_bridges_and_ports_comes_back(apart, tmp_path):
    plain = bridge_data(apart)
    set_up(apart, SET)
    before = bridge_data(apart)
    for name, part, at_least in (("b0", "info_data", 18), ("va", "info_slave_data", 14)):
        ours, others = before[name][part], plain[name][part]
        assert sum(value != others.get(key) for key, value in ours.items()) >= at_least
    state = saved(apart, tmp_path)
    lose(apart)
    network.put_back(apart, state)
    assert bridge_data(apart) == before


def test_every_attribute_of_a_port_that_this_kernel_sets_comes_back(apart, tmp_path):
    """Also those for which ip(8) has no words."""
    set_up(apart, SET)
    with contextlib.closing(Watch(apart, [])) as watch:
        links = {link["name"]: link for link in watch._state["links"]}
    late = {"IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT": 99, "IFLA_BRPORT_MCAST_MAX_GROUPS": 50}
    late |= {"IFLA_BRPORT_MAB": 1, "IFLA_BRPORT_NEIGH_VLAN_SUPPRESS": 1}
    (tmp_path / "image").mkdir()
    state = saved(apart, tmp_path / "image")
    (link,) = (link for link in state["links"] if link["name"] == "wa")
    known = {key: value for key, value in late.items() if key in links["wa"]["port"]}
    link["port"] |= known | {"IFLA_BRPORT_LEARNING": 1}
    lose(apart)
    network.put_back(apart, state)
    found = {link["name"]: link for link in saved(apart, tmp_path)["links"]}
    assert found["wa"]["port"] == link["port"]
    assert found["va"]["port"] == links["va"]["port"]


def test_an_image_that_does_not_tell_of_ports_is_restarted(apart, tmp_path):
    """They were not looked at once."""
    state = saved(apart, tmp_path)
    assert "forwarding" not in state
    ports = [link["name"] for link in state["links"] if link.pop("port", None)]
    assert sorted(ports) == ["va", "wa"]
    before = bridge_data(apart)
    lose(apart)
    network.put_back(apart, state)
    assert bridge_data(apart) == before


@pytest.mark.parametrize(
    "port", [{"IFLA_BRPORT_FLUSH": 1}, {"IFLA_BRPORT_COST": [1]}, {"IFLA_BR_PRIORITY": 1}]
)
def test_what_no_checkpoint_writes_of_a_port_is_refused(apart, tmp_path, port):
    state = saved(apart, tmp_path)
    state["links"][-1]["port"] = port
    with pytest.raises(ImageError):
        network.refuse_unknown(state)


def entries(pid):
    """Of the bridge's table, but for what is learned and its own."""
    rows = shown(pid, "bridge", "-j", "fdb", "show", "br", "b0")
    return sorted(
        (row["mac"], row["ifname"], row["state"], tuple(row["flags"]))
        for row in rows
        if row["mac"].startswith("02:00:00:00:00:1")
    )


def test_static_entries_of_a_bridge_come_back(apart, tmp_path):
    set_up(apart, ENTRIES)
    before = entries(apart)
    assert len(before) == len(ENTRIES.splitlines())
    set_up(apart, LEARNED)
    state = saved(apart, tmp_path)
    assert len(state["forwarding"]) == len(before)  # neither learned ones nor the ports' own
    lose(apart)
    network.put_back(apart, state)
    assert entries(apart) == before


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("verb", ["add", "del"])
def test_an_entry_that_is_set_later_is_in_the_image(apart, which, verb):
    line = ENTRIES.splitlines()[which]
    words = line.replace("add", verb).split()
    if verb == "del":
        set_up(apart, line)
    with contextlib.closing(Watch(apart, [])) as watch:
        watch.rehearse()
        run_inside(apart, *words)
        watch.freeze()
        assert len(watch._state.get("forwarding", ())) == (verb == "add")


@pytest.mark.parametrize(
    ("state", "flags", "passes"),
    [
        (0x02, 0, True),  # NUD_REACHABLE: learned
        (0x40, 0, False),  # NUD_NOARP: static
        (0x80, 0, False),  # NUD_PERMANENT
        (0x02, 0x10, False),  # NTF_EXT_LEARNED
    ],
)
def test_what_is_learned_has_nothing_read_again(state, flags, passes):
    body = struct.pack("=B3xiHBB", netlink.AF_BRIDGE, 5, state, flags, 0)
    for what in (netlink.NEIGHBOUR.new, netlink.NEIGHBOUR.delete):
        assert ears._passes_by(what, bytes(netlink.HEADER.size) + body) is passes


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("ip link set b0 type bridge no_linklocal_learn 1", "'b0' has another IFLA_BR_MULTI_BOOL"),
        ("bridge link set dev va state 1", "'va' has another IFLA_BRPORT_STATE"),
        ("bridge link set dev va state 0", "'va' has another IFLA_BRPORT_STATE"),
        ("bridge mdb add dev b0 port va grp 239.1.1.1 permanent", "Port 'va' of a bridge has"),
        (
            "ip link add m0 link vb type macvlan mode bridge bcqueuelen 7",
            "'m0' has another IFLA_MACVLAN_BC_QUEUE_LEN",
        ),
        (
            "ip link add m0 link vb type macvlan mode bridge nodst",
            "'m0' has another IFLA_MACVLAN_FLAGS",
        ),
        (
            "ip link add m0 link vb type macvlan mode source\n"
            "ip link set m0 type macvlan macaddr add 02:00:00:00:00:77",
            "'m0' has another IFLA_MACVLAN_MACADDR_COUNT",
        ),
    ],
)
def test_what_cannot_come_back_is_refused(apart, lines, message):
    wait_until(lambda: runs(apart, "va"), what="carrier")
    with contextlib.closing(Watch(apart, [])) as watch:
        assert not watch.obstacles()
        set_up(apart, lines)
        with pytest.raises(UnsupportedError, match=message):
            watch.rehearse()
    with contextlib.closing(Watch(apart, [])) as watch:
        (obstacle,) = watch.obstacles()
        assert message in obstacle.message


def test_an_interface_with_a_token_is_refused(apart):
    run_inside(apart, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/vb/accept_ra")
    run_inside(apart, "ip", "token", "set", "::5", "dev", "vb")
    with contextlib.closing(Watch(apart, [])) as watch:
        (obstacle,) = watch.obstacles()
    assert "'vb' has another IFLA_INET6_TOKEN" in obstacle.message


def runs(pid, name):
    (row,) = shown(pid, "ip", "-j", "link", "show", "dev", name)
    return row["operstate"] == "UP"


def test_a_port_that_stp_blocks_is_no_obstacle(apart):
    set_up(apart, "ip link set b0 type bridge stp_state 1\nbridge link set dev wa cost 5")
    with contextlib.closing(Watch(apart, [])) as watch:
        assert not watch.obstacles()


def attribute(number, *values):
    data = b"".join(values)
    return struct.pack("=HH", 4 + len(data), number) + data + bytes(-len(data) % 4)


def vlans(name, *numbers):
    """As a kernel that filters VLANs tells of a port of a bridge; the first one is the port's own."""
    table = [
        attribute(bridges.VLAN_INFO, bridges.BRIDGE_VLAN_INFO.pack(0 if place else 6, number))
        for place, number in enumerate(numbers)
    ]
    text = attribute(bridges.IFNAME, name.encode() + b"\0")
    return bytes(netlink.IFINFOMSG.size) + text + attribute(bridges.AF_SPEC | 0x8000, *table)


@pytest.mark.parametrize(
    ("numbers", "refused"), [((), False), ((1,), False), ((1, 7), True), ((7,), True)]
)
def test_a_table_of_vlans_is_refused(monkeypatch, numbers, refused):
    """By messages: the kernel of the tests does not filter VLANs."""
    answers = {bridges.GET_GROUPS: [], netlink.LINK.get: [vlans("b0", 1), vlans("va", *numbers)]}
    monkeypatch.setattr(netlink, "dump_raw", lambda what, _: answers[what])
    found = list(bridges.obstacles([{"kind": "bridge", "index": 5, "name": "b0"}]))
    assert [one.message for one in found] == ["Bridge or port 'va' has a table of VLANs"] * refused


def test_a_kernel_without_multicast_groups_has_none(monkeypatch):
    def dump(what, _):
        if what == bridges.GET_GROUPS:
            raise HostError("no", errno=errno.EOPNOTSUPP)
        return []

    monkeypatch.setattr(netlink, "dump_raw", dump)
    assert not list(bridges.obstacles([{"kind": "bridge", "index": 5, "name": "b0"}]))


def message(kind, *data, place=unsaved.DATA):
    """As the kernel tells of an interface."""
    outer, inner = place
    body = attribute(outer, attribute(inner, *data))
    head = bytes(netlink.HEADER.size + netlink.IFINFOMSG.size)

    class Message:
        data = head + body

    return unsaved.attributes(Message, kind=kind, port=True)


@pytest.mark.parametrize(
    ("kind", "number", "value", "fine"),
    [
        ("bridge", 7, bytes([0]), True),
        ("bridge", 7, bytes([1]), False),
        ("bridge", 8, b"\x81\0", True),
        ("bridge", 8, b"\x88\xa8", False),
        ("bridge", 39, struct.pack("=H", 1), True),
        ("bridge", 39, struct.pack("=H", 5), False),
        ("bridge", 46, struct.pack("=II", 0, 0x1F), True),
        ("bridge", 50, struct.pack("=I", 0), True),
        ("bridge", 50, struct.pack("=I", 1), False),
        ("vlan", 2, struct.pack("=II", 1, 0xFFFFFFFF), True),
        ("vlan", 2, struct.pack("=II", 3, 0xFFFFFFFF), False),
        ("vlan", 3, attribute(1, struct.pack("=II", 1, 2)), False),
        ("veth", 7, bytes([1]), True),
    ],
)
def test_what_the_kernel_of_the_tests_lacks_is_refused(kind, number, value, fine):
    assert bool(message(kind, attribute(number, value))) is not fine


@pytest.mark.parametrize(
    ("number", "value", "name"),
    [
        (44, struct.pack("=I", 5), "IFLA_BRPORT_BACKUP_NHID"),
        (45, bytes([1]), "IFLA_BRPORT_NEIGH_FORWARD_GRAT"),
    ],
)
def test_what_newer_kernels_have_of_ports_is_refused(number, value, name):
    for tells, found in ((value, [name]), (bytes(len(value)), [])):
        assert message(None, attribute(number, tells), place=unsaved.PORT_DATA) == found
