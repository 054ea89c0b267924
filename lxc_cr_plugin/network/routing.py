# SPDX-License-Identifier: LGPL-2.1-or-later
"""Addresses, routes of all tables, rules and permanent neighbours.

What the kernel tells is kept as it is, with the names of interfaces in place of their numbers, and told
the kernel again. An attribute that is not known here stands in the way of a checkpoint.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from ..errors import HostError, ImageError, Obstacle
from . import advertised, netlink
from .netlink import NEW, NEW_ADDRESS, NEW_ROUTE

Row = dict[str, Any]

FAMILIES = (socket.AF_INET, socket.AF_INET6)
KERNEL = 2  # RTPROT_KERNEL: comes with an address
CLONED = 0x200  # RTM_F_CLONED: a cache
ONLINK = 0x4  # RTNH_F_ONLINK; the other flags tell a state
TENTATIVE, DADFAILED, PERMANENT_ADDRESS = 0x40, 0x08, 0x80
KERNEL_LINK_LOCAL = 3  # IFAPROT_KERNEL_LL
PERMANENT, PROXY = 0x80, 0x08  # NUD_PERMANENT, NTF_PROXY
# Of the tables of bridges: NUD_NOARP; NTF_SELF, NTF_MASTER, NTF_EXT_LEARNED, NTF_STICKY.
STATIC = 0x40
SELF, OF_MASTER, EXT_LEARNED, STICKY = 0x02, 0x04, 0x10, 0x40
NEVER = 0xFFFFFFFF
TICKS = os.sysconf("SC_CLK_TCK")  # a second, in the kernel's times of routes


class Sort(NamedTuple):
    """One sort of message: members of its header, attributes that are kept, and those that only tell."""

    what: str
    table: netlink.Table
    members: tuple[str, ...]
    kept: frozenset[str]
    telling: frozenset[str]
    links: tuple[str, ...]  # members and attributes that are numbers of interfaces
    create: int = NEW


ADDRESS = Sort(
    "address",
    netlink.ADDRESS,
    ("family", "prefixlen", "scope", "index"),
    frozenset(
        {
            "IFA_ADDRESS",
            "IFA_LOCAL",
            "IFA_BROADCAST",
            "IFA_ANYCAST",
            "IFA_LABEL",
            "IFA_FLAGS",
            "IFA_RT_PRIORITY",
            "IFA_PROTO",
            "IFA_CACHEINFO",
        }
    ),
    frozenset(),
    ("index",),
    NEW_ADDRESS,
)
ROUTE = Sort(
    "route",
    netlink.ROUTE,
    ("family", "dst_len", "src_len", "tos", "table", "proto", "scope", "type", "flags"),
    frozenset(
        {
            "RTA_TABLE",
            "RTA_DST",
            "RTA_SRC",
            "RTA_PRIORITY",
            "RTA_METRICS",
            "RTA_GATEWAY",
            "RTA_OIF",
            "RTA_IIF",
            "RTA_PREFSRC",
            "RTA_MULTIPATH",
            "RTA_PREF",
            "RTA_FLOW",
            "RTA_VIA",
        }
    ),
    frozenset({"RTA_CACHEINFO", "RTA_UID"}),
    ("RTA_OIF", "RTA_IIF"),
    NEW_ROUTE,
)
RULE = Sort(
    "rule",
    netlink.RULE,
    ("family", "dst_len", "src_len", "tos", "table", "action", "flags"),
    frozenset(
        {
            "FRA_TABLE",
            "FRA_SUPPRESS_PREFIXLEN",
            "FRA_SUPPRESS_IFGROUP",
            "FRA_PROTOCOL",
            "FRA_IIFNAME",
            "FRA_OIFNAME",
            "FRA_PRIORITY",
            "FRA_FWMARK",
            "FRA_FWMASK",
            "FRA_SRC",
            "FRA_DST",
            "FRA_GOTO",
            "FRA_FLOW",
            "FRA_L3MDEV",
            "FRA_UID_RANGE",
            "FRA_IP_PROTO",
            "FRA_SPORT_RANGE",
            "FRA_DPORT_RANGE",
        }
    ),
    frozenset({"FRA_PAD"}),
    (),
)
NEIGHBOUR = Sort(
    "neighbour",
    netlink.NEIGHBOUR,
    ("family", "ifindex", "state", "flags", "ndm_type"),
    frozenset({"NDA_DST", "NDA_LLADDR"}),
    frozenset({"NDA_PROBES", "NDA_CACHEINFO", "NDA_PROTOCOL", "NDA_FLAGS_EXT"}),
    ("ifindex",),
)
# Entries of the tables of bridges, which are neighbours to netlink.
FORWARDING = Sort(
    "bridge entry",
    netlink.NEIGHBOUR,
    ("family", "ifindex", "state", "flags", "ndm_type"),
    frozenset({"NDA_LLADDR", "NDA_VLAN"}),
    frozenset({"NDA_MASTER", "NDA_CACHEINFO", "NDA_FLAGS_EXT"}),
    ("ifindex",),
    # One without a VLAN may have brought another with one.
    NEW_ADDRESS,
)


def read(
    names: dict[int, str], *, own: Mapping[int, str | None] | None = None
) -> dict[str, list[Row]]:
    """Everything; @names are the interfaces by number, @own their MAC addresses.

    "forwarding" is only there if there is some.
    """
    found = {
        "addresses": [
            _address(_row(message, ADDRESS, names)) for message in netlink.dump(netlink.ADDRESS)
        ],
        "routes": [
            _route(message, names)
            for family in FAMILIES
            for message in netlink.dump(netlink.ROUTE, family)
            if message["proto"] != KERNEL and not message["flags"] & CLONED
        ],
        "rules": [
            _row(message, RULE, names)
            for message in netlink.dump(netlink.RULE)
            if message["family"] in FAMILIES
        ],
        "neighbours": [
            _row(message, NEIGHBOUR, names)
            for message in netlink.dump(netlink.NEIGHBOUR)
            if message["family"] in FAMILIES
            and (message["state"] & PERMANENT or message["flags"] & PROXY)
        ],
    }
    advertised.mark(found["routes"])
    forwarding = list(_forwarding(names, own or {}))
    return {**found, "forwarding": forwarding} if forwarding else found


def _forwarding(names: dict[int, str], own: Mapping[int, str | None]) -> Iterator[Row]:
    """What somebody has set of the tables of bridges: neither learned, nor the addresses of ports."""
    messages = netlink.dump(netlink.NEIGHBOUR, netlink.AF_BRIDGE)
    for message in messages:
        master = message.get_attr("NDA_MASTER")
        if message["flags"] & SELF or not master:
            continue  # what an interface listens to
        if message["state"] & PERMANENT and message.get_attr("NDA_LLADDR") in (
            own.get(message["ifindex"]),
            own.get(master),
        ):
            continue
        if message["state"] & (PERMANENT | STATIC) or message["flags"] & EXT_LEARNED:
            row = _row(message, FORWARDING, names)
            row["flags"] &= STICKY | EXT_LEARNED
            row["flags"] |= SELF if message["ifindex"] == master else OF_MASTER
            yield row


def _row(message: Any, sort: Sort, names: dict[int, str]) -> Row:
    plain = message.dump()
    row: Row = {member: plain[member] for member in sort.members}
    row["attributes"] = {name: value for name, value in plain["attrs"] if name in sort.kept}
    unknown = {str(name) for name, _ in plain["attrs"]} - sort.kept - sort.telling
    if unknown:
        row["unknown"] = sorted(unknown)
    for key in sort.links:
        place = row if key in row else row["attributes"]
        if key in place:
            place[key] = names.get(place[key])
    return row


def _address(row: Row) -> Row:
    """@row without what passes: checks for duplicates, the times of its birth."""
    attributes = row["attributes"]
    attributes["IFA_FLAGS"] = attributes.get("IFA_FLAGS", 0) & ~(TENTATIVE | DADFAILED)
    times = attributes.pop("IFA_CACHEINFO", {})
    row["preferred"] = times.get("ifa_preferred", NEVER)
    row["valid"] = times.get("ifa_valid", NEVER)
    return row


def grow_older(state: dict[str, Any], *, seconds: int) -> dict[str, Any]:
    """@state that was read so long before. Of what has come to its end the kernel has told."""
    least = {("addresses", "preferred"): 0, ("addresses", "valid"): 1, ("routes", "expires"): 1}
    older = {key: [dict(row) for row in state[key]] for key, _ in least}
    for (key, lifetime), least_left in least.items():
        for row in older[key]:
            if row.get(lifetime, NEVER) != NEVER:
                row[lifetime] = max(least_left, row[lifetime] - seconds)
    return {**state, **older}


def _route(message: Any, names: dict[int, str]) -> Row:
    row = _row(message, ROUTE, names)
    row["flags"] &= ONLINK
    times = message.get_attr("RTA_CACHEINFO")
    if times and times["rta_expires"]:
        # Behind its end one stays for a while, unused: the number is below zero then.
        row["expires"] = max(1, times["rta_expires"] // TICKS)
    for hop in row["attributes"].get("RTA_MULTIPATH", ()):
        hop["oif"] = names.get(hop["oif"])
        hop["flags"] &= ONLINK
        foreign = {name for name, _ in hop["attrs"]} - ROUTE.kept
        if foreign:
            row["unknown"] = sorted(foreign)
    return row


# What a row is called by.
NAMING = ("RTA_DST", "IFA_ADDRESS", "NDA_DST", "NDA_LLADDR")

SORTS = (
    ("addresses", ADDRESS),
    ("routes", ROUTE),
    ("rules", RULE),
    ("neighbours", NEIGHBOUR),
    ("forwarding", FORWARDING),
)


def refuse_unknown(state: dict[str, list[Row]]) -> None:
    """Raise ImageError for attributes that no checkpoint writes."""
    for key, sort in SORTS:
        for row in state.get(key, ()):
            names = set(row["attributes"])
            try:
                hops = row["attributes"].get("RTA_MULTIPATH", ())
                inside = {name for hop in hops for name, _ in hop["attrs"]}
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ImageError(f"A network {sort.what} of the image is damaged") from error
            unknown = (names - sort.kept) | (inside - sort.kept)
            if unknown:
                raise ImageError(
                    f"A network {sort.what} of the image has {str(sorted(map(str, unknown)))[:100]}"
                )


def obstacles(state: dict[str, list[Row]]) -> Iterator[Obstacle]:
    """Rows with something that is not known here."""
    for key, sort in SORTS:
        for row in state.get(key, ()):
            if "unknown" in row:
                named = (row["attributes"].get(name) for name in NAMING)
                what = next((name for name in named if name), None)
                yield Obstacle(
                    kind="unsupported",
                    message=f"A network {sort.what} ({what or 'default'}) has "
                    + ", ".join(row["unknown"]),
                    hint="Not supported yet: remove it before the checkpoint",
                    object=f"network_{sort.what}",
                )


def forget_addresses(
    state: dict[str, list[Row]], names: Collection[str], *, all_of_them: bool
) -> None:
    """Leave out what the interfaces @names have because of their MAC addresses, or @all_of_them.

    With all of them also the routes over these interfaces, that lead nowhere without an address.
    """
    state["addresses"] = [
        row
        for row in state["addresses"]
        if row.get("index") not in names
        or not (all_of_them or row["attributes"].get("IFA_PROTO") == KERNEL_LINK_LOCAL)
    ]
    if all_of_them:
        state["routes"] = [row for row in state["routes"] if not _links_of(row) & set(names)]


def _links_of(route: Row) -> set[str | None]:
    """The interfaces over which a route leads."""
    hops = route["attributes"].get("RTA_MULTIPATH") or []
    return {route["attributes"].get("RTA_OIF"), *(hop["oif"] for hop in hops)}


def write_addresses(rows: list[Row], numbers: dict[str, int], *, fresh: Collection[str]) -> None:
    """The addresses that there were and no others, but for the kernel's own on @fresh interfaces."""
    names = {number: name for name, number in numbers.items()}
    present = read(names)["addresses"]
    raw = {_identity(row): row for row in present}
    unsure = {
        _identity(_address(_row(message, ADDRESS, names)))
        for message in netlink.dump(netlink.ADDRESS)
        if (message.get_attr("IFA_FLAGS") or 0) & (TENTATIVE | DADFAILED)
    }
    wanted = {_identity(row): row for row in rows}
    for key, row in raw.items():
        own = row["attributes"].get("IFA_PROTO") == KERNEL_LINK_LOCAL
        if own and row["index"] in fresh:
            continue
        if key not in wanted or wanted[key] != row or key in unsure:
            _send(ADDRESS, row, numbers=numbers, what=netlink.ADDRESS.delete)
            del present[present.index(row)]
    for row in rows:
        if row not in present and row["index"] in numbers:
            _send(
                ADDRESS,
                _with_times(row),
                numbers=numbers,
                what=netlink.ADDRESS.new,
                flags=ADDRESS.create,
            )


def _identity(row: Row) -> tuple[Any, ...]:
    attributes = row["attributes"]
    local = attributes.get("IFA_LOCAL")
    return (row["family"], row["index"], row["prefixlen"], attributes.get("IFA_ADDRESS"), local)


def _with_times(row: Row) -> Row:
    flags = row["attributes"]["IFA_FLAGS"] & ~PERMANENT_ADDRESS
    times = {"ifa_preferred": row["preferred"], "ifa_valid": row["valid"], "cstamp": 0, "tstamp": 0}
    return {**row, "attributes": {**row["attributes"], "IFA_FLAGS": flags, "IFA_CACHEINFO": times}}


def _with_end(row: Row) -> Row:
    """A route as the kernel takes it; pyroute2 knows the attribute as bytes."""
    if "expires" not in row:
        return row
    end = struct.pack("=I", row["expires"])
    return {**row, "attributes": {**row["attributes"], "RTA_EXPIRES": end}}


def write_rest(
    state: dict[str, list[Row]], numbers: dict[str, int], *, own: Mapping[int, str | None]
) -> None:
    """Routes, rules, neighbours and entries of bridges that there were, and no others; @own: see `read`."""
    present = read({number: name for name, number in numbers.items()}, own=own)
    for key, sort in SORTS:
        if sort is ADDRESS:
            continue
        wanted, there = state.get(key, []), present.get(key, [])
        for row in there:
            if row not in wanted:
                _send(sort, row, numbers=numbers, what=sort.table.delete)
        missing = [_with_end(row) for row in wanted if row not in there]
        what, flags = sort.table.new, sort.create
        _send_all(missing, partial(_send, sort, numbers=numbers, what=what, flags=flags))


def _send_all(rows: list[Row], send: Callable[[Row], None]) -> None:
    """Send all of @rows; a route over a gateway needs the route to that, so some have to wait."""
    while rows:
        left = []
        for row in rows:
            try:
                send(row)
            except HostError as error:
                left.append(row)
                reason = error
        if len(left) == len(rows):
            raise reason
        rows = left


def _send(sort: Sort, row: Row, *, numbers: dict[str, int], what: int, flags: int = 0) -> None:
    members: dict[str, Any] = {member: row[member] for member in sort.members if member in row}
    attributes = dict(row["attributes"])
    for key in sort.links:
        place = members if key in members else attributes
        if place.get(key) is not None:
            place[key] = numbers.get(place[key], 0)
    if "RTA_MULTIPATH" in attributes:
        attributes["RTA_MULTIPATH"] = [
            {**hop, "oif": numbers.get(hop["oif"], 0)} for hop in attributes["RTA_MULTIPATH"]
        ]
    if row.get("advertised") and what == netlink.ROUTE.new:
        number = advertised.add(row, numbers, ticks=row.get("expires", 0) * TICKS)
    else:
        number = netlink.send(sort.table, members, attributes, what=what, flags=flags)
    if number:
        raise HostError(
            f"Failed to change a network {sort.what} ({attributes}): {os.strerror(number)}",
            errno=number,
        )
