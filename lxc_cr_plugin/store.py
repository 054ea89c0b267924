# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where images lie and how they are named.

    STORE/<container>/<digest>/         an image; the digest is SHA-256 of its manifest.json
    STORE/<container>/tags/<tag>        a file with a digest in it
    STORE/.staging/<random>/            an image being written

An image is complete before it gets its name by one rename, so it exists entirely or not at all.
The buffer is a second store of the same shape on a tmpfs. Whoever can write here can put code into
a container, hence everything belongs to root alone. Where the buffer lies anybody may have made a
directory first: then there is none, and nothing else is disturbed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from . import manifest
from .errors import StoreError, UsageError, os_message
from .in_use import claimed, try_lock
from .manifest import Manifest
from .run import until
from .trusted import sync

# <fcntl.h>: a path is relative to nothing.
AT_FDCWD = -100

DEFAULT_TAG = "latest"
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"[0-9a-f]{64}")
SHORTEST_DIGEST = 8

# How long another command may hold the store for a rename, seconds.
LOCK_TIMEOUT = 10.0

# Attribute of an image's directory: its inode, and what room() is. A copy has another inode, and where
# there are no such attributes nothing is noted.
ROOM = "trusted.lxc-cr.room"


class Reference(NamedTuple):
    """A name of an image: NAME (its latest), NAME:TAG or NAME@sha256:HEX (at least 8 digits)."""

    container: str
    tag: str | None = DEFAULT_TAG
    digest: str | None = None

    @classmethod
    def parse(cls, text: str, *, container: str | None = None) -> Reference:
        """The reference in @text; raises UsageError.

        With @container, a name that may itself hold a colon, only its images can be meant.
        """
        name, at, digest = text.rpartition("@sha256:")
        if at:
            if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST_DIGEST},64}}", digest):
                raise _bad_reference(text)
            reference = cls(name, None, digest)
        elif text == container or ":" not in text:
            reference = cls(text)
        else:
            name, _, tag = text.rpartition(":")
            if not TAG.fullmatch(tag):
                raise _bad_reference(text)
            reference = cls(name, tag)
        if reference.container in ("", ".", "..") or "/" in reference.container:
            raise _bad_reference(text)
        if container is not None and reference.container != container:
            raise UsageError(
                f"'{text}' is not an image of container '{container}'",
                hint=f"Write {container}:TAG or {container}@sha256:DIGEST",
            )
        return reference

    @classmethod
    def given(cls, text: str | None, *, container: str) -> Reference:
        """The reference in @text to an image of @container, None: its latest; raises UsageError."""
        return cls.parse(container if text is None else text, container=container)

    def __str__(self) -> str:
        if self.digest:
            return f"{self.container}@sha256:{self.digest}"
        return f"{self.container}:{self.tag}"


def _bad_reference(text: str) -> UsageError:
    return UsageError(
        f"'{text}' is not a reference to an image",
        hint="Write NAME, NAME:TAG or NAME@sha256:DIGEST (at least 8 digits); "
        "a tag has letters, digits, '_', '.' and '-'",
    )


class Image(NamedTuple):
    """An image of the store: `path` holds the files."""

    container: str
    digest: str
    path: Path
    buffered: bool
    tags: tuple[str, ...] = ()

    def manifest(self) -> Manifest:
        """Its manifest; raises ImageError when that is damaged or not the one it is named after."""
        return manifest.load(self.path, digest=self.digest)

    def room(self) -> int:
        """Bytes that its files take where they lie: without holes, which may be larger than any disk.

        The container's files are among them; those that other images have too are counted in each.
        To look at them all takes a second for some: it was noted when the image was complete.
        """
        noted = _noted_room(self.path)
        if noted is not None:
            return noted
        tree = os.walk(self.path)
        return sum(_room_of(Path(folder, name)) for folder, _, names in tree for name in names)

    def reference(self) -> str:
        """The shortest unambiguous name for people."""
        if self.tags:
            return f"{self.container}:{self.tags[0]}"
        return f"{self.container}@sha256:{self.digest[:12]}"


class Store:
    """The image store and its buffer; neither directory is made before something is written."""

    def __init__(self, *, root: Path, buffer: Path) -> None:
        """Raises StoreError when @root is there and not safe to use.

        If @buffer is not, `closed` says why, and only what needs the buffer raises that.
        """
        self._root = Shelf(root, buffered=False)
        self.closed: StoreError | None = None
        try:
            self._buffer = Shelf(buffer, buffered=True)
        except StoreError as error:
            self.closed = error
            self._buffer = ClosedShelf(buffer)
        self._root.beside = self._buffer.beside = (self._buffer, self._root)

    @contextlib.contextmanager
    def staging(self, *, buffered: bool) -> Iterator[Staging]:
        """An empty directory for a new image; it disappears unless `commit` is called."""
        with self._shelf(buffered=buffered).staging() as staging:
            yield staging

    def commit(self, staging: Staging, *, container: str, tag: str) -> Image:
        """Make the image in @staging, whose manifest is written, part of the store as @tag."""
        shelf = staging.shelf
        with writing(f"Failed to add an image to '{shelf.path}'"):
            seal_tree(staging.path)
            with shelf.locked():
                image = shelf.adopt(staging.path, container=container, replace=True)
                shelf.set_tag(container=container, tag=tag, digest=image.digest)
        if not shelf.buffered and self._buffer.exists():
            # The buffer is asked first: an older image there must not keep the name.
            with contextlib.suppress(FileNotFoundError), self._buffer.locked():
                self._buffer.drop_tag(container=container, tag=tag)
        return image._replace(tags=(tag,))

    def resolve(self, reference: Reference) -> Image:
        """The image of @reference, the buffered one first; raises StoreError if there is none."""
        images = [image for image in self.images() if image.container == reference.container]
        if reference.digest:
            wanted: set[str | None] = {
                image.digest for image in images if image.digest.startswith(reference.digest)
            }
            if len(wanted) > 1:
                raise StoreError(
                    f"'{reference}' fits {len(wanted)} images", hint="Give more digits"
                )
        else:
            name = {"container": reference.container, "tag": reference.tag or DEFAULT_TAG}
            wanted = {self._buffer.tag(**name) or self._root.tag(**name)}
        for image in images:
            if image.digest in wanted:
                return image
        raise StoreError(f"There is no image '{reference}'", hint="`lxc-cr ls` shows what there is")

    def images(self) -> list[Image]:
        """All images, buffered ones first, each with its tags."""
        return [*self._buffer.images(), *self._root.images()]

    def newest(self, container: str) -> list[Image]:
        """The images of @container, the newest first."""
        found = [image for image in self.images() if image.container == container]
        return sorted(found, key=lambda image: image.path.stat().st_mtime_ns, reverse=True)

    def remove(self, image: Image) -> None:
        """Remove @image and every tag that points to it."""
        for shelf in (self._buffer, self._root):
            if shelf.exists():
                with writing(f"Failed to remove an image from '{shelf.path}'"), shelf.locked():
                    shelf.remove(container=image.container, digest=image.digest)

    def flush(self, image: Image) -> Image:
        """Copy a buffered @image to the disk, durably, and remove it from the buffer.

        Raises StoreError, and nothing is changed, when a command is at work with it.
        """
        if not image.buffered:
            raise StoreError(f"Image '{image.reference()}' is not buffered")
        self.check_space(image.room(), buffered=False)
        with (
            self.staging(buffered=False) as staging,
            writing(f"Failed to add an image to '{staging.shelf.path}'"),
        ):
            shutil.copytree(
                image.path, staging.path, copy_function=copy_with_holes, dirs_exist_ok=True
            )
            seal_tree(staging.path)
            with claimed(image.path):
                with self._root.locked():
                    stored = self._root.adopt(staging.path, container=image.container)
                    for tag in image.tags:
                        self._root.set_tag(container=image.container, tag=tag, digest=image.digest)
                with (
                    writing(f"Failed to remove an image from '{self._buffer.path}'"),
                    self._buffer.locked(),
                ):
                    self._buffer.remove_claimed(container=image.container, digest=image.digest)
        return stored._replace(tags=image.tags)

    def copy(self, image: Image, *, container: str) -> Image:
        """Give @container an image of another one, tags included; their files are shared."""
        with (
            self.staging(buffered=image.buffered) as staging,
            writing(f"Failed to add an image to '{staging.shelf.path}'"),
        ):
            shutil.copytree(
                image.path, staging.path, copy_function=os.link, symlinks=True, dirs_exist_ok=True
            )
            seal_tree(staging.path)
            with staging.shelf.locked():
                copied = staging.shelf.adopt(staging.path, container=container)
                for tag in image.tags:
                    staging.shelf.set_tag(container=container, tag=tag, digest=image.digest)
        return copied._replace(tags=image.tags)

    def check_space(self, need: int, *, buffered: bool) -> None:
        """Raise StoreError when @need bytes will not fit."""
        path = self._shelf(buffered=buffered).path
        existing = next(p for p in (path, *path.parents) if p.exists())
        status = os.statvfs(existing)
        free = status.f_bavail * status.f_frsize
        if need > free:
            raise StoreError(
                f"'{path}' has {free >> 20} MiB left, the image needs about {need >> 20} MiB",
                hint="Remove images with `lxc-cr rm`"
                + (", or write to the disk, without --buffered" if buffered else ""),
            )

    def sweep(self) -> None:
        """Remove what was being written by commands that no longer exist."""
        for shelf in (self._buffer, self._root):
            shelf.sweep()

    def _shelf(self, *, buffered: bool) -> Shelf:
        if buffered and self.closed:
            raise self.closed
        return self._buffer if buffered else self._root


class Staging(NamedTuple):
    """A directory for a new image; `fd` is it too, locked for as long as anybody writes."""

    shelf: Shelf
    path: Path
    fd: int


class Shelf:
    """One directory of images: the store, or the buffer."""

    def __init__(self, path: Path, *, buffered: bool) -> None:
        self.path = path
        self.buffered = buffered
        self.beside: tuple[Shelf, ...] = (self,)
        if os.path.lexists(path):
            self._refuse_unsafe()

    def exists(self) -> bool:
        """Whether there is anything to look into."""
        return self.path.exists()

    def _refuse_unsafe(self) -> None:
        status = self.path.lstat()
        unsafe = (
            not stat.S_ISDIR(status.st_mode)
            or status.st_uid != os.geteuid()
            or status.st_mode & 0o022
        )
        if unsafe:
            raise StoreError(
                f"'{self.path}' is not a directory that only root can write",
                hint="Whoever can write there can put code into a container: look who made it"
                + (", remove it, or set buffer_dir to another place" if self.buffered else ""),
            )

    def _prepare(self) -> None:
        with writing(f"Failed to make the image store '{self.path}'"):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._refuse_unsafe()
            (self.path / ".staging").mkdir(mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock for names: renames and tags."""
        fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not until(lambda: try_lock(fd), timeout=LOCK_TIMEOUT):
                raise StoreError(
                    f"The image store '{self.path}' is locked by another command",
                    hint=f"`fuser {self.path}/.lock` shows by which",
                )
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Staging]:
        """An empty directory on this shelf; removed at the end if it is still there."""
        self._prepare()
        path = self.path / ".staging" / os.urandom(8).hex()
        # Under the lock, or sweep() might come between making and locking it.
        with self.locked():
            path.mkdir(mode=0o700)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield Staging(self, path, fd)
        finally:
            self._discard(path)
            os.close(fd)

    def sweep(self) -> None:
        """Remove staging directories that nobody holds, and images on their way out."""
        staging = self.path / ".staging"
        if not entries(staging):
            return
        with self.locked():
            for path in entries(staging):
                # Whoever holds a staging directory removes it without the lock, at any moment.
                with contextlib.suppress(FileNotFoundError):
                    self._sweep(path)

    def _sweep(self, path: Path) -> None:
        """Remove @path of the staging directory unless somebody holds it; FileNotFoundError: gone."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                path.unlink()
            elif try_lock(fd):
                # What cannot go now is tried again by the next command.
                with contextlib.suppress(StoreError):
                    self._discard(path)
        finally:
            os.close(fd)

    def _discard(self, path: Path) -> None:
        """Remove the directory of an image that has no name, and a snapshot that only it has."""
        if (path / manifest.POINTER).exists():
            from .snapshot.pointer import release

            release(path, others=[p for shelf in self.beside for p in shelf.homes() if p != path])
        shutil.rmtree(path, ignore_errors=True)

    def homes(self) -> list[Path]:
        """The directories of all images, complete or not."""
        # In this order: one that gets its name meanwhile is among them all the same.
        return [*entries(self.path / ".staging"), *(image.path for image in self.images())]

    def adopt(self, staging: Path, *, container: str, replace: bool = False) -> Image:
        """Give the complete image in @staging, which is sealed, its name. The shelf is locked.

        If it is here already that one stays, or with @replace goes: it may be damaged. Raises StoreError
        when a command is at work with that.
        """
        digest = manifest.digest_of((staging / manifest.NAME).read_bytes())
        home = self._home(container)
        for directory in (home, home / "tags"):
            directory.mkdir(mode=0o700, exist_ok=True)
        path = home / digest
        if not path.exists():
            staging.rename(path)
        elif replace:
            from . import native

            with claimed(path):
                native.exchange(AT_FDCWD, str(staging), AT_FDCWD, str(path))
        for directory in (home, self.path):
            sync(directory)
        return Image(container, digest, path, self.buffered)

    def remove(self, *, container: str, digest: str) -> None:
        """Remove an image and its tags, if they are here. The shelf is locked.

        Raises StoreError when a command is at work with it.
        """
        path = self._home(container) / digest
        with claimed(path) if path.is_dir() else contextlib.nullcontext():
            self.remove_claimed(container=container, digest=digest)

    def remove_claimed(self, *, container: str, digest: str) -> None:
        """The same of an image that the caller has claimed."""
        path = self._home(container) / digest
        tags = self._tags(container)
        for tag, target in tags.items():
            if target == digest:
                self.drop_tag(container=container, tag=tag)
        if path.is_dir():
            # Out of sight first: half an image must never be seen.
            leaving = self.path / ".staging" / os.urandom(8).hex()
            path.rename(leaving)
            self._discard(leaving)
        with contextlib.suppress(OSError):
            (self._home(container) / "tags").rmdir()
            self._home(container).rmdir()

    def set_tag(self, *, container: str, tag: str, digest: str) -> None:
        """Let @tag name the image @digest from now on. The shelf is locked."""
        tags = self._home(container) / "tags"
        new = self.path / ".staging" / f"{os.urandom(8).hex()}.tag"
        new.write_text(digest + "\n")
        new.chmod(0o600)
        sync(new)
        new.rename(tags / tag)
        sync(tags)

    def drop_tag(self, *, container: str, tag: str) -> None:
        """Forget @tag, if it is here. The shelf is locked."""
        (self._home(container) / "tags" / tag).unlink(missing_ok=True)

    def tag(self, *, container: str, tag: str) -> str | None:
        """The digest that @tag names, None when there is no such tag."""
        return self._tags(container).get(tag)

    def images(self) -> list[Image]:
        """All images, by container and digest."""
        found = []
        for home in entries(self.path):
            if home.name.startswith(".") or not home.is_dir():
                continue
            container = unquote(home.name, errors="surrogateescape")
            tags = self._tags(container)
            for path in entries(home):
                if DIGEST.fullmatch(path.name):
                    names = tuple(sorted(t for t, digest in tags.items() if digest == path.name))
                    found.append(Image(container, path.name, path, self.buffered, names))
        return found

    def _tags(self, container: str) -> dict[str, str]:
        tags = {}
        for path in entries(self._home(container) / "tags"):
            with contextlib.suppress(FileNotFoundError):
                if TAG.fullmatch(path.name):
                    tags[path.name] = path.read_text(errors="replace").strip()
        return tags

    def _home(self, container: str) -> Path:
        """The directory of a container; its name is as readable as a file name may be."""
        name = quote(container, safe="@:+, ", errors="surrogateescape")
        return self.path / (f"%2E{name[1:]}" if name.startswith(".") else name)


class ClosedShelf(Shelf):
    """A buffer that others than root can write to: nothing in it is looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.buffered = True
        self.beside = (self,)

    def exists(self) -> bool:
        return False

    def sweep(self) -> None:
        pass

    def homes(self) -> list[Path]:
        return []

    def images(self) -> list[Image]:
        return []

    def tag(self, *, container: str, tag: str) -> str | None:
        return None


def entries(directory: Path) -> list[Path]:
    """What @directory holds, sorted; nothing when it is not there, or is being removed just now."""
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn failed system calls into StoreError: "@what: No space left on device"."""
    hints = {
        errno.ENOSPC: "The disk is full: remove images with `lxc-cr rm`, or give another --store",
        errno.EDQUOT: "The quota is used up: remove images with `lxc-cr rm`",
        errno.EROFS: "The file system is read-only: give another --store",
    }
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        raise StoreError(
            f"{what}: {os_message(error)}", hint=hints.get(number), errno=number
        ) from error


def copy_with_holes(source: str, target: str) -> None:
    """Copy a file, as shutil.copytree() wants it."""
    from .snapshot import content

    with open(source, "rb") as old, open(target, "xb") as new:  # noqa: PTH123
        content.copy(old.fileno(), new.fileno(), size=os.fstat(old.fileno()).st_size)


def seal_tree(directory: Path) -> None:
    """Make all files of an image private to root, wait until they are on the disk, note their room.

    That may take longer than anybody waits for the shelf: it is not locked.
    """
    room = 0
    for folder, _, names in os.walk(directory, topdown=False):  # itself at last
        for path in (Path(folder) / name for name in names):
            path.chmod(0o600)
            sync(path)
            room += _room_of(path)
        Path(folder).chmod(0o700)
        if Path(folder) == directory:
            _note_room(directory, room)
        sync(Path(folder))


def _note_room(directory: Path, room: int) -> None:
    # Not every file system has such attributes.
    with contextlib.suppress(OSError):
        os.setxattr(directory, ROOM, f"{directory.stat().st_ino} {room}".encode())


def _noted_room(directory: Path) -> int | None:
    """The opposite of `_note_room`; None when it is not about just this directory."""
    try:
        inode, room = map(int, os.getxattr(directory, ROOM).split())
        return room if inode == directory.stat().st_ino else None
    except (OSError, ValueError):
        return None


def _room_of(path: Path) -> int:
    # Somebody may be removing it.
    with contextlib.suppress(FileNotFoundError):
        return path.lstat().st_blocks * 512
    return 0
