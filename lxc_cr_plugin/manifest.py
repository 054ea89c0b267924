# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manifest of an image: what it is, what it needs, and a digest of every file.

Its own bytes are hashed with SHA-256, and that digest is the name of the image. Files carry
SHA-256 too, but `pages` does not: SHA-256 of 1 GiB takes 0.65 s where a whole restart may take
0.25 s. XXH3-128 takes a tenth of that, shared by two threads. It finds every accident; whoever can
change files in a directory of mode 0700 on purpose is root already.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from .errors import ImageError, os_errors, os_message
from .schema import violations

FORMAT = 1
NAME = "manifest.json"

# The directory for contents of a snapshot. Each is named after its digest, and the list that names
# them all is a file of the manifest.
CONTENTS = "rootfs"

# Names the snapshot that lies elsewhere on this host; says that the image came from elsewhere. No
# manifest and no stream can bring such names.
POINTER = ".snapshot"
IMPORTED = ".imported"

# The one file that is hashed in pieces, and the size of a piece.
PAGES = "pages"
PIECE = 64 << 20
HASHING_THREADS = 2

# A manifest lists a line per file; this is far beyond any real one.
LARGEST = 64 << 20


class ImageFile(NamedTuple):
    """One file of the image; either `sha256` or `xxh3` (of each 64 MiB) is set."""

    name: str
    size: int
    sha256: str | None = None
    xxh3: tuple[str, ...] | None = None


class Manifest(NamedTuple):
    """See config/schema/manifest.json for the meaning of each member."""

    engine: str
    requires: tuple[str, ...]
    created: str
    container: dict[str, Any]
    clocks: dict[str, int]
    host: dict[str, Any]
    statistics: dict[str, int]
    files: tuple[ImageFile, ...]
    rootfs: dict[str, Any] | None = None
    mounts: tuple[dict[str, Any], ...] = ()

    def encode(self) -> bytes:
        """The bytes of manifest.json; raises ImageError when they would not be valid."""
        members: dict[str, Any] = {
            "format": FORMAT,
            **self._asdict(),
            "parent": None,
            "files": [_without_none(file._asdict()) for file in self.files],
        }
        # Through JSON once, so that what is validated is what a reader will see.
        data = json.dumps(members, indent=1, sort_keys=True).encode() + b"\n"
        decode(data)
        return data

    def size(self) -> int:
        """Bytes of all files, without the manifest."""
        return sum(file.size for file in self.files)

    def check_requires(self, *, known: Sequence[str]) -> None:
        """Raise ImageError when the image needs a feature that is not among @known."""
        missing = [name for name in self.requires if name not in known]
        if missing:
            raise ImageError(
                f"The image needs {_features(missing)}, which this version lacks",
                hint=f"It was written by lxc-cr {self.engine}: use that version or a newer one",
            )


def _features(names: list[str]) -> str:
    quoted = ", ".join(f"'{name}'" for name in names)
    return f"feature {quoted}" if len(names) == 1 else f"the features {quoted}"


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def digest_of(data: bytes) -> str:
    """The name of the image whose manifest is @data: SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes) -> Manifest:
    """The manifest in @data; raises ImageError whatever is wrong with it."""
    members = _parse(data)
    if isinstance(members, dict) and members.get("format") not in (None, FORMAT):
        raise ImageError(
            f"The image has format {members['format']!r}, this version reads format {FORMAT}",
            hint="Use the version of lxc-cr that wrote it, or a newer one",
        )
    found = violations(members, schema="manifest.json")
    if found:
        where = found[0].path or "the top level"
        raise ImageError(f"The manifest is not valid: {where}: {found[0].message[:500]}")
    for name in ("format", "parent"):
        del members[name]
    files = tuple(_file(entry) for entry in members.pop("files"))
    if len({file.name for file in files}) != len(files):
        raise ImageError("The manifest is not valid: a file is listed twice")
    mounts = tuple(members.pop("mounts", ()))
    requires = tuple(members.pop("requires"))
    return Manifest(files=files, requires=requires, mounts=mounts, **members)


def _parse(data: bytes) -> Any:
    def refuse(text: str) -> NoReturn:
        raise ValueError(f"{text} has no place in a manifest")

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError("a member is given twice")
        return members

    if len(data) > LARGEST:
        raise ImageError(f"The manifest has {len(data)} bytes, more than any manifest needs")
    try:
        return json.loads(
            data.decode(),
            parse_float=refuse,
            parse_constant=refuse,
            object_pairs_hook=distinct,
        )
    except (ValueError, RecursionError) as error:
        raise ImageError(f"The manifest cannot be read: {error}") from error


def _file(entry: dict[str, Any]) -> ImageFile:
    xxh3 = entry.get("xxh3")
    file = ImageFile(
        name=entry["name"],
        size=entry["size"],
        sha256=entry.get("sha256"),
        xxh3=None if xxh3 is None else tuple(xxh3),
    )
    if (file.sha256 is None) == (file.xxh3 is None):
        raise ImageError(f"The manifest is not valid: '{file.name}' needs sha256 or xxh3")
    if file.xxh3 is not None and len(file.xxh3) != _pieces(file.size):
        raise ImageError(f"The manifest is not valid: '{file.name}' has not one digest per 64 MiB")
    return file


def _pieces(size: int) -> int:
    return -(-size // PIECE)


def describe_files(directory: Path) -> tuple[ImageFile, ...]:
    """Entries for all files of an image in @directory, in the order of their names."""
    return tuple(_describe(directory, name) for name in file_names(directory) if name != NAME)


def file_names(directory: Path) -> list[str]:
    """All files of an image but what belongs to its snapshot, relative, sorted.

    Raises ImageError for anything but plain files.
    """
    names = []
    for folder, prefix in ((directory, ""), (directory / "files", "files/")):
        if prefix and not folder.exists():
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                if not prefix and entry.name in (POINTER, IMPORTED):
                    continue
                if entry.is_file(follow_symlinks=False):
                    names.append(prefix + entry.name)
                elif not _is_known_directory(entry, prefix):
                    raise ImageError(f"'{prefix}{entry.name}' does not belong into an image")
    return sorted(names)


def _is_known_directory(entry: os.DirEntry[str], prefix: str) -> bool:
    known = not prefix and entry.name in ("files", CONTENTS)
    return known and entry.is_dir(follow_symlinks=False)


def _describe(directory: Path, name: str) -> ImageFile:
    size = (directory / name).stat().st_size
    if name == PAGES:
        return ImageFile(name, size, xxh3=xxh3_digests(directory / name))
    return ImageFile(name, size, sha256=sha256_digest(directory / name))


def sha256_digest(path: Path) -> str:
    """SHA-256 of the content of @path in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def xxh3_digests(path: Path) -> tuple[str, ...]:
    """XXH3-128 in hex of each 64 MiB of @path, computed by two threads."""
    import xxhash

    size = path.stat().st_size
    if size == 0:
        return ()
    digests = [""] * _pieces(size)
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
        data.madvise(mmap.MADV_SEQUENTIAL)

        def work(first: int) -> None:
            # xxhash lets go of the global lock while it works.
            for number in range(first, len(digests), HASHING_THREADS):
                with memoryview(data)[number * PIECE : (number + 1) * PIECE] as piece:
                    digests[number] = xxhash.xxh3_128_hexdigest(piece)

        others = [threading.Thread(target=work, args=(n,)) for n in range(1, HASHING_THREADS)]
        for thread in others:
            thread.start()
        work(0)
        for thread in others:
            thread.join()
    return tuple(digests)


def check_sizes(directory: Path, files: Sequence[ImageFile]) -> None:
    """Raise ImageError unless @directory holds exactly @files, each with its size.

    Also refused: a file that is not root's, or that others can write.
    """
    check_owner(directory, "The image")
    present = [name for name in file_names(directory) if name != NAME]
    for name in sorted(set(present) ^ {file.name for file in files}):
        state = "is not in the manifest" if name in present else "is missing"
        raise ImageError(f"'{name}' {state}", hint="The image is damaged: remove it")
    for file in files:
        with reading(f"'{file.name}' of the image"):
            status = (directory / file.name).lstat()
        if status.st_size != file.size:
            raise ImageError(
                f"'{file.name}' has {status.st_size} bytes instead of {file.size}",
                hint="The image is damaged: remove it",
            )
        check_owner(directory / file.name, f"'{file.name}'")


def check_owner(path: Path, what: str) -> None:
    """Raise ImageError unless only root can change the file or directory at @path."""
    status = path.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ImageError(
            f"{what} can be written by others than root",
            hint="Do not restart it unless you know who wrote it",
        )


def check_digest(directory: Path, file: ImageFile) -> None:
    """Raise ImageError unless the content of @file is what the manifest says."""
    path = directory / file.name
    with reading(f"'{file.name}' of the image"):
        same = (
            sha256_digest(path) == file.sha256
            if file.xxh3 is None
            else xxh3_digests(path) == file.xxh3
        )
    if not same:
        raise ImageError(
            f"The content of '{file.name}' is not what was written",
            hint="The image is damaged: remove it",
        )


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn failed system calls into ImageError: "Failed to read @what: Input/output error"."""
    hint = "The image is damaged, or the disk that it is on: `dmesg` may tell"
    with os_errors(ImageError, f"Failed to read {what}", hint=hint):
        yield


def now() -> str:
    """The time of day as the manifest writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def load(directory: Path, *, digest: str) -> Manifest:
    """The manifest of the image in @directory, if its digest is @digest; else ImageError."""
    try:
        data = (directory / NAME).read_bytes()
    except OSError as error:
        raise ImageError(f"Failed to read the manifest: {os_message(error)}") from error
    if digest_of(data) != digest:
        raise ImageError(
            "The manifest is not the one that the image is named after",
            hint="The image is damaged: remove it with `lxc-cr rm`",
        )
    return decode(data)
