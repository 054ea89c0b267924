# SPDX-License-Identifier: LGPL-2.1-or-later
"""Routes that a router has advertised are that router's own after a restart as well."""

import contextlib
import json
import subprocess

import pytest

from lxc_cr_plugin import network
from lxc_cr_plugin.errors import ImageError
from lxc_cr_plugin.network import Nic, Watch, advertised, routing

from ..integration.container import wait_until
from . import processes
from .processes import run_inside

# A router's advertisement (RFC 4861): interface, seconds to live, preference, hop limit; with the route
# fd06::/48 (RFC 4191).
ADVERTISE = """
import socket, struct, sys
name, life, preference, hops = sys.argv[1], *map(int, sys.argv[2:])
number = socket.if_nametoindex(name)
with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as router:
    router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, number)
    head = struct.pack("!BBHBBHII", 134, 0, 0, hops, preference << 3, life, 0, 0)
    to = socket.inet_pton(socket.AF_INET6, "fd06::")[:8]
    option = struct.pack("!BBBBI", 24, 2, 48, preference << 3, life) + to
    router.sendto(head + option, ("ff02::1", 0, 0, number))
"""
HIGH = 1

SETTINGS = {
    "va": {"accept_dad": 0, "accept_ra": 2, "accept_ra_rt_info_max_plen": 48},
    "vb": {"accept_dad": 0, "accept_ra": 0},
}


@pytest.fixture
def apart(tmp_path):
    """The pids of a container's init and of a router, that are connected: va to vb."""
    (tmp_path / "router").mkdir()
    with (
        processes.apart("net", tmp_path) as inside,
        processes.apart("net", tmp_path / "router") as router,
    ):
        pids = inside.pid, router.pid
        pair = f"ip link add va type veth peer name vb netns {router.pid}"
        run_inside(inside.pid, *pair.split())
        for pid, (link, settings) in zip(pids, SETTINGS.items(), strict=True):
            for name, value in settings.items():
                line = f"echo {value} >/proc/sys/net/ipv6/conf/{link}/{name}"
                run_inside(pid, "sh", "-c", line)
            run_inside(pid, "ip", "link", "set", link, "up")
        for pid, link in zip(pids, SETTINGS, strict=True):
            wait_until(lambda p=pid, n=link: _ready(p, n), what=f"an address of {link}")
        yield pids


def _ready(pid, link):
    words = f"ip -j -6 address show dev {link} scope link -tentative"
    found = run_inside(pid, *words.split(), stdout=subprocess.PIPE).stdout
    return any(row.get("addr_info") for row in json.loads(found))


def advertise(router, *, life, hops):
    words = ("python3", "-c", ADVERTISE, "vb", str(life), str(HIGH), str(hops))
    run_inside(router, *words)


def heard(pid, hops):
    """Whether the kernel has read an advertisement to its end."""
    path = "/proc/sys/net/ipv6/conf/va/hop_limit"
    shown = run_inside(pid, "cat", path, stdout=subprocess.PIPE).stdout
    return int(shown) == hops


def routes(pid):
    """Of the router: by destination."""
    words = ("ip", "-j", "-6", "route", "show", "dev", "va")
    shown = run_inside(pid, *words, stdout=subprocess.PIPE).stdout
    return {row["dst"]: row for row in json.loads(shown) if row.get("gateway")}


def test_a_router_renews_and_revokes_its_routes_after_a_restart(apart, tmp_path):
    """Twice: the second image is of routes that the first restart has made."""
    inside, router = apart
    advertise(router, life=900, hops=70)
    wait_until(lambda: heard(inside, 70), what="the first advertisement")
    for _ in range(2):
        with contextlib.closing(Watch(inside, [Nic(0, "veth", "va")])) as watch:
            watch.freeze()
            watch.write(tmp_path)
        state = json.loads((tmp_path / network.NAME).read_text())
        network.refuse_unknown(state)
        for to in routes(inside):
            run_inside(inside, "ip", "-6", "route", "del", to)
        assert not routes(inside)
        network.put_back(inside, state)
        back = routes(inside)
        assert set(back) == {"default", "fd06::/48"}
        assert all(0 < row["expires"] <= 900 for row in back.values())
        assert all(row["pref"] == "high" for row in back.values())
    advertise(router, life=5000, hops=71)
    wait_until(lambda: heard(inside, 71), what="the renewal")
    wait_until(
        lambda: all(row["expires"] > 900 for row in routes(inside).values()), what="longer lives"
    )
    assert set(routes(inside)) == {"default", "fd06::/48"}
    advertise(router, life=0, hops=72)
    wait_until(lambda: not routes(inside), what="the end of the routes")


def test_a_route_that_a_program_has_set_is_no_routers(apart):
    """NetworkManager, for example, reads advertisements by itself: with RTPROT_RA, and no flags."""
    inside, _ = apart
    route = "ip -6 route add default via fe80::1 dev va proto ra metric 1024 expires 900"
    run_inside(inside, *route.split())
    with contextlib.closing(Watch(inside, [Nic(0, "veth", "va")])) as watch:
        (row,) = (row for row in watch._state["routes"] if row["attributes"].get("RTA_GATEWAY"))
    assert "advertised" not in row


def test_a_router_that_is_faster_than_the_restart_fails_nothing(apart):
    inside, router = apart
    advertise(router, life=900, hops=70)
    wait_until(lambda: heard(inside, 70), what="the advertisement")
    with contextlib.closing(Watch(inside, [Nic(0, "veth", "va")])) as watch:
        rows = [row for row in watch._state["routes"] if row.get("advertised")]
        links = {link["name"]: link["index"] for link in watch._state["links"]}
        assert len(rows) == 2
        for row in rows:
            assert watch._namespace.call(lambda r=row: advertised.add(r, links, ticks=100)) == 0


def test_no_other_route_of_an_image_is_made_that_way():
    """The ioctl knows only the main table and IPv6."""
    row = {
        "family": 2, "dst_len": 0, "proto": 9, "advertised": True,
        "attributes": {"RTA_GATEWAY": "10.0.0.1", "RTA_OIF": "va", "RTA_TABLE": 254},
    }  # fmt: skip
    with pytest.raises(ImageError, match="no router advertises"):
        routing._send(routing.ROUTE, row, numbers={"va": 3}, what=routing.ROUTE.table.new)
