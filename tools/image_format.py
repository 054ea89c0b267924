# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write the tables of records in docs/image-format.md from the engine's own field tables.

    .venv/bin/python tools/image_format.py

The fields come from the engine that is built. What a kind is for and whether there is one record of
it per object, process or thread stands beside them in its source, at the bottom of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lxc_cr_plugin import native

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/image-format.md"
SOURCES = ROOT / "lxc_cr_plugin/native/kinds"

BEGIN = "<!-- Begin of what tools/image_format.py generates; do not edit. -->"
END = "<!-- End of what tools/image_format.py generates. -->"

SCOPES = {
    "SCOPE_OBJECT": "one record per object",
    "SCOPE_PROCESS": "one record per process",
    "SCOPE_THREAD": "one record per thread",
    "SCOPE_ZOMBIE": "one record per zombie",
}

KIND = re.compile(r"^const struct kind \w+_kind = \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)

Field = dict[str, Any]


class Declaration(NamedTuple):
    """What the source says of a kind besides its fields."""

    doc: str
    scope: str


def declarations() -> dict[str, Declaration]:
    """All kinds of the sources by name."""
    found = {}
    for path in sorted(SOURCES.glob("*.c")):
        for body in KIND.findall(path.read_text()):
            scope = re.search(r"\.scope = (\w+),", body)
            if not scope:
                raise ValueError(f"{path}: a kind without a scope")
            found[_literal(body, "name")] = Declaration(_literal(body, "doc"), scope[1])
    return found


def _literal(body: str, member: str) -> str:
    """A string of an initializer; C joins literals that stand side by side."""
    match = re.search(rf'\.{member} = ((?:"[^"]*"\s*)+),', body)
    if not match:
        raise ValueError(f"a kind without a {member}")
    return "".join(re.findall(r'"([^"]*)"', match[1]))


def tables() -> str:
    """Everything between the two marks."""
    said = declarations()
    fields = {name: native.kind_fields(name) for name in native.kinds()}
    shared = _shared(fields)
    parts = []
    for name, own in fields.items():
        head = f"### `{name}`\n\n{said[name].doc}; {SCOPES[said[name].scope]}."
        parts.append(f"{head}\n\n{_table(own, shared=shared)}")
    for name, own in shared.items():
        users = ", ".join(f"`{kind}`" for kind in fields if _uses(fields[kind], name))
        parts.append(f"### Members of `{name}`\n\nIn {users}.\n\n{_table(own, shared={})}")
    return "\n\n".join(parts)


def _shared(fields: dict[str, list[Field]]) -> dict[str, list[Field]]:
    """Tables within tables that several kinds have in common, by the name of their field."""
    users: dict[str, list[list[Field]]] = {}
    for own in fields.values():
        for field in own:
            if "fields" in field:
                users.setdefault(field["name"], []).append(field["fields"])
    return {
        name: found[0]
        for name, found in users.items()
        if len(found) > 1 and all(other == found[0] for other in found)
    }


def _uses(fields: list[Field], name: str) -> bool:
    return any(field["name"] == name and "fields" in field for field in fields)


def _table(fields: list[Field], *, shared: dict[str, list[Field]]) -> str:
    lines = ["| field | value | meaning |", "|---|---|---|", *_rows(fields, "", shared)]
    return "\n".join(lines)


def _rows(fields: list[Field], prefix: str, shared: dict[str, list[Field]]) -> Iterator[str]:
    for field in fields:
        name, doc = f"{prefix}{field['name']}", field["doc"].replace("|", "\\|")
        elsewhere = "fields" in field and shared.get(field["name"]) == field["fields"]
        if elsewhere:
            doc += f"; [its members](#members-of-{field['name']})"
        yield f"| `{name}` | {_value(field)} | {doc} |"
        if "fields" in field and not elsewhere:
            inner = f"{name}." if field["type"] == "struct" else f"{name}[]."
            yield from _rows(field["fields"], inner, shared)


def _value(field: Field) -> str:
    """Type and range of a field in words."""
    optional = ", optional" if field["optional"] else ""
    match field["type"]:
        case "uint" | "int":
            sign = "unsigned" if field["type"] == "uint" else "signed"
            text = f"{sign}, {number(field['min'])} to {number(field['max'])}"
        case "bytes" | "path" | "text":
            text = f"{field['type']}, up to {number(field['max'])} bytes"
        case "list" | "rows":
            text = f"{field['type']}, up to {number(field['max'])}"
        case "struct":
            text = "map"
        case other:
            text = str(other)
    return text + optional


def number(value: int) -> str:
    """@value as a reader of C would write it: 2^32-1 rather than 4294967295."""
    if abs(value) < 1 << 16:
        return str(value)
    for less in (0, 1, 2):
        if (value + less).bit_count() == 1:
            return f"2^{(value + less).bit_length() - 1}" + (f"-{less}" if less else "")
    return hex(value) if value >= 1 << 32 else str(value)


def render(page: str) -> str:
    """@page with new tables between the marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has lost the marks between which the tables stand")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(render(PAGE.read_text()))
    print(f"Wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
