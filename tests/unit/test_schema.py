# SPDX-License-Identifier: LGPL-2.1-or-later
"""The short cut of schema.py may doubt, but never accept what jsonschema refuses."""

import json
import sys

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxc_cr_plugin.resources import data_file
from lxc_cr_plugin.run import fork
from lxc_cr_plugin.schema import plainly_valid, violations, violations_of
from tests.unit.images import make_manifest, write_files

SCHEMAS = ("config.json", "manifest.json", "network.json")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=6,
)

rules = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", "integer", "boolean", "null"])
            | st.just(["integer", "null"]),
            "const": st.integers(0, 2) | st.booleans(),
            "enum": st.just(["a", "b"]) | st.just([1, True]),
            "pattern": st.sampled_from(["^[a-c]+$", "^/", ""]),
            "minLength": st.integers(0, 3),
            "maxLength": st.integers(0, 3),
            "minimum": st.integers(-2, 2),
            "maximum": st.integers(-2, 2),
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(0, 2),
            "required": st.lists(st.sampled_from(["a", "b"]), unique=True),
            "$ref": st.just("#/$defs/count"),
            "uniqueItems": st.booleans(),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array"]),
            "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            "items": inner,
            "additionalProperties": st.booleans() | inner,
            "propertyNames": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=5,
)

DEFINITIONS = {"count": {"type": "integer", "minimum": 0}}


@given(value=values, rule=rules)
@settings(max_examples=500)
def test_plainly_valid_implies_valid(value, rule):
    rule = {**rule, "$defs": DEFINITIONS}
    if plainly_valid(value, rule, root=rule):
        assert jsonschema.Draft202012Validator(rule).is_valid(value)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_are_schemas(name):
    jsonschema.Draft202012Validator.check_schema(
        json.loads(data_file(f"schema/{name}").read_text())
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_short_cut_knows_every_keyword_of_our_schemas(name):
    known = {
        "$ref", "type", "const", "enum", "pattern", "maxLength", "minimum", "maximum", "maxItems",
        "items", "required", "properties", "additionalProperties", "propertyNames", "anyOf",
        "$schema", "$defs", "title", "description",
    }  # fmt: skip

    def keywords(rule):
        yield from rule
        for inner in (*rule.get("properties", {}).values(), *rule.get("$defs", {}).values()):
            yield from keywords(inner)
        for keyword in ("items", "propertyNames", "additionalProperties"):
            if isinstance(rule.get(keyword), dict):
                yield from keywords(rule[keyword])
        for inner in rule.get("anyOf", ()):
            yield from keywords(inner)

    assert set(keywords(json.loads(data_file(f"schema/{name}").read_text()))) <= known


def test_valid_documents_do_not_import_jsonschema(tmp_path):
    """A manifest with and without files among them: every restart reads one."""
    write_files(tmp_path)
    manifest = json.loads(make_manifest(tmp_path).encode())
    files = {"backend": "dir", "view": "0" * 64, "entries": 1, "size": 2, "stood": 3}
    link = {
        "name": "lo", "index": 1, "kind": None, "runtime": True, "address": "00:00", "mtu": 65536,
        "queue": 1000, "group": 0, "alias": None, "flags": 1, "below": None, "master": "br0",
        "qdisc": None, "data": {},
    }  # fmt: skip
    network = {
        "format": 1, "links": [link], "addresses": [{"family": 2, "attributes": {}}], "routes": [],
        "rules": [], "neighbours": [], "settings": {"core/somaxconn": "4096"}, "filter": "",
    }  # fmt: skip

    def work():
        for name in [name for name in sys.modules if name.startswith("jsonschema")]:
            del sys.modules[name]
        assert violations({"restart_timeout": 3}, schema="config.json") == []
        assert violations(network, schema="network.json") == []
        for rootfs in (None, files):
            assert violations({**manifest, "rootfs": rootfs}, schema="manifest.json") == []
        return 2 if "jsonschema" in sys.modules else 0

    with fork(work) as child:
        assert child.wait() == 0


def test_what_the_short_cut_doubts_is_jsonschemas_to_judge():
    assert violations_of([1, 1], rules={"uniqueItems": False}) == []
    found = violations_of({"a": [0, -1]}, rules={"properties": {"a": {"items": {"minimum": 0}}}})
    assert [violation.path for violation in found] == ["a[1]"]
    assert "minimum" in found[0].message
