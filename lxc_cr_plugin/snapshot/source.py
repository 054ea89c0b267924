# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the contents of an image's files are found by their digests."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..errors import ImageError, os_message
from . import content
from .tree import Tree
from .view import Row


class Contents:
    """Files of a directory, named by digest; those in `links` are the very files, to be linked."""

    def __init__(self, directory: Path, links: frozenset[bytes] = frozenset()) -> None:
        self.directory = directory
        self.links = links

    def path(self, digest: bytes) -> Path:
        """The file that holds the content @digest."""
        return self.directory / digest.hex()

    @contextmanager
    def opened(self, digest: bytes) -> Iterator[int]:
        """A descriptor that reads the content @digest. Raises OSError."""
        # Where a container's previous files are kept it may have got at them.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        directory = os.open(self.directory, flags | os.O_DIRECTORY)
        try:
            fd = os.open(digest.hex(), flags, dir_fd=directory)
        finally:
            os.close(directory)
        try:
            yield fd
        finally:
            os.close(fd)

    def verify(self, rows: Iterable[Row]) -> None:
        """Raise ImageError unless the contents of @rows are what they are named after."""
        for digest, size in {row.digest: row.size for row in rows if row.digest}.items():
            try:
                with self.opened(digest) as fd:
                    good = os.fstat(fd).st_size == size and content.digest(fd, size=size) == digest
            except OSError as error:
                raise ImageError(
                    f"Failed to read a file of the snapshot: {os_message(error)}",
                    hint="The image is damaged: remove it, or restart with --files keep",
                ) from error
            if not good:
                raise ImageError(
                    f"The content of '{digest.hex()}' is not what was written",
                    hint="The image is damaged: remove it, or restart with --files keep",
                )


class TreeContents(Contents):
    """Files of a read-only tree that has the contents at the paths of a view."""

    def __init__(self, directory: Path, rows: Mapping[str, Row]) -> None:
        super().__init__(directory)
        self._places = {row.digest: path for path, row in rows.items() if row.digest}

    @contextmanager
    def opened(self, digest: bytes) -> Iterator[int]:
        with (
            Tree(self.directory) as tree,
            tree.opened(self._places[digest], os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME) as fd,
        ):
            yield fd
