# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading an image: is it what was written, and what does it hold.

An image is hostile input. Verifying goes from the outside in: the manifest against the image's
name, the files against the manifest, and the records by the engine, which trusts none of this.
For people the records are decoded here with cbor2; any CBOR tool would do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import manifest as manifests
from .errors import ImageError, os_message
from .manifest import PAGES, Manifest
from .store import Image

if TYPE_CHECKING:
    from .native.process import Listener

OBJECTS = "objects.cbor"
STATE = "state.cbor"

# What cbor2 raises besides its own class: it also decodes dates, numbers and more, if told so.
UNREADABLE = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)


def verify_records(image: Image, manifest: Manifest) -> None:
    """Raise ImageError unless all files are there and all but the memory are as written."""
    names = {file.name for file in manifest.files}
    for name in (OBJECTS, STATE, PAGES):
        if name not in names:
            raise ImageError(f"The manifest does not list '{name}'")
    manifests.check_sizes(image.path, manifest.files)
    for file in manifest.files:
        if file.name != PAGES:
            manifests.check_digest(image.path, file)


def verify_pages(image: Image, manifest: Manifest) -> None:
    """Raise ImageError unless the memory is as written; the long part, about 0.1 s per GiB."""
    for file in manifest.files:
        if file.name == PAGES:
            manifests.check_digest(image.path, file)


def verify_by_engine(image: Image, *, listener: Listener) -> None:
    """Raise ImageError unless the engine could restart from the records; nothing is touched."""
    from . import native

    fd = os.open(image.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        native.image_check(image_fd=fd, listener=listener)
    finally:
        os.close(fd)


def verify_all(image: Image, *, listener: Listener) -> None:
    """Raise ImageError unless every byte of the image is as written, contents of files included."""
    from .snapshot.tree_backend import check_contents

    manifest = image.manifest()
    verify_records(image, manifest)
    verify_pages(image, manifest)
    verify_by_engine(image, listener=listener)
    check_contents(image, manifest, full=True)


def required_kinds(directory: Path) -> tuple[str, ...]:
    """The kinds that a reader of the image in @directory must know, as the engine lists them."""
    header = next(_items(directory / STATE), None)
    match header:
        case {"requires": [*required]}:
            return tuple(str(row[0]) for row in required if isinstance(row, list) and row)
    raise ImageError(f"'{STATE}' does not say what it requires")


class Record(NamedTuple):
    """One record of state.cbor: what kind of object, its id, and its fields."""

    kind: str
    id: int
    fields: dict[str, Any]


class Records(NamedTuple):
    """The decoded records of an image."""

    objects: list[dict[str, Any]]
    header: dict[str, Any]
    state: list[Record]


def read_records(path: Path) -> Records:
    """All records of the image in directory @path; raises ImageError when they are not CBOR."""
    objects = next(_items(path / OBJECTS), None)
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise ImageError(f"'{OBJECTS}' is not an array of maps")
    items = _items(path / STATE)
    header = next(items, None)
    if not isinstance(header, dict):
        raise ImageError(f"'{STATE}' does not begin with a map")
    return Records(objects, header, [_record(item) for item in items])


def _record(item: Any) -> Record:
    match item:
        case [str(kind), int(number), dict(fields)]:
            return Record(kind, number, fields)
    raise ImageError(f"'{STATE}' holds something that is no record: {str(item)[:100]}")


def _items(path: Path) -> Iterator[Any]:
    """The items of a CBOR sequence (RFC 8742)."""
    import cbor2

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"Failed to read '{path}': {os_message(error)}") from error
    stream = BytesIO(data)
    while stream.tell() < len(data):
        try:
            yield plain(cbor2.load(stream))
        except (cbor2.CBORError, *UNREADABLE) as error:
            raise ImageError(f"'{path.name}' is not CBOR: {error}") from error


def plain(value: Any) -> Any:
    """@value as JSON can hold it: byte strings become text, bytes that are no UTF-8 surrogates."""
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, dict):
        return {str(plain(name)): plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return repr(value)
