# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's routing netlink: messages are encoded and decoded by pyroute2's tables.

Of the calling thread's network namespace. pyroute2's sockets are left out: its package loads all of
itself when it is imported, which takes longer than the restart of a small container.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import struct
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import HostError

PACKAGE = "pyroute2"

# NLM_F_REQUEST | NLM_F_ACK; NLM_F_CREATE with EXCL, with REPLACE, because the kernel makes some addresses
# by itself meanwhile, and with APPEND, for routes that differ only in where they lead. NLM_F_DUMP.
REQUEST = 0x1 | 0x4
NEW = 0x400 | 0x200
NEW_ADDRESS = 0x400 | 0x100
NEW_ROUTE = 0x400 | 0x800
DUMP = 0x300

# NLM_F_DUMP_INTR: it has changed meanwhile.
INTERRUPTED = 0x10

NLMSG_ERROR, NLMSG_DONE = 2, 3
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
ATTRIBUTE_NUMBER = 0x3FFF  # the other bits are NLA_F_NESTED and NLA_F_NET_BYTEORDER
IFINFOMSG = struct.Struct("=BxHiII")  # begins each message about a link

AF_BRIDGE = 7  # not in Python's socket module

# The kernel fills buffers of up to 32 KiB; a single message is longer when an interface has much to tell.
BUFFER = 1 << 18


class Table(NamedTuple):
    """A sort of message: pyroute2's module and class, and RTM_NEW..., RTM_DEL..., RTM_GET..."""

    name: str
    new: int

    @property
    def delete(self) -> int:
        """RTM_DEL..."""
        return self.new + 1

    @property
    def get(self) -> int:
        """RTM_GET..."""
        return self.new + 2


LINK = Table("ifinfmsg", 16)
ADDRESS = Table("ifaddrmsg", 20)
ROUTE = Table("rtmsg", 24)
NEIGHBOUR = Table("ndmsg", 28)
RULE = Table("fibmsg", 32)

TABLES = (LINK, ADDRESS, ROUTE, NEIGHBOUR, RULE)


@lru_cache
def classes() -> dict[str, Any]:
    """pyroute2's classes of all TABLES; raises HostError when it does not load.

    A package that is found but not executed lets its modules be imported one by one. Nothing of it
    stays where others, who import all of it, would find it.
    """
    before = {name: module for name, module in sys.modules.items() if _is_ours(name)}
    try:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None:
            raise ImportError(f"there is no {PACKAGE}")
        if not before:
            sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
        modules = {
            table.name: importlib.import_module(f"{PACKAGE}.netlink.rtnl.{table.name}")
            for table in TABLES
        }
        return {name: getattr(module, name) for name, module in modules.items()}
    except (ImportError, AttributeError) as error:
        raise HostError(
            f"{PACKAGE}, which reads and sets up networks, does not load: {error}",
            hint=f"Install it: pip install {PACKAGE}",
        ) from error
    finally:
        for name in [name for name in sys.modules if _is_ours(name) and name not in before]:
            del sys.modules[name]


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def dump(table: Table, family: int = socket.AF_UNSPEC) -> list[Any]:
    """Everything of one sort, as decoded messages; raises HostError."""
    request = _encode(table, {"family": family}, {}, what=table.get, flags=DUMP)
    return [_decoded(table, message) for message in _dump(request, table.name)]


def dump_raw(what: int, body: bytes) -> list[bytes]:
    """What the kernel answers to a message that pyroute2 does not know, without headers; raises HostError."""
    header = HEADER.pack(HEADER.size + len(body), what, REQUEST | DUMP, 1, 0)
    return [message[HEADER.size :] for message in _dump(header + body, f"message {what}")]


def _dump(request: bytes, name: str) -> list[bytes]:
    while True:
        with _ask(request) as netlink:
            found, whole = _collect(netlink, name)
        if whole:
            return found


def _decoded(table: Table, message: bytes) -> Any:
    decoded = classes()[table.name](message)
    decoded.decode()
    return decoded


def _collect(netlink: socket.socket, name: str) -> tuple[list[bytes], bool]:
    """All parts of an answer, and whether nothing has changed between them."""
    found: list[bytes] = []
    whole = True
    while True:
        for kind, flags, message in messages(netlink.recv(BUFFER)):
            whole = whole and not flags & INTERRUPTED
            if kind not in (NLMSG_DONE, NLMSG_ERROR):
                found.append(message)
                continue
            # An end has one as well: a dump may fail in the middle.
            number = -int.from_bytes(message[HEADER.size :][:4], sys.byteorder, signed=True)
            if number:
                raise HostError(
                    f"Failed to read the network ({name}): {os.strerror(number)}", errno=number
                )
            return found, whole


def inside(data: bytes, number: int) -> Iterator[bytes]:
    """The attributes @number in what is left of a message, or in another attribute."""
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if kind & ATTRIBUTE_NUMBER == number:
            yield data[at + ATTRIBUTE.size : at + length]
        at += max(ATTRIBUTE.size, length + 3 & ~3)


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and bytes of each message in what was received at once."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, flags, _, _ = HEADER.unpack_from(data, at)
        yield kind, flags, data[at : at + length]
        at += max(HEADER.size, length + 3 & ~3)


def send(
    table: Table, members: dict[str, Any], attributes: dict[str, Any], *, what: int, flags: int = 0
) -> int:
    """Send a message; the errno of the kernel's answer, 0 for success."""
    with _ask(_encode(table, members, attributes, what=what, flags=flags)) as netlink:
        # Behind the header: the negative errno.
        return -int(struct.unpack_from("=i", netlink.recv(BUFFER), HEADER.size)[0])


def _encode(
    table: Table, members: dict[str, Any], attributes: dict[str, Any], *, what: int, flags: int
) -> bytes:
    message = classes()[table.name]()
    message.load({**members, "attrs": list(attributes.items())})
    message["header"] = {"type": what, "flags": REQUEST | flags, "sequence_number": 1}
    message.encode()
    return bytes(message.data)


def _ask(request: bytes) -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        netlink.bind((0, 0))
        netlink.send(request)
    except BaseException:
        netlink.close()
        raise
    return netlink
