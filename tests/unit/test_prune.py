# SPDX-License-Identifier: LGPL-2.1-or-later
"""Retention rules: what may go, and what stays whatever the rules say."""

from pathlib import Path

import pytest

from lxc_cr_plugin import prune
from lxc_cr_plugin.prune import DAY, Rules, superfluous
from lxc_cr_plugin.store import Image

NOW = 1_000_000_000.0


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Images of two containers, made so many days ago; the one of -1 cannot be read."""
    ages = {"web": (0, 1, 2, 10, 30), "db": (5, -1)}
    made = {}
    found = []
    for container, days in ages.items():
        for day in days:
            path = tmp_path / f"{container}-{day}"
            path.mkdir()
            tags = ("named",) if day == 30 else ()
            found.append(
                Image(container, f"{day:064x}" if day >= 0 else "f" * 64, path, False, tags)
            )
            made[path] = None if day < 0 else NOW - day * DAY
    monkeypatch.setattr(prune, "_created", lambda image: made[image.path])
    return found


def names(images: list[Image]) -> list[str]:
    return [Path(image.path).name for image in images]


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        (Rules(last=2, days=None, tagged_too=False), ["web-2", "web-10"]),
        (Rules(last=2, days=None, tagged_too=True), ["web-2", "web-10", "web-30"]),
        (Rules(last=0, days=7, tagged_too=False), ["web-10"]),
        (Rules(last=1, days=7, tagged_too=True), ["web-10", "web-30"]),
        (Rules(last=None, days=0, tagged_too=False), ["web-0", "web-1", "web-2", "web-10", "db-5"]),
        (Rules(last=9, days=None, tagged_too=True), []),
    ],
)
def test_rules(images, rules, gone):
    assert names(superfluous(images, rules, now=NOW)) == gone
