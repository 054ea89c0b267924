# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bridges inside a container: what is set of them and of their ports, and what cannot come back."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import Any

from ..errors import HostError, Obstacle
from . import netlink

State = dict[str, Any]

KIND = "bridge"

# What is set of a bridge and not only counted.
DATA = (
    "IFLA_BR_FORWARD_DELAY",
    "IFLA_BR_HELLO_TIME",
    "IFLA_BR_MAX_AGE",
    "IFLA_BR_AGEING_TIME",
    "IFLA_BR_STP_STATE",
    "IFLA_BR_PRIORITY",
    "IFLA_BR_GROUP_FWD_MASK",
    "IFLA_BR_GROUP_ADDR",
    "IFLA_BR_MCAST_ROUTER",
    "IFLA_BR_MCAST_SNOOPING",
    "IFLA_BR_MCAST_QUERY_USE_IFADDR",
    "IFLA_BR_MCAST_QUERIER",
    "IFLA_BR_MCAST_STATS_ENABLED",
    "IFLA_BR_MCAST_HASH_MAX",
    "IFLA_BR_MCAST_LAST_MEMBER_CNT",
    "IFLA_BR_MCAST_STARTUP_QUERY_CNT",
    "IFLA_BR_MCAST_IGMP_VERSION",
    "IFLA_BR_MCAST_MLD_VERSION",
    "IFLA_BR_MCAST_LAST_MEMBER_INTVL",
    "IFLA_BR_MCAST_MEMBERSHIP_INTVL",
    "IFLA_BR_MCAST_QUERIER_INTVL",
    "IFLA_BR_MCAST_QUERY_INTVL",
    "IFLA_BR_MCAST_QUERY_RESPONSE_INTVL",
    "IFLA_BR_MCAST_STARTUP_QUERY_INTVL",
    "IFLA_BR_NF_CALL_IPTABLES",
    "IFLA_BR_NF_CALL_IP6TABLES",
    "IFLA_BR_NF_CALL_ARPTABLES",
)

# A number of an interface: another port of the same bridge.
BACKUP = "IFLA_BRPORT_BACKUP_PORT"

PORT = (
    "IFLA_BRPORT_COST",
    "IFLA_BRPORT_PRIORITY",
    "IFLA_BRPORT_MODE",
    "IFLA_BRPORT_GUARD",
    "IFLA_BRPORT_PROTECT",
    "IFLA_BRPORT_FAST_LEAVE",
    "IFLA_BRPORT_LEARNING",
    "IFLA_BRPORT_UNICAST_FLOOD",
    "IFLA_BRPORT_MCAST_FLOOD",
    "IFLA_BRPORT_BCAST_FLOOD",
    "IFLA_BRPORT_MCAST_TO_UCAST",
    "IFLA_BRPORT_MULTICAST_ROUTER",
    "IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT",
    "IFLA_BRPORT_MCAST_MAX_GROUPS",
    "IFLA_BRPORT_PROXYARP",
    "IFLA_BRPORT_PROXYARP_WIFI",
    "IFLA_BRPORT_NEIGH_SUPPRESS",
    "IFLA_BRPORT_NEIGH_VLAN_SUPPRESS",
    "IFLA_BRPORT_VLAN_TUNNEL",
    "IFLA_BRPORT_GROUP_FWD_MASK",
    "IFLA_BRPORT_ISOLATED",
    "IFLA_BRPORT_LOCKED",
    "IFLA_BRPORT_MAB",
    BACKUP,
)

# BR_STATE_...; without STP the kernel itself chooses between two of them.
DISABLED, FORWARDING = 0, 3


def port_of(info: Any, names: dict[int, str]) -> State | None:
    """What is set of the port that IFLA_LINKINFO @info tells of; None: it is no port of a bridge."""
    if not info or info.get_attr("IFLA_INFO_SLAVE_KIND") != KIND:
        return None
    data = info.get_attr("IFLA_INFO_SLAVE_DATA")
    found = {key: data.get_attr(key) for key in PORT if data.get_attr(key) is not None}
    if BACKUP in found:
        found[BACKUP] = names.get(found[BACKUP])
    return found


def has_odd_state(message: Any, link: State, master: State) -> bool:
    """Whether somebody has set the state of the port @link, which the kernel forgets with the carrier."""
    data = message.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_DATA")
    state = data.get_attr("IFLA_BRPORT_STATE")
    if master["data"].get("IFLA_BR_STP_STATE") or state == FORWARDING:
        return False
    if state != DISABLED:
        return True
    runs = message.get_attr("IFLA_OPERSTATE") in ("UP", "UNKNOWN")
    return bool(runs and link["flags"] & master["flags"] & 0x1)


# RTM_GETMDB, and what is inside: MDBA_MDB / MDBA_MDB_ENTRY / MDBA_MDB_ENTRY_INFO. Behind struct br_port_msg
# come tables of struct br_mdb_entry: ifindex, state (MDB_PERMANENT: 1).
GET_GROUPS = 86
TABLE, ENTRY, ENTRY_INFO = 1, 1, 1
BR_PORT_MSG = struct.Struct("=B3xI")
BR_MDB_ENTRY = struct.Struct("=IB")
MDB_PERMANENT = 1

# struct ifinfomsg with IFLA_EXT_MASK: RTEXT_FILTER_BRVLAN. In the answer: IFLA_IFNAME, and
# IFLA_AF_SPEC with IFLA_BRIDGE_VLAN_INFO, struct bridge_vlan_info.
EXT_MASK = struct.pack("=HHI", 8, 29, 2)
IFNAME, AF_SPEC, VLAN_INFO = 3, 26, 2
BRIDGE_VLAN_INFO = struct.Struct("=HH")
# BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED: what each port has by itself, where VLANs can be filtered.
BY_ITSELF = (BRIDGE_VLAN_INFO.pack(0x2 | 0x4, 1),)


def obstacles(links: list[State]) -> Iterator[Obstacle]:
    """Tables of bridges that a restart could not make again; in the calling thread's network."""
    if not any(link["kind"] == KIND for link in links):
        return
    names = {link["index"]: link["name"] for link in links}
    for index in sorted(_groups()):
        yield _unsupported(
            f"Port '{names.get(index)}' of a bridge has permanent multicast groups",
            "`bridge mdb del` removes them, `bridge mdb` shows them",
        )
    for name in sorted(_with_vlans()):
        yield _unsupported(
            f"Bridge or port '{name}' has a table of VLANs",
            "`bridge vlan del` removes what is in it, `bridge vlan` shows it",
        )


def _unsupported(message: str, remedy: str) -> Obstacle:
    return Obstacle(
        kind="unsupported",
        message=message,
        hint=f"Not supported yet: {remedy}",
        object="network_bridge",
    )


def _groups() -> set[int]:
    """Numbers of interfaces with multicast groups that stay until they are removed."""
    header = BR_PORT_MSG.pack(netlink.AF_BRIDGE, 0)
    try:
        answers = netlink.dump_raw(GET_GROUPS, header)
    except HostError as error:
        if error.errno == errno.EOPNOTSUPP:
            return set()  # a kernel without CONFIG_BRIDGE_IGMP_SNOOPING
        raise
    found = (
        BR_MDB_ENTRY.unpack_from(info)
        for answer in answers
        for table in netlink.inside(answer[BR_PORT_MSG.size :], TABLE)
        for entry in netlink.inside(table, ENTRY)
        for info in netlink.inside(entry, ENTRY_INFO)
    )
    return {index for index, state in found if state == MDB_PERMANENT}


def _with_vlans() -> set[str]:
    """Names of bridges and ports with other VLANs than the one that they have by themselves."""
    header = netlink.IFINFOMSG.pack(netlink.AF_BRIDGE, 0, 0, 0, 0) + EXT_MASK
    found = set()
    for answer in netlink.dump_raw(netlink.LINK.get, header):
        rest = answer[netlink.IFINFOMSG.size :]
        vlans = [
            one for spec in netlink.inside(rest, AF_SPEC) for one in netlink.inside(spec, VLAN_INFO)
        ]
        if vlans and tuple(vlans) != BY_ITSELF:
            found |= {name.rstrip(b"\0").decode() for name in netlink.inside(rest, IFNAME)}
    return found
