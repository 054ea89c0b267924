# SPDX-License-Identifier: LGPL-2.1-or-later
"""Routes that routers have advertised, and the kernel has taken from them (RFC 4861, RFC 4191).

The kernel knows them by flags, and lets a router change and revoke only such. Netlink neither shows these
flags nor sets them: with a route of netlink's in its place, the kernel takes the next advertisement for a
failure and leaves out the rest of it, so that addresses run out. /proc shows the flags, and the ioctl sets
them.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ImageError

Row = dict[str, Any]

MAIN = 254  # RT_TABLE_MAIN: the ioctl makes no others, and nor do routers
BOOT, RA = 3, 9  # RTPROT_...: the ioctl says that it is the first of them

# RTF_... of <linux/ipv6_route.h>
UP, GATEWAY, EXPIRES = 0x1, 0x2, 0x400000
DEFAULT, ADDRCONF, ROUTEINFO = 0x10000, 0x40000, 0x800000
PREFERENCE_SHIFT = 27

SIOCADDRT = 0x890B
IN6_RTMSG = struct.Struct("@16s16s16sIHHILIi")
DEFAULT_METRIC = 1024


def mark(rows: list[Row]) -> None:
    """Tell those of @rows, routes of the calling thread's network, that a router has advertised."""
    if any(_may_be(row) for row in rows):
        text = Path("/proc/thread-self/net/ipv6_route").read_text()
        found = set(_advertised(text))
        for row in rows:
            if _may_be(row) and _key(row) in found:
                row["advertised"] = True


def _may_be(row: Row) -> bool:
    attributes = row["attributes"]
    return bool(
        row["family"] == socket.AF_INET6
        and row["proto"] in (BOOT, RA)
        and attributes.get("RTA_TABLE") == MAIN
        and attributes.get("RTA_GATEWAY")
        and attributes.get("RTA_OIF")
    )


Key = tuple[bytes, int, bytes, int, str]


def _advertised(text: str) -> Iterator[Key]:
    for line in text.splitlines():
        to, length, _, _, gateway, metric, _, _, flags, link = line.split()
        if int(flags, 16) & ADDRCONF and int(flags, 16) & (DEFAULT | ROUTEINFO):
            where = bytes.fromhex(to), int(length, 16), bytes.fromhex(gateway)
            yield (*where, int(metric, 16), link)


def _key(row: Row) -> Key:
    attributes = row["attributes"]
    return (
        _packed(attributes.get("RTA_DST") or "::"),
        row["dst_len"],
        _packed(attributes["RTA_GATEWAY"]),
        attributes.get("RTA_PRIORITY", DEFAULT_METRIC),
        attributes["RTA_OIF"],
    )


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)


def add(row: Row, numbers: dict[str, int], *, ticks: int) -> int:
    """Make the route @row, that a router may change; the errno, 0 for success.

    @ticks: how long it is to live, 0 for ever; @numbers: of interfaces.
    """
    if not _may_be(row):
        raise ImageError("A network route of the image is one that no router advertises")
    to, length, gateway, metric, link = _key(row)
    flags = UP | GATEWAY | ADDRCONF | (ROUTEINFO if length else DEFAULT)
    flags |= EXPIRES if ticks else 0
    flags |= (row["attributes"].get("RTA_PREF", 0) & 3) << PREFERENCE_SHIFT
    request = IN6_RTMSG.pack(
        to, bytes(16), gateway, 0, length, 0, metric, ticks, flags, numbers.get(link, 0)
    )
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, SIOCADDRT, request)
        except FileExistsError:
            pass  # the router has been faster: it is asked as soon as the interface is up
        except OSError as error:
            return error.errno or errno.EIO
    return 0
