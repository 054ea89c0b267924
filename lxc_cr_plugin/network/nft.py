# SPDX-License-Identifier: LGPL-2.1-or-later
"""The nftables ruleset of the calling thread's network namespace, through libnftables.

It is kept as the text of `nft list ruleset`: what nft writes nft reads, with counters, quotas and
the time that elements of sets have left.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import HostError, ImageError

LIBRARY = "libnftables.so.1"

# Is nftables there at all? The kernel shows the file when it is.
SUPPORT = Path("/proc/net/netfilter")

# NFT_CTX_OUTPUT_NUMERIC_PROTO and _PRIO: names might mean something else on another host.
NUMERIC = 1 << 7 | 1 << 8

# What would read a file of the host: no ruleset that nft lists has it.
INCLUDE = re.compile(r'\binclude\s*"')

QUOTED = re.compile(r'"[^"\n]*"')

# State that packets change without anybody being told.
LIVELY = re.compile(r"\b(counter|quota|limit|expires|timeout)\b")


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


def _run(command: str) -> str:
    with _context() as (library, context):
        failed = library.nft_run_cmd_from_buffer(context, command.encode())
        if failed:
            reason = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace")
            raise HostError(f"nftables: {reason.strip().splitlines()[0] if reason else 'failed'}")
        return (library.nft_ctx_get_output_buffer(context) or b"").decode()


def read() -> str:
    """The ruleset; "" when there is none."""
    return _run("list ruleset") if SUPPORT.is_dir() else ""


def is_lively(ruleset: str) -> bool:
    """Whether packets change it."""
    return LIVELY.search(QUOTED.sub("", ruleset)) is not None


def write(ruleset: str) -> None:
    """Put @ruleset in place of what is there, in one transaction. Raises HostError, ImageError."""
    if INCLUDE.search(ruleset):
        raise ImageError("The packet filter of the image is not a plain ruleset")
    if ruleset or read():
        _run(f"flush ruleset\n{ruleset}")
