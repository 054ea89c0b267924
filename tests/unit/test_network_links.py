# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kinds of interfaces that not every kernel has, by messages that ip(8) sends to make them.

They were recorded with `strace -e trace=sendmsg -e write=all`: RTM_NEWLINK with the flags of NEW. An
answer of the kernel about such an interface has the same attributes.
"""

import contextlib
import errno
import os
import socket
import struct

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from lxc_cr_plugin.errors import HostError
from lxc_cr_plugin.network import links, netlink

# ip link add link lo name v1 index 9 type vlan id 5 protocol 802.1ad
VLAN = """
    50000000 10000506 c68a0d6b 00000000 00000000 09000000 00000000 00000000
    08000500 01000000 07000300 76310000
    20001200 08000100 766c616e 14000200 06000100 05000000 06000500 88a80000
"""

# ip link add name dm0 type dummy
DUMMY = """
    38000000 10000506 c68a0d6b 00000000 00000000 00000000 00000000 00000000
    08000300 646d3000 10001200 09000100 64756d6d 79000000
"""

# ip link add name if0 type ifb
IFB = """
    34000000 10000506 c68a0d6b 00000000 00000000 00000000 00000000 00000000
    08000300 69663000 0c001200 07000100 69666200
"""

HEADER = struct.Struct("=IHHII")


class Socket:
    """Keeps what is sent, and has it acknowledged."""

    def __init__(self, sent):
        self.sent = sent

    def __call__(self, *_):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def bind(self, _address):
        pass

    def send(self, data):
        self.sent.append(data)

    def recv(self, _size):
        return HEADER.pack(20, 2, 0, 1, 0) + struct.pack("=i", 0)


@pytest.fixture
def sent(monkeypatch):
    found = []
    monkeypatch.setattr(netlink.socket, "socket", Socket(found))
    return found


def parsed(data):
    message = ifinfmsg(data)
    message.decode()
    return message


def attributes(message):
    """Without the padding, and whatever their order is."""
    found = {}
    for name, value in message["attrs"]:
        found[name] = attributes(value) if isinstance(value, dict) and "attrs" in value else value
    return found


@pytest.mark.parametrize(
    ("recorded", "kind", "below", "data"),
    [
        (VLAN, "vlan", "lo", {"IFLA_VLAN_ID": 5, "IFLA_VLAN_PROTOCOL": 0x88A8}),
        (DUMMY, "dummy", None, {}),
        (IFB, "ifb", None, {}),
    ],
)
def test_made_again_as_ip_makes_it(recorded, kind, below, data, sent):
    theirs = bytes.fromhex(recorded)
    state = links._state(parsed(theirs), {1: "lo"}, [])
    assert (state["kind"], state["below"], state["data"]) == (kind, below, data)
    assert not list(links.obstacles([state]))
    links.refuse_unknown([state])
    assert links._create(state, None, 1 if below else 0, numbered=True) == 0
    (ours,) = sent
    length, what, flags, *_ = HEADER.unpack_from(ours)
    assert (length, what, flags) == (len(ours), *HEADER.unpack_from(theirs)[1:3])
    assert attributes(parsed(ours)) == attributes(parsed(theirs))
    assert parsed(ours)["index"] == parsed(theirs)["index"]


def test_a_vlan_on_nothing_that_is_known_leads_out():
    state = links._state(parsed(bytes.fromhex(VLAN)), {}, [])
    (obstacle,) = links.obstacles([state])
    assert "'v1' (vlan) leads out" in obstacle.message


def test_a_dump_that_fails_in_the_middle():
    """The kernel tells so in the message that ends it."""

    def message(kind, body):
        return netlink.HEADER.pack(netlink.HEADER.size + len(body), kind, 2, 1, 0) + body

    def collect(*messages):
        with contextlib.ExitStack() as scope:
            ours, theirs = (
                scope.enter_context(end)
                for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            )
            for one in messages:
                theirs.send(one)
            return netlink._collect(ours, "ifinfmsg")

    link = message(netlink.LINK.new, bytes(16))
    assert collect(link, message(netlink.NLMSG_DONE, bytes(4))) == ([link], True)
    assert collect(link, message(netlink.NLMSG_DONE, b"")) == ([link], True)
    for kind in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR):
        with pytest.raises(HostError, match=os.strerror(errno.ENOBUFS)):
            collect(link, message(kind, struct.pack("=i", -errno.ENOBUFS)))
