# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which images may go, by rules that say what is kept."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterable
from typing import NamedTuple

from .errors import Cancelled, LxcCrError
from .store import Image

DAY = 86400


class Rules(NamedTuple):
    """An image is kept when one of these says so; None is a rule that was not given."""

    last: int | None
    days: float | None
    tagged_too: bool


def superfluous(images: Iterable[Image], rules: Rules, *, now: float | None = None) -> list[Image]:
    """The images that no rule keeps, oldest last. One that cannot be read is kept: look at it first.

    The last ones are counted for each container, tagged or not.
    """
    now = time.time() if now is None else now
    by_container: dict[str, list[tuple[float, Image]]] = {}
    for image in images:
        created = _created(image)
        if created is not None:
            by_container.setdefault(image.container, []).append((created, image))
    found = []
    for dated in by_container.values():
        dated.sort(key=lambda pair: (pair[0], pair[1].path.stat().st_mtime_ns), reverse=True)
        for number, (created, image) in enumerate(dated):
            kept = (
                (rules.last is not None and number < rules.last)
                or (rules.days is not None and now - created < rules.days * DAY)
                or (bool(image.tags) and not rules.tagged_too)
            )
            if not kept:
                found.append(image)
    return found


def _created(image: Image) -> float | None:
    """When it was made, seconds since 1970; None when nobody knows."""
    try:
        created = image.manifest().created
    except Cancelled:
        raise
    except LxcCrError:
        return None
    return float(calendar.timegm(time.strptime(created, "%Y-%m-%dT%H:%M:%SZ")))
