# SPDX-License-Identifier: LGPL-2.1-or-later
"""What differs between two images: processes, descriptors, memory by mapping, files, network.

Processes are told apart by their pid, descriptors by their number, mappings by their address. Contents
of memory are compared page by page where they lie in the images.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import network
from .errors import ImageError
from .image import UNREADABLE, Record, read_records
from .manifest import PAGES

if TYPE_CHECKING:
    from .manifest import Manifest
    from .snapshot.view import Row
    from .store import Image

PAGE = 4096
ZEROS = bytes(PAGE)

# An extent with this index stands for zeros that hide a page of a file.
HIDDEN = 2**64 - 1

# VMA_PRIVATE_FILE: a page that is not in the image is the file's, elsewhere it is zeros.
PRIVATE_FILE = 1

# What a program changes by running, and what has a section of its own here.
RUNNING = ("registers", "restart_block", "files", "memory", "thread", "tid_address", "wait")

# Numbers of an image, which mean nothing in another one.
NUMBERS = ("peer", "entries", "object", "previous", "session")


class Process(NamedTuple):
    """One process of an image: records of it and of its first thread by kind."""

    pid: int
    comm: str
    threads: int
    records: dict[str, dict[str, Any]]


class Side:
    """One of the two images, read; close() it."""

    def __init__(self, image: Image, manifest: Manifest) -> None:
        self.image = image
        self.manifest = manifest
        records = read_records(image.path)
        self.objects = {r.id: r for r in records.state if r.kind not in ("process", "thread")}
        self.paths = {item.get("id"): item.get("path") or "" for item in records.objects}
        self.processes = {process.pid: process for process in _processes(records.state)}
        self._scope = ExitStack()
        self._pages = self._map(image.path / PAGES)

    def close(self) -> None:
        """Let go of the memory."""
        self._scope.close()

    def _map(self, path: Path) -> mmap.mmap | bytes:
        if not path.stat().st_size:
            return b""
        with path.open("rb") as file:
            return self._scope.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def page(self, index: int | None) -> bytes | None:
        """The content of a page, by its place among the image's pages; None: there is none."""
        if index is None:
            return None
        return ZEROS if index == HIDDEN else self._pages[index * PAGE : (index + 1) * PAGE]


def _processes(state: list[Record]) -> Iterator[Process]:
    """Threads follow their process, the first one before the others."""
    pid, comm, threads, records = 0, "", 0, dict[str, dict[str, Any]]()
    for record in [*state, Record("process", -1, {"pid": 0})]:
        if record.kind == "process":
            if pid:
                yield Process(pid, comm, threads, records)
            pid, comm, threads, records = record.fields["pid"], "", 0, {"process": record.fields}
        elif pid and record.kind != "zombie":
            threads += record.kind == "thread"
            if record.kind == "thread" and threads == 1:
                comm = record.fields["comm"]
            if threads <= 1:
                records[record.kind] = record.fields


def compare(sides: tuple[Side, Side]) -> dict[str, Any]:
    """All that differs between two images. Raises ImageError when one of them makes no sense."""
    try:
        return {
            "processes": _by_key(sides[0].processes, sides[1].processes, _process_changes, _named),
            "descriptors": _descriptors(sides),
            "memory": _memory(sides),
            "files": _files(sides),
            "network": _network(sides),
        }
    except UNREADABLE as error:
        raise ImageError(f"The records of an image make no sense: {error!r}") from error


def _by_key(
    old: dict[Any, Any],
    new: dict[Any, Any],
    changes: Callable[[Any, Any], Any],
    describe: Callable[[Any], Any],
) -> dict[str, list[Any]]:
    """What is only in one of two dictionaries, and what @changes finds of what is in both."""
    both = [(old[key], new[key]) for key in old if key in new]
    return {
        "gone": [describe(value) for key, value in old.items() if key not in new],
        "came": [describe(value) for key, value in new.items() if key not in old],
        "changed": [{**describe(b), "changes": found} for a, b in both if (found := changes(a, b))],
    }


def _named(process: Process) -> dict[str, Any]:
    return {"pid": process.pid, "comm": process.comm}


def _process_changes(old: Process, new: Process) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name in ("comm", "threads"):
        if getattr(old, name) != getattr(new, name):
            found[name] = [getattr(old, name), getattr(new, name)]
    programs = [process.records.get("memory", {}).get("exe") for process in (old, new)]
    if programs[0] != programs[1]:
        found["program"] = programs
    for kind in sorted(old.records.keys() | new.records.keys()):
        if kind not in RUNNING:
            changed = _members(old.records.get(kind, {}), new.records.get(kind, {}))
            found |= {f"{kind}.{name}": values for name, values in changed.items()}
    return found


def _members(old: dict[str, Any], new: dict[str, Any]) -> dict[str, list[Any]]:
    """The members that differ, with both values."""
    return {
        name: [old.get(name), new.get(name)]
        for name in sorted(old.keys() | new.keys())
        if name not in NUMBERS and old.get(name) != new.get(name)
    }


# ---- descriptors ----


class Descriptor(NamedTuple):
    """One descriptor of a process and the open file behind it."""

    pid: int
    fd: int
    kind: str
    path: str
    fields: dict[str, Any]


def _descriptors(sides: tuple[Side, Side]) -> dict[str, list[Any]]:
    old, new = (
        {
            (one.pid, one.fd): one
            for process in side.processes.values()
            for one in _held(side, process)
        }
        for side in sides
    )
    return _by_key(old, new, _descriptor_changes, _described)


def _held(side: Side, process: Process) -> Iterator[Descriptor]:
    for fd, number, *_ in process.records.get("files", {}).get("descriptors", ()):
        record = side.objects.get(number)
        if record:
            yield Descriptor(
                process.pid, fd, record.kind, side.paths.get(number, ""), record.fields
            )


def _described(one: Descriptor) -> dict[str, Any]:
    return {"pid": one.pid, "fd": one.fd, "kind": one.kind, "path": one.path}


def _descriptor_changes(old: Descriptor, new: Descriptor) -> dict[str, list[Any]]:
    if (old.kind, old.path) != (new.kind, new.path):
        return {"file": [f"{old.kind} {old.path}", f"{new.kind} {new.path}"]}
    found = _members(
        {**old.fields.get("file", {}), **old.fields}, {**new.fields.get("file", {}), **new.fields}
    )
    found.pop("file", None)
    return found


# ---- memory ----


class Extents:
    """Which page of an address space or an object lies where in the image."""

    def __init__(self, rows: list[list[int]]) -> None:
        self._rows = rows
        self._starts = [row[0] for row in rows]

    def index(self, page: int) -> int | None:
        """The place of @page among the image's pages; None: it is not there."""
        at = bisect_right(self._starts, page) - 1
        if at < 0 or page >= self._rows[at][0] + self._rows[at][1]:
            return None
        first, _, index = self._rows[at][:3]
        return index if index == HIDDEN else int(index + page - first)

    def pages(self, start: int, end: int) -> Iterator[int]:
        """All pages from @start to @end that are there."""
        for first, count, *_ in self._rows[max(0, bisect_right(self._starts, start) - 1) :]:
            if first >= end:
                break
            yield from range(max(first, start), min(first + count, end))


class Mapping(NamedTuple):
    """One mapping of a process; @extents has its pages, @shift what to add to a page's number."""

    pid: int
    start: int
    end: int
    name: str
    protection: int
    type: int
    extents: Extents
    shift: int


def _memory(sides: tuple[Side, Side]) -> dict[str, list[Any]]:
    old, new = (
        {
            (one.pid, one.start): one
            for process in side.processes.values()
            for one in _mapped(side, process)
        }
        for side in sides
    )
    return _by_key(old, new, lambda a, b: _mapping_changes(sides, a, b), _placed)


def _mapped(side: Side, process: Process) -> Iterator[Mapping]:
    memory = process.records.get("memory", {})
    private = Extents(memory.get("extents", []))
    for vma in memory.get("vmas", ()):
        record = side.objects.get(vma["object"])
        contents = record.fields.get("contents") if record else None
        extents, shift = private, 0
        if isinstance(contents, dict):
            extents = Extents(contents["extents"])
            shift = (vma["offset"] - vma["start"]) // PAGE
        yield Mapping(
            process.pid, vma["start"], vma["end"], vma["name"], vma["protection"], vma["type"],
            extents, shift,
        )  # fmt: skip


def _placed(one: Mapping) -> dict[str, Any]:
    return {
        "pid": one.pid,
        "start": one.start,
        "end": one.end,
        "size": one.end - one.start,
        "name": one.name,
    }


def _mapping_changes(sides: tuple[Side, Side], old: Mapping, new: Mapping) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: [getattr(old, name), getattr(new, name)]
        for name in ("end", "name", "protection", "type")
        if getattr(old, name) != getattr(new, name)
    }
    changed = sum(_page_differs(sides, old, new, page) for page in _pages_of(old, new))
    return {**found, "pages": changed} if changed else found


def _pages_of(old: Mapping, new: Mapping) -> set[int]:
    """Page numbers of what both map, as far as one of the images has a page there."""
    first, last = old.start // PAGE, min(old.end, new.end) // PAGE
    return {
        page - one.shift
        for one in (old, new)
        for page in one.extents.pages(first + one.shift, last + one.shift)
    }


def _page_differs(sides: tuple[Side, Side], old: Mapping, new: Mapping, page: int) -> bool:
    contents = []
    for side, one in zip(sides, (old, new), strict=True):
        content = side.page(one.extents.index(page + one.shift))
        contents.append(ZEROS if content is None and one.type != PRIVATE_FILE else content)
    return contents[0] != contents[1]


# ---- files and network ----


def _files(sides: tuple[Side, Side]) -> dict[str, list[Any]] | None:
    """Paths that differ; None when an image was made without files."""
    if any(side.manifest.rootfs is None for side in sides):
        return None
    old, new = (_rows(side) for side in sides)
    return _by_key(old, new, _file_changes, lambda row: {"path": row.path})


def _rows(side: Side) -> dict[str, Row]:
    from .snapshot import tree_backend, volatile

    rows = {
        f"/{path}": row for path, row in tree_backend.load(side.image, side.manifest).rows.items()
    }
    for mount in side.manifest.mounts:
        if mount.get("view"):
            view = volatile.load(side.image, side.manifest, mount["view"])
            prefix = mount["place"].rstrip("/")
            rows |= {f"{prefix}/{path}": row for path, row in view.rows.items() if path}
    return {path: row._replace(path=path) for path, row in rows.items()}


def _file_changes(old: Row, new: Row) -> list[str]:
    if old.kind() != new.kind():
        return ["type"]
    found = []
    if (old.data, old.digest, old.size, old.rdev) != (new.data, new.digest, new.size, new.rdev):
        found.append("content")
    if (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid):
        found.append("attributes")
    if old.xattrs != new.xattrs:
        found.append("extended attributes")
    return found or (["time"] if old.mtime != new.mtime else [])


def _network(sides: tuple[Side, Side]) -> dict[str, dict[str, list[Any]]]:
    """Of each part of the network that differs, what is only in one of the images."""
    old, new = (network.load(side.image, side.manifest) or {} for side in sides)
    found = {}
    for part in sorted((old.keys() | new.keys()) - {"format"}):
        before, after = (_items(state.get(part)) for state in (old, new))
        if before != after:
            found[part] = {
                "gone": [item for item in before if item not in after],
                "came": [item for item in after if item not in before],
            }
    return found


def _items(part: Any) -> list[Any]:
    if isinstance(part, dict):
        return [[name, value] for name, value in sorted(part.items())]
    return part.splitlines() if isinstance(part, str) else list(part or ())
