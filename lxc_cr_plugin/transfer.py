# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images as one stream: a tar archive that can go through a pipe.

The manifest comes first, so that a reader knows what to expect. What arrives is hostile: only regular
files with the names an image may have are taken, no more bytes than the manifest announces, and all
of it is verified before the image gets its name.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from . import manifest as manifests
from .errors import ImageError
from .image import verify_all
from .native.process import Listener
from .snapshot import content, tree_backend, view, volatile
from .snapshot.source import Contents
from .store import DEFAULT_TAG, Image, Store, writing

# Names that a file of an image may have.
MEMBER = re.compile(
    rf"(files/)?[A-Za-z0-9_][A-Za-z0-9_.-]{{0,200}}|{manifests.CONTENTS}/[0-9a-f]{{64}}"
)

# Holes come in multiples of this.
BLOCK = 4096
STARTS = range(0, content.PIECE, BLOCK)


def export_image(image: Image, stream: BinaryIO) -> None:
    """Write @image to @stream, which need not be seekable. Raises OSError when it is full."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name in _names(image.path):
            with (image.path / name).open("rb") as file:
                _add(archive, name, file)
        _add_contents(archive, image)


def _names(directory: Path) -> Iterator[str]:
    """All files of an image in the order in which a reader needs them."""
    first = [manifests.NAME, tree_backend.VIEW]
    present = manifests.file_names(directory)
    yield from (name for name in first if name in present)
    yield from (name for name in present if name not in first)


def _add_contents(archive: tarfile.TarFile, image: Image) -> None:
    """Contents of the container's files, wherever the snapshot has them."""
    manifest = image.manifest()
    inside = Contents(image.path / manifests.CONTENTS)
    sources = dict.fromkeys(tree_backend.contents_inside(image, manifest), inside)
    if manifest.rootfs is not None:
        found = tree_backend.load(image, manifest)
        sources |= dict.fromkeys(found.contents(), tree_backend.contents_of(image, found))
    for digest in sorted(sources):
        with sources[digest].opened(digest) as fd, os.fdopen(os.dup(fd), "rb") as file:
            _add(archive, f"{manifests.CONTENTS}/{digest.hex()}", file)


def _add(archive: tarfile.TarFile, name: str, file: BinaryIO) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = os.fstat(file.fileno()).st_size
    entry.mode = 0o600
    archive.addfile(entry, file)


def import_image(
    stream: BinaryIO, *, store: Store, tag: str | None, buffered: bool, listener: Listener
) -> Image:
    """Add the image in @stream to @store as @tag; raises ImageError when it is not sound.

    It keeps its digest and the name of its container.
    """
    with store.staging(buffered=buffered) as staging, writing("Failed to import the image"):
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                _extract(archive, staging.path, store=store, buffered=buffered)
            (staging.path / manifests.IMPORTED).touch(0o600)
        except tarfile.TarError as error:
            raise ImageError(f"The stream is not an exported image: {error}") from error
        data = (staging.path / manifests.NAME).read_bytes()
        arrived = manifests.decode(data)
        image = Image(arrived.container["name"], manifests.digest_of(data), staging.path, buffered)
        verify_all(image, listener=listener)
        return store.commit(staging, container=image.container, tag=tag or DEFAULT_TAG)


def _extract(archive: tarfile.TarFile, target: Path, *, store: Store, buffered: bool) -> None:
    """Take the files out of @archive, as many and as large as manifest and view announce."""
    sizes = {manifests.NAME: manifests.LARGEST}
    for entry in archive:
        if not entry.isreg() or not MEMBER.fullmatch(entry.name):
            raise ImageError(f"'{entry.name}' does not belong into an image")
        if entry.size > sizes.pop(entry.name, -1):
            raise ImageError(f"'{entry.name}' is not what the manifest announces")
        _take(archive, entry, target / entry.name)
        if entry.name == manifests.NAME:
            found = manifests.decode((target / entry.name).read_bytes())
            sizes = {file.name: file.size for file in found.files}
            store.check_space(found.size(), buffered=buffered)
        elif entry.name == tree_backend.VIEW or volatile.VIEW.fullmatch(entry.name):
            sizes |= _contents(target / entry.name)
            store.check_space(sum(sizes.values()), buffered=buffered)
    if sizes:
        raise ImageError(f"The stream ends before '{next(iter(sizes))}'")


def _contents(path: Path) -> dict[str, int]:
    found = view.decode(path.read_bytes())
    return {f"{manifests.CONTENTS}/{name.hex()}": n for name, n in found.contents().items()}


def _take(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    source = archive.extractfile(entry)
    assert source is not None
    with path.open("xb") as file:
        path.chmod(0o600)
        while piece := source.read(content.PIECE):
            # What was a hole is one again: tar knows none.
            blocks = [piece] if _is_hole(piece) else [piece[i : i + BLOCK] for i in STARTS]
            for block in blocks:
                if _is_hole(block):
                    file.seek(len(block), os.SEEK_CUR)
                else:
                    file.write(block)
        file.truncate()


def _is_hole(piece: bytes) -> bool:
    return piece == content.ZEROS[: len(piece)]
