# SPDX-License-Identifier: LGPL-2.1-or-later
"""The view: every path of a file tree with all that makes it what it is, in one list.

    [path, mode, uid, gid, mtime, rdev, link, size, data, digest, xattrs, stamp]   one row

A small file's content, and the target of a symbolic link, is the row's data; a larger file is named
by the digest of its content. Rows with the same link number are names of one file. The stamp is where
and when it was seen like that, which saves reading it again; it is no part of the view's own digest:
two trees with the same digest are the same to every program that looks.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import ImageError
from ..native.tree_look import LONGEST_PATH

# A content of at most so many bytes stands in the view itself.
INLINE = 2048

KINDS = (
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFLNK,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
)


class Stamp(NamedTuple):
    """What tells whether a file was changed since: its number, and when it last was (ns)."""

    inode: int
    ctime: int


class Row(NamedTuple):
    """One path; times in nanoseconds, sizes in bytes."""

    path: str
    mode: int
    uid: int
    gid: int
    mtime: int
    rdev: int
    link: int
    size: int
    data: bytes | None
    digest: bytes | None
    xattrs: dict[str, bytes]
    stamp: Stamp | None

    def kind(self) -> int:
        """S_IFREG, S_IFDIR and so on."""
        return stat.S_IFMT(self.mode)

    def is_like(self, other: Row) -> bool:
        """Whether both are the same to a program; links are compared by whoever sees all rows."""
        return self._replace(link=0, stamp=None) == other._replace(link=0, stamp=None)


class View(NamedTuple):
    """All rows by path, in the order of their paths."""

    rows: dict[str, Row]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> View:
        """A view of @rows, which may come in any order."""
        return cls({row.path: row for row in sorted(rows, key=lambda row: row.path)})

    def encode(self) -> bytes:
        """As CBOR."""
        import cbor2

        return cbor2.dumps([_pack(row) for row in self.rows.values()])

    def digest(self) -> str:
        """What proves that two trees are the same: SHA-256 of the rows without stamps, in hex."""
        import cbor2

        rows = [_pack(row._replace(stamp=None)) for row in self.rows.values()]
        return hashlib.sha256(cbor2.dumps(rows, canonical=True)).hexdigest()

    def contents(self) -> dict[bytes, int]:
        """Digests of all contents that are not inline, with their sizes."""
        return {row.digest: row.size for row in self.rows.values() if row.digest}

    def size(self) -> int:
        """Bytes of all regular files, as programs see them."""
        return sum(row.size for row in self.rows.values() if stat.S_ISREG(row.mode))

    def links(self) -> dict[str, frozenset[str]]:
        """For each path that has several names: all of them."""
        groups: dict[int, list[str]] = {}
        for row in self.rows.values():
            if row.link:
                groups.setdefault(row.link, []).append(row.path)
        sets = {link: frozenset(paths) for link, paths in groups.items()}
        return {row.path: sets[row.link] for row in self.rows.values() if row.link}


def _pack(row: Row) -> list[Any]:
    return [os.fsencode(row.path), *row[1:10], row.xattrs, list(row.stamp) if row.stamp else None]


def encode_rows(rows: dict[str, Row | None], **more: Any) -> bytes:
    """Some rows by path, None for a path where nothing is, and @more, for `decode_rows`."""
    import cbor2

    packed = [[os.fsencode(path), _pack(row) if row else None] for path, row in rows.items()]
    return cbor2.dumps({"rows": packed, **more})


def decode_rows(data: bytes) -> tuple[dict[str, Row | None], dict[str, Any]]:
    """The rows in @data, and what was encoded with them. Raises ImageError."""
    import cbor2

    try:
        members = cbor2.loads(data)
        rows = {os.fsdecode(path): _unpack(row) if row else None for path, row in members["rows"]}
    except (cbor2.CBORError, LookupError, TypeError, ValueError) as error:
        raise ImageError(f"The list of kept files cannot be read: {error}") from error
    return rows, members


def decode(data: bytes) -> View:
    """The view in @data; raises ImageError whatever is wrong with it: it is hostile input."""
    import cbor2

    try:
        items = cbor2.loads(data)
    except Exception as error:
        raise ImageError(f"The list of files is not CBOR: {error}") from error
    if not isinstance(items, list):
        raise ImageError("The list of files is no list")
    rows: dict[str, Row] = {}
    for item in items:
        row = _unpack(item)
        if rows and row.path <= next(reversed(rows)):
            raise ImageError(f"The list of files is not in order at '{row.path}'")
        _check_place(row, rows)
        rows[row.path] = row
    if "" not in rows:
        raise ImageError("The list of files has no root")
    _check_links(rows)
    return View(rows)


def _unpack(item: Any) -> Row:
    match item:
        case [
            bytes(path), int(mode), int(uid), int(gid), int(mtime), int(rdev), int(link),
            int(size), data, digest, dict(xattrs), stamp,
        ] if (
            isinstance(data, bytes | None)
            and isinstance(digest, bytes | None)
            and all(isinstance(k, str) and isinstance(v, bytes) for k, v in xattrs.items())
        ):  # fmt: skip
            row = Row(
                os.fsdecode(path), mode, uid, gid, mtime, rdev, link, size, data, digest, xattrs,
                _unpack_stamp(stamp),
            )  # fmt: skip
            if _is_sound(row):
                return row
    raise ImageError(f"The list of files holds something that is no file: {str(item)[:100]}")


def _unpack_stamp(item: Any) -> Stamp | None:
    match item:
        case [int(inode), int(ctime)]:
            return Stamp(inode, ctime)
    return None


def _is_sound(row: Row) -> bool:
    numbers = (
        0 <= row.mode <= 0o177777
        and 0 <= row.uid < 2**32
        and 0 <= row.gid < 2**32
        and -(2**63) <= row.mtime // 10**9 < 2**63
        and 0 <= row.rdev < 2**64
        and 0 <= row.link < 2**32
        and 0 <= row.size < 2**63
    )
    if not numbers or row.kind() not in KINDS:
        return False
    if row.kind() == stat.S_IFLNK:
        return bool(row.data) and row.digest is None
    if row.kind() != stat.S_IFREG:
        return row.data is None and row.digest is None
    if row.data is not None:
        return row.digest is None and len(row.data) == row.size <= INLINE
    return row.digest is not None and len(row.digest) == 32


def _check_place(row: Row, before: dict[str, Row]) -> None:
    """Raise ImageError unless @row lies in a directory that is listed before it."""
    if not row.path:
        if row.kind() != stat.S_IFDIR:
            raise ImageError("The root of the list of files is no directory")
        return
    directory, _, name = row.path.rpartition("/")
    parent = before.get(directory)
    good = (
        name not in ("", ".", "..")
        and "\0" not in name
        and not row.path.startswith("/")
        and len(row.path) < LONGEST_PATH
    )
    if not good or parent is None or parent.kind() != stat.S_IFDIR:
        raise ImageError(f"The list of files has '{row.path}' at a place that is none")


def _check_links(rows: dict[str, Row]) -> None:
    """Raise ImageError unless all names of a file describe the same file, and none a directory."""
    first: dict[int, Row] = {}
    for row in rows.values():
        if row.link:
            one = first.setdefault(row.link, row)
            if row.kind() == stat.S_IFDIR or not row._replace(path=one.path).is_like(one):
                raise ImageError(f"The list of files has '{row.path}' as a link to something else")
