# SPDX-License-Identifier: LGPL-2.1-or-later
"""One message to the kernel's routing netlink, encoded by pyroute2's tables."""

from __future__ import annotations

import socket
import struct
from typing import Any

# NLM_F_REQUEST | NLM_F_ACK; NLM_F_CREATE with EXCL, with REPLACE, because the kernel makes some addresses
# by itself meanwhile, and with APPEND, for routes that differ only in where they lead.
REQUEST = 0x1 | 0x4
NEW = 0x400 | 0x200
NEW_ADDRESS = 0x400 | 0x100
NEW_ROUTE = 0x400 | 0x800


def send(
    kind: Any, members: dict[str, Any], attributes: dict[str, Any], *, what: int, flags: int
) -> int:
    """Send a message of pyroute2's class @kind; the errno of the kernel's answer, 0 for success."""
    message = kind()
    message.load({**members, "attrs": list(attributes.items())})
    message["header"] = {"type": what, "flags": REQUEST | flags, "sequence_number": 1}
    message.encode()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(bytes(message.data))
        # Behind the header of 16 bytes: the negative errno.
        return -int(struct.unpack_from("=i", netlink.recv(1 << 16), 16)[0])
