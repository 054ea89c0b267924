# SPDX-License-Identifier: LGPL-2.1-or-later
"""Validation by JSON Schema, with a short cut for documents that are fine.

Importing jsonschema takes 130 ms, half of what a restart of 1 GiB may take. So a few lines below
look first whether a document is plainly valid; they know the handful of keywords that our schemas
use and may only err by doubting. Whatever they doubt is jsonschema's to judge and to explain; that
the two agree is tested and fuzzed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .resources import data_file


class Violation(NamedTuple):
    """Where a document breaks its schema, and how; `path` is like `host.page_size`."""

    path: str
    message: str


def violations(document: Any, *, schema: str) -> list[Violation]:
    """What is wrong with @document according to config/schema/@schema; empty when it is valid."""
    return violations_of(document, rules=json.loads(_text(data_file(f"schema/{schema}"))))


def violations_of(document: Any, *, rules: dict[str, Any]) -> list[Violation]:
    """The same with the schema itself."""
    if plainly_valid(document, rules, root=rules):
        return []
    import jsonschema

    errors = jsonschema.Draft202012Validator(rules).iter_errors(document)
    return [
        Violation(error.json_path.removeprefix("$").removeprefix("."), error.message)
        for error in sorted(errors, key=lambda error: error.json_path)
    ]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}

# Keywords that say nothing about validity.
REMARKS = {"$schema", "$id", "$defs", "title", "description", "default", "examples"}


def plainly_valid(value: Any, rules: dict[str, Any], *, root: dict[str, Any]) -> bool:
    """Whether @value certainly satisfies @rules; an unknown keyword makes it doubtful."""
    checks: dict[str, Callable[[Any], bool]] = {
        "$ref": lambda name: plainly_valid(value, _definition(name, root), root=root),
        "type": lambda names: _has_type(value, names),
        "const": lambda wanted: value == wanted and type(value) is type(wanted),
        "enum": lambda allowed: any(value == one and type(value) is type(one) for one in allowed),
        "anyOf": lambda choices: any(plainly_valid(value, one, root=root) for one in choices),
        # These say nothing about what is no string; "type" does.
        "pattern": lambda text: not isinstance(value, str) or bool(re.search(text, value)),
        "minLength": lambda least: not isinstance(value, str) or len(value) >= least,
        "maxLength": lambda most: not isinstance(value, str) or len(value) <= most,
        "minimum": lambda least: _is_int(value) and value >= least,
        "maximum": lambda most: _is_int(value) and value <= most,
        "minItems": lambda least: isinstance(value, list) and len(value) >= least,
        "maxItems": lambda most: isinstance(value, list) and len(value) <= most,
        "items": lambda item: (
            isinstance(value, list) and all(plainly_valid(v, item, root=root) for v in value)
        ),
        # These say nothing about what is no object; "type" does.
        "required": lambda names: (
            not isinstance(value, dict) or all(name in value for name in names)
        ),
        "properties": lambda members: (
            not isinstance(value, dict)
            or all(
                plainly_valid(value[name], member, root=root)
                for name, member in members.items()
                if name in value
            )
        ),
        "additionalProperties": lambda allowed: (
            not isinstance(value, dict)
            or all(
                _is_allowed(value[name], allowed, root=root)
                for name in value.keys() - rules.get("properties", {}).keys()
            )
        ),
        "propertyNames": lambda names: (
            not isinstance(value, dict) or all(plainly_valid(n, names, root=root) for n in value)
        ),
    }
    return all(
        keyword in REMARKS or (keyword in checks and checks[keyword](argument))
        for keyword, argument in rules.items()
    )


def _is_allowed(value: Any, allowed: bool | dict[str, Any], *, root: dict[str, Any]) -> bool:
    return allowed if isinstance(allowed, bool) else plainly_valid(value, allowed, root=root)


def _definition(name: str, root: dict[str, Any]) -> dict[str, Any]:
    found = root["$defs"][name.removeprefix("#/$defs/")]
    assert isinstance(found, dict)
    return found


def _has_type(value: Any, names: str | list[str]) -> bool:
    if isinstance(names, str):
        names = [names]
    # In Python True is an integer, in JSON it is not.
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, TYPES[name]) for name in names)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
