# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attributes of interfaces that nobody puts back: what they are by themselves, and whatever else is refused.

pyroute2 does not know some of them, and others only in some versions: they are looked for in the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from .netlink import HEADER, IFINFOMSG, inside

# IFLA_LINKINFO with IFLA_INFO_KIND, IFLA_INFO_DATA and IFLA_INFO_SLAVE_DATA; IFLA_AF_SPEC with AF_INET6.
DATA, PORT_DATA, INET6 = (18, 2), (18, 5), (26, 10)


class Attribute(NamedTuple):
    """One that is as @default says, in its first bytes; None: it should not be there at all."""

    number: int
    name: str
    default: bytes | None


def _number(value: int) -> bytes:
    return struct.pack("=I", value)


OF_ALL = (Attribute(7, "IFLA_INET6_TOKEN", bytes(16)),)
OF_PORTS = (
    Attribute(44, "IFLA_BRPORT_BACKUP_NHID", bytes(4)),
    Attribute(45, "IFLA_BRPORT_NEIGH_FORWARD_GRAT", bytes(1)),
)
OF_KIND = {
    "bridge": (
        Attribute(7, "IFLA_BR_VLAN_FILTERING", bytes(1)),
        Attribute(8, "IFLA_BR_VLAN_PROTOCOL", b"\x81\0"),
        Attribute(39, "IFLA_BR_VLAN_DEFAULT_PVID", struct.pack("=H", 1)),
        Attribute(41, "IFLA_BR_VLAN_STATS_ENABLED", bytes(1)),
        Attribute(45, "IFLA_BR_VLAN_STATS_PER_PORT", bytes(1)),
        Attribute(46, "IFLA_BR_MULTI_BOOLOPT", bytes(4)),
        Attribute(49, "IFLA_BR_FDB_MAX_LEARNED", bytes(4)),
        Attribute(50, "IFLA_BR_STP_MODE", bytes(4)),
    ),
    "macvlan": (
        Attribute(2, "IFLA_MACVLAN_FLAGS", bytes(2)),
        Attribute(6, "IFLA_MACVLAN_MACADDR_COUNT", bytes(4)),
        Attribute(7, "IFLA_MACVLAN_BC_QUEUE_LEN", _number(1000)),
        Attribute(9, "IFLA_MACVLAN_BC_CUTOFF", _number(1)),
    ),
    "vlan": (
        Attribute(2, "IFLA_VLAN_FLAGS", _number(1)),  # VLAN_FLAG_REORDER_HDR
        Attribute(3, "IFLA_VLAN_EGRESS_QOS", None),
        Attribute(4, "IFLA_VLAN_INGRESS_QOS", None),
    ),
}


def attributes(message: Any, *, kind: str | None, port: bool) -> list[str]:
    """Names of those that are something else in a message about an interface; @port: of a bridge."""
    data = bytes(message.data)[HEADER.size + IFINFOMSG.size :]
    wanted = (
        (INET6, OF_ALL),
        (DATA, OF_KIND.get(kind or "", ())),
        (PORT_DATA, OF_PORTS if port else ()),
    )
    return [name for place, known in wanted for name in _others(data, place, known)]


def _others(data: bytes, place: tuple[int, int], known: tuple[Attribute, ...]) -> Iterator[str]:
    if not known:
        return
    outer, inner = place
    for found in (one for place in inside(data, outer) for one in inside(place, inner)):
        for number, name, default in known:
            for value in inside(found, number):
                if default is None or value[: len(default)] != default:
                    yield name
