# SPDX-License-Identifier: LGPL-2.1-or-later
"""All mounts of a container, with what is asked about them again and again found at once.

Who forges an image lists a hundred thousand: to go through all for each would take hours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .mounts import Mount


class MountTable(tuple["Mount", ...]):
    """Mounts in the order of their making; a number is the place of one in it."""

    _first: dict[Hashable, int]
    _groups: dict[str, int]
    _number: dict[int, int]
    _seen: list[int]

    def __new__(cls, listed: Iterable[Mount]) -> MountTable:
        """A table of all that are @listed; of a table it is the same one."""
        if isinstance(listed, cls):
            return listed
        return super().__new__(cls, listed)

    def __init__(self, listed: Iterable[Mount]) -> None:
        if listed is self:
            return
        self._first, self._groups, self._number, self._seen = {}, {}, {}, []
        seen: Counter[str] = Counter()
        for number, mount in enumerate(self):
            self._number[mount.id] = number
            for key in (_shows(mount, PurePosixPath(mount.root)), _is_like(mount)):
                self._first.setdefault(key, number)
                self._first.setdefault((key, mount.propagation), number)
            for group in mount.groups():
                self._groups.setdefault(group, number)
            seen[mount.place] += 1
            self._seen.append(seen[mount.place])

    def bases_of(self, mount: Mount, *, alike: bool) -> Iterator[Mount]:
        """What @mount may be another look at: the first before it, then the first of its propagation.

        That is a mount of the same file system that shows its root, or with @alike one with the same
        root, type and options.
        """
        root = PurePosixPath(mount.root)
        keys = [_shows(mount, path) for path in (root, *root.parents)]
        if alike:
            keys.append(_is_like(mount))
        for wanted in (keys, [(key, mount.propagation) for key in keys]):
            numbers = (self._first[key] for key in wanted if key in self._first)
            before = [number for number in numbers if number < self._number[mount.id]]
            if before:
                yield self[min(before)]

    def is_first_of_its_groups(self, mount: Mount) -> bool:
        """Whether no mount before @mount is in one of its peer groups."""
        number = self._number[mount.id]
        return all(self._groups[group] >= number for group in mount.groups())

    def count_at_place(self, mount: Mount) -> int:
        """How many mounts were at the place of @mount when it had been made."""
        return self._seen[self._number[mount.id]]


def _shows(mount: Mount, path: PurePosixPath) -> Hashable:
    return ("shows", mount.device, str(path))


def _is_like(mount: Mount) -> Hashable:
    return ("like", mount.type, mount.root, mount.super)
