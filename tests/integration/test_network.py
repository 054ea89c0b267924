# SPDX-License-Identifier: LGPL-2.1-or-later
"""The network of a container: what was set up inside is there after a restart."""

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest

from lxc_cr_plugin.errors import UnsupportedError
from lxc_cr_plugin.network import Nic, Watch

from .container import Container, run, wait_until

# What somebody sets up inside, with the host's tools in the container's namespace. A bridge with a pair
# of its own, an interface on another one, two more routing tables, a packet filter.
SETUP = """\
ip link set lo up
ip address add 10.77.0.2/24 dev eth0
ip address add fd77::2/64 dev eth0 nodad
ip link set eth0 mtu 1400 txqueuelen 77 alias uplink
ip link add va type veth peer name vb
ip link add inner type bridge ageing_time 1000
ip link set va master inner
ip link set va type bridge_slave cost 77 priority 9 hairpin on isolated on learning off guard on
ip link set inner type bridge group_fwd_mask 8 mcast_hash_max 512
ip link set va up
ip link set vb up
ip link set inner up
bridge fdb add 02:00:00:00:00:11 dev va master static
ip address add 192.168.9.1/24 dev inner
ip link add mac0 link eth0 type macvlan mode bridge
ip route add default via 10.77.0.1
ip route add 10.5.0.0/16 via 10.77.0.1 table 100 metric 5 mtu 1300
ip route add 10.6.0.0/16 table 200 nexthop via 10.77.0.1 weight 1 nexthop via 10.77.0.9 weight 2
ip route add blackhole 10.7.0.0/16
ip -6 route add fd78::/64 via fd77::9
ip rule add from 10.5.0.0/16 table 100 priority 500
ip rule add fwmark 0x5/0xff iif eth0 table 200 priority 300
ip neighbour add 10.77.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent
nft add table inet guard
nft add set inet guard blocked { type ipv4_addr; elements = { 10.9.0.1, 10.9.0.2 }; }
nft add chain inet guard entry { type filter hook input priority 0; policy accept; }
nft add rule inet guard entry ip saddr @blocked counter drop
nft add rule inet guard entry ct state established,related accept
""".splitlines()

SETTINGS = {"ipv4/ip_forward": "1", "ipv4/conf/eth0/rp_filter": "2", "core/somaxconn": "77"}

# What goes by itself, and numbers that the kernel gives: LXC's own interface has another one, and its
# other end on the host too.
PASSING = {"gc_timer", "forward_delay_timer", "handle", "ifindex", "link_index"}


def in_network_of(container: Container, *command: object, **options):
    """Run a command of the host in the container's network."""
    return run("nsenter", f"--net=/proc/{container.init_pid}/ns/net", *command, **options)


def without(value, names):
    if isinstance(value, dict):
        return {key: without(one, names) for key, one in value.items() if key not in names}
    return [without(one, names) for one in value] if isinstance(value, list) else value


def look(container: Container) -> dict[str, list[str]]:
    """All of its network, as ip(8) and nft(8) tell it."""
    found = {}
    for command in (
        "ip -j -d link", "ip -j address", "ip -j route show table all",
        "ip -j -6 route show table all", "ip -j rule", "ip -j -6 rule",
        "ip -j neighbour show nud permanent", "nft -j list ruleset",
        "bridge -j fdb show br inner state static",
    ):  # fmt: skip
        text = in_network_of(container, *command.split()).stdout
        rows = without(json.loads(text or "[]"), PASSING)
        rows = rows["nftables"] if isinstance(rows, dict) else rows
        found[command] = sorted(json.dumps(row, sort_keys=True) for row in rows)
    for name in SETTINGS:
        found[name] = [in_network_of(container, "cat", f"/proc/sys/net/{name}").stdout.strip()]
    return found


@pytest.fixture
def make_bridge(laboratory):
    """Make bridges on the host, which are gone after the test."""
    made = []

    def make(letter: str) -> str:
        name = laboratory.link(letter)
        run("ip", "link", "add", name, "type", "bridge")
        made.append(name)
        run("ip", "link", "set", name, "up")
        return name

    yield make
    for name in made:
        run("ip", "link", "del", name)


@pytest.fixture
def bridge(make_bridge) -> str:
    """A bridge on the host without any addresses: nothing of its traffic leaves the machine."""
    return make_bridge("a")


def connect(container: Container, bridge: str, *lines: str) -> None:
    """Have LXC connect the container to a bridge, with a random MAC address."""
    config = container.directory / "config"
    text = config.read_text().replace("lxc.net.0.type = empty\n", "")
    config.write_text(text)
    container.configure(
        "lxc.net.0.type = veth", f"lxc.net.0.link = {bridge}", "lxc.net.0.flags = up", *lines
    )


@pytest.fixture
def connected(container, bridge) -> Container:
    """A container on the bridge, made and not yet started."""
    connect(container, bridge)
    return container


def mac(container: Container) -> str:
    return json.loads(in_network_of(container, "ip", "-j", "link", "show", "eth0").stdout)[0][
        "address"
    ]


def ports(bridge: str) -> set[str]:
    """What is connected to a bridge of the host."""
    return {path.name for path in Path(f"/sys/class/net/{bridge}/brif").iterdir()}


def set_up(container: Container) -> None:
    for line in SETUP:
        in_network_of(container, *re.split(r" (?![^{]*})", line))
    for name, value in SETTINGS.items():
        in_network_of(container, "sh", "-c", f"echo {value} >/proc/sys/net/{name}")


def test_all_that_was_set_up_inside_comes_back(connected):
    victim = connected.add_victim("ledger")
    connected.start()
    victim.ready()
    set_up(connected)
    # a second goes by until the kernel has looked for others with its addresses
    in_network_of(
        connected, "sh", "-c", "while ip -6 address | grep -q tentative; do sleep 0.1; done"
    )
    before = look(connected)
    connected.checkpoint("--stop")
    connected.restart()
    # The kernel looks at carriers up to a second after interfaces have come up.
    links = "ip -j -d link"
    with suppress(TimeoutError):
        wait_until(lambda: look(connected)[links] == before[links], what="carrier", timeout=60)
    after = look(connected)
    for key, rows in before.items():
        assert after[key] == rows, key
    victim.verify()
    shown = connected.cr("inspect", connected.name).result["network"]
    assert {"va", "vb", "inner", "mac0", "eth0"} <= {link["name"] for link in shown["links"]}


def test_what_changes_after_the_first_look_is_in_the_image(connected, tmp_path):
    connected.start()
    watch = Watch(connected.init_pid, [Nic(0, "veth", "eth0")])
    try:
        in_network_of(connected, "ip", "address", "add", "10.77.0.3/24", "dev", "eth0")
        in_network_of(connected, "nft", "add", "table", "inet", "late")
        in_network_of(connected, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        watch.freeze()
        watch.write(tmp_path)
    finally:
        watch.close()
    state = json.loads((tmp_path / "network.json").read_text())
    assert "10.77.0.3" in [row["attributes"].get("IFA_LOCAL") for row in state["addresses"]]
    assert "table inet late" in state["filter"]
    assert state["settings"]["ipv4/ip_forward"] == "1"


def test_what_comes_after_the_first_look_is_refused_too(connected):
    connected.start()
    watch = Watch(connected.init_pid, [Nic(0, "veth", "eth0")])
    try:
        in_network_of(connected, *REFUSED["tun"].split())
        with pytest.raises(UnsupportedError, match="'odd0' is a tun"):
            watch.freeze()
    finally:
        watch.close()


def test_packets_flow_through_the_bridge_afterwards(connected, bridge, new_container):
    other = new_container()
    connect(other, bridge, "lxc.net.0.ipv4.address = 10.77.0.1/24")
    other.start()
    connected.start()
    in_network_of(connected, "ip", "address", "add", "10.77.0.2/24", "dev", "eth0")
    before = mac(connected)
    connected.attach("ping", "-c", "1", "-W", "5", "10.77.0.1")
    connected.checkpoint("--stop")
    connected.restart()
    assert mac(connected) == before
    connected.attach("ping", "-c", "1", "-W", "5", "10.77.0.1")


@pytest.mark.parametrize("which", ["eth0", "bridge"])
def test_another_bridge_takes_the_place_of_the_first(which, connected, bridge, make_bridge):
    connected.start()
    connected.checkpoint("--stop")
    other = make_bridge("b")
    old = bridge if which == "bridge" else which
    connected.restart("--bridge", f"{old}={other}")
    assert not ports(bridge)
    assert len(ports(other)) == 1


@pytest.mark.parametrize("wrong", ["nosuch={bridge}", "eth0=nobridge"])
def test_a_bridge_that_is_not_there_is_refused(wrong, connected, bridge):
    connected.start()
    connected.checkpoint("--stop")
    outcome = connected.try_cr("restart", connected.name, "--bridge", wrong.format(bridge=bridge))
    assert outcome.code == 10
    assert wrong.replace("eth0=", "").partition("=")[0] in outcome.result["message"]
    assert connected.state == "STOPPED"
    connected.restart()


def test_a_failed_restart_leaves_no_interface(connected, bridge):
    connected.start()
    connected.checkpoint("--stop")
    outcome = connected.try_cr("restart", connected.name, LXC_CR_FAULT="restart-states!")
    assert outcome.code == 10
    assert connected.state == "STOPPED"
    assert not ports(bridge)


def test_a_missing_interface_fails_the_restart(connected, bridge):
    connected.start()
    connected.checkpoint("--stop")
    connected.configure("lxc.net.0.name = other0")
    outcome = connected.try_cr("restart", connected.name)
    assert outcome.result["message"] == "LXC has made no network interface 'eth0'"
    assert connected.state == "STOPPED"
    assert not ports(bridge)


REFUSED = {
    "tun": "ip tuntap add dev odd0 mode tun",
    "vxlan": "ip link add odd0 type vxlan id 5 dev eth0 dstport 4789",
}


def test_a_queueing_discipline_is_refused(connected):
    connected.start()
    in_network_of(
        connected,
        *[
            "tc",
            "qdisc",
            "add",
            "dev",
            "eth0",
            "root",
            "tbf",
            "rate",
            "1mbit",
            "burst",
            "4k",
            "latency",
            "1s",
        ],
    )
    outcome = connected.try_cr("checkpoint", connected.name)
    assert outcome.code == 4
    assert "'tbf'" in outcome.text
    assert connected.state == "RUNNING"


@pytest.mark.parametrize("kind", REFUSED)
def test_interfaces_of_other_kinds_are_refused(kind, connected):
    connected.start()
    in_network_of(connected, *REFUSED[kind].split())
    for verb in ("check", "checkpoint"):
        outcome = connected.try_cr(verb, connected.name)
        assert outcome.code == 4
        assert f"'odd0' is a {kind}" in outcome.text
        assert outcome.result["object"] == "network_interface"
    assert connected.state == "RUNNING"
    in_network_of(connected, "ip", "link", "del", "odd0")
    connected.checkpoint()


def test_a_filter_that_nft_lists_and_does_not_read_is_refused(connected):
    """Before anything is stopped: a restart would find out when the container is gone."""
    connected.start()
    named = {"nftables": [{"add": {"table": {"family": "inet", "name": "counter"}}}]}
    in_network_of(connected, "nft", "-j", "-f", "-", input=json.dumps(named))
    for verb in ("check", "checkpoint"):
        outcome = connected.try_cr(verb, connected.name)
        assert outcome.code == 4
        assert outcome.result["object"] == "packet_filter"
    assert connected.state == "RUNNING"
    in_network_of(connected, "nft", "flush", "ruleset")
    # Bytes that are no UTF-8 are a comment like any other.
    rules = b'table inet guard {\n\tchain entry {\n\t\taccept comment "caf\xe9"\n\t}\n}\n'
    rules_file = connected.directory / "rules"
    rules_file.write_bytes(rules)
    in_network_of(connected, "nft", "-f", rules_file)
    connected.checkpoint("--stop")
    connected.restart()
    shown = in_network_of(connected, "nft", "list", "ruleset", errors="surrogateescape").stdout
    assert shown.encode(errors="surrogateescape") == rules
