# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the calling thread's network has changed: the kernel tells who listens."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack

from . import nft
from .netlink import AF_BRIDGE, NEIGHBOUR, messages
from .routing import EXT_LEARNED, PERMANENT, PROXY, STATIC

# Multicast groups of rtnetlink that tell of changes: links, neighbours, queueing disciplines, addresses,
# routes and rules of IPv4 and IPv6 (RTMGRP_..., and RTNLGRP_IPV6_RULE as a bit), but not
# RTNLGRP_IPV6_IFINFO, see sysctl.ADVERTISED. Of nfnetlink: NFNLGRP_NFTABLES.
ROUTE_GROUPS = 0x1 | 0x4 | 0x8 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18
NFTABLES_GROUP = 1 << 6

# Family, state and flags in struct ndmsg, behind the header of a message.
NDMSG = struct.Struct("=16xB7xHB")


class Ears:
    """Sockets that hear of every change from now on. close() them."""

    def __init__(self) -> None:
        wanted = [(socket.NETLINK_ROUTE, ROUTE_GROUPS)]
        if nft.is_supported():
            wanted.append((nft.NETLINK_NETFILTER, NFTABLES_GROUP))
        with ExitStack() as undo:
            self._sockets = [undo.enter_context(_listen(*one)) for one in wanted]
            self._scope = undo.pop_all()

    def heard(self, *, neighbours: bool) -> bool:
        """Whether something has changed since the last time.

        Neighbours come and go by themselves all the time; unless @neighbours, only those count that
        somebody has set.
        """
        heard = [_heard(ear, neighbours=neighbours) for ear in self._sockets]
        return any(heard)

    def close(self) -> None:
        """Close them."""
        self._scope.close()


def _listen(protocol: int, groups: int) -> socket.socket:
    ear = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        ear.bind((0, groups))
    except BaseException:
        ear.close()
        raise
    return ear


def _heard(ear: socket.socket, *, neighbours: bool) -> bool:
    found = False
    while True:
        try:
            data = ear.recv(1 << 16)
        except BlockingIOError:
            return found
        except OSError:
            found = True  # ENOBUFS: too many of them
        else:
            found = found or any(
                neighbours or not _passes_by(kind, message) for kind, _, message in messages(data)
            )


def _passes_by(kind: int, message: bytes) -> bool:
    """Whether it tells of a neighbour, or of an entry of a bridge, that nobody has set."""
    if kind not in (NEIGHBOUR.new, NEIGHBOUR.delete) or len(message) < NDMSG.size:
        return False
    family, state, flags = NDMSG.unpack_from(message)
    if family == AF_BRIDGE:
        return not state & (PERMANENT | STATIC) and not flags & EXT_LEARNED
    return not state & PERMANENT and not flags & PROXY
