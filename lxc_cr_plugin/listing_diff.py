# SPDX-License-Identifier: LGPL-2.1-or-later
"""The difference between two images for people: one line for each thing, + came, - gone, ~ changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .log import human_size

SIGNS = {"gone": "-", "came": "+", "changed": "~"}

# A value that is longer is cut: the machine's output has all of it.
LONGEST = 40


def diff_text(found: dict[str, Any], *, names: tuple[str, str]) -> str:
    """All sections in which something differs."""
    sections: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("processes", lambda item: f"{item['pid']} {item['comm']!r}"),
        (
            "descriptors",
            lambda item: f"{item['pid']} fd {item['fd']} {item['kind']} {item['path']!r}",
        ),
        ("memory", _mapping),
        ("files", lambda item: repr(item["path"])),
    ]
    lines = [f"{names[0]} → {names[1]}"]
    for title, describe in sections:
        if found[title] is None:
            lines.append(f"{title}: not in both images")
            continue
        rows = list(_rows(found[title], describe))
        if rows:
            lines += [f"{title}:", *rows]
    for part, items in found["network"].items():
        lines.append(f"network, {part}:")
        for word in ("gone", "came"):
            lines += [f"  {SIGNS[word]} {_short(_row(item))}" for item in items[word]]
    return "\n".join(lines) if len(lines) > 1 else f"{lines[0]}: nothing differs"


def _rows(section: dict[str, Any], describe: Callable[[dict[str, Any]], str]) -> Iterator[str]:
    for word, sign in SIGNS.items():
        for item in section[word]:
            yield f"  {sign} {describe(item)}" + _changes(item.get("changes"))


def _changes(changes: Any) -> str:
    if not changes:
        return ""
    if isinstance(changes, list):
        return f": {', '.join(changes)}"
    parts = [
        f"{name} {_short(value[0])} → {_short(value[1])}"
        if isinstance(value, list)
        else f"{value} {name} changed"
        for name, value in changes.items()
    ]
    return f": {', '.join(parts)}"


def _mapping(item: dict[str, Any]) -> str:
    name = f" {item['name']!r}" if item["name"] else ""
    size = human_size(item["size"])
    return f"{item['pid']} {item['start']:012x}-{item['end']:012x} {size}{name}"


def _row(item: Any) -> str:
    """An interface by its name, a setting as in sysctl(8), everything else by its attributes."""
    if isinstance(item, dict):
        return str(item.get("name") or item.get("attributes") or item)
    return f"{item[0]} = {item[1]}" if isinstance(item, list) else str(item)


def _short(value: object) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
