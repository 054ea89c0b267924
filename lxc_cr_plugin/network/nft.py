# SPDX-License-Identifier: LGPL-2.1-or-later
"""The nftables ruleset of the calling thread's network namespace, through libnftables.

It is kept as the text of `nft list ruleset`: what nft writes nft reads, with counters, quotas and
the time that elements of sets have left.
"""

from __future__ import annotations

import ctypes
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import HostError, ImageError, Obstacle

LIBRARY = "libnftables.so.1"

# NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES and NFT_MSG_GETGEN; NLM_F_REQUEST, and what nlmsgerr is called.
NETLINK_NETFILTER, NFTABLES, GET_GENERATION = 12, 10, 16
REQUEST, NLMSG_ERROR = 1, 2

# NFT_CTX_OUTPUT_NUMERIC_PROTO and _PRIO: names might mean something else on another host.
NUMERIC = 1 << 7 | 1 << 8

# What would read a file of the host. Longer words are names.
INCLUDE = re.compile(r"include(?![A-Za-z0-9_./-])")

QUOTED = re.compile(r'"[^"\n]*"')

# State that packets change without anybody being told: counts, and elements that rules add.
LIVELY = re.compile(
    r"\b(counter|quota|limit|expires|timeout|dynamic|last|ct count)\b|\b(add|update|delete) @"
)


@contextmanager
def _context() -> Iterator[tuple[Any, Any]]:
    try:
        library: Any = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise HostError(
            f"{LIBRARY}, which reads and writes packet filters, does not load: {error}",
            hint="Install it: apt-get install libnftables1",
        ) from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("get_output_buffer", "get_error_buffer"):
        getattr(library, f"nft_ctx_{name}").restype = ctypes.c_char_p
    address = library.nft_ctx_new(0)
    if not address:
        raise HostError("libnftables does not start")
    context = ctypes.c_void_p(address)
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_output_set_flags(context, NUMERIC)
        yield library, context
    finally:
        library.nft_ctx_free(context)


def _run(command: str, *, dry: bool = False) -> str:
    with _context() as (library, context):
        library.nft_ctx_set_dry_run(context, dry)
        failed = library.nft_run_cmd_from_buffer(
            context, command.encode(errors="surrogateescape").replace(b"\0", b"?")
        )
        if failed:
            reason = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace")
            raise HostError(f"nftables: {reason.strip().splitlines()[0] if reason else 'failed'}")
        # Comments hold whatever bytes somebody has put there.
        output = library.nft_ctx_get_output_buffer(context) or b""
        return bytes(output).decode(errors="surrogateescape")


def is_supported(subsystem: int = NFTABLES) -> bool:
    """Whether this kernel has nftables, or another @subsystem of netfilter."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
            netlink.bind((0, 0))
            request = (20, subsystem << 8 | GET_GENERATION, REQUEST, 1, 0, 0, 0, 0)
            netlink.send(struct.pack("=IHHIIBBH", *request))
            _, answer = struct.unpack_from("=IH", netlink.recv(1 << 16))
    except OSError:
        return False  # EPROTONOSUPPORT: it has no netfilter at all
    return bool(answer != NLMSG_ERROR)


def read() -> str:
    """The ruleset; "" when there is none."""
    return _run("list ruleset") if is_supported() else ""


def is_lively(ruleset: str) -> bool:
    """Whether packets change it."""
    return LIVELY.search(QUOTED.sub("", ruleset)) is not None


def obstacles(ruleset: str) -> Iterator[Obstacle]:
    """Why nft could not read @ruleset again, if so: not all that it lists it understands."""
    try:
        check(ruleset)
    except (HostError, ImageError) as error:
        yield Obstacle(
            kind="unsupported",
            message=f"The packet filter of the container can be listed, but not read again: {error}",
            hint="`nft list ruleset | nft -c -f -` in the container's network shows where: remove "
            "that table or rule (a match of iptables-nft that nft does not know, perhaps)",
            object="packet_filter",
        )


def check(ruleset: str) -> None:
    """Raise HostError or ImageError unless `write` would succeed with @ruleset; changes nothing."""
    refuse_commands(ruleset)
    if ruleset:
        _run(f"flush ruleset\n{ruleset}", dry=True)


def refuse_commands(ruleset: str) -> None:
    """Raise ImageError if @ruleset might have nft read a file of the host.

    Quotes of nft reach over lines, and a backslash joins them: no listing does either, and without
    them each line can be judged alone, whatever else nft makes of it.
    """
    for line in ruleset.split("\n"):
        if line.endswith("\\") or line.count('"') % 2 or INCLUDE.search(QUOTED.sub('""', line)):
            raise ImageError(
                f"A line of the packet filter is not of a plain ruleset: '{line[:100]}'"
            )


def write(ruleset: str) -> None:
    """Put @ruleset in place of what is there, in one transaction. Raises HostError, ImageError."""
    refuse_commands(ruleset)
    if ruleset or read():
        _run(f"flush ruleset\n{ruleset}")
