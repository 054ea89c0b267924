# SPDX-License-Identifier: LGPL-2.1-or-later
"""Records: checked by a C program itself, and against cbor2, another implementation of RFC 8949."""

import json
import struct
import subprocess

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.native_build import RECORD_SOURCES, ROOT, build, run

MOST_LEVELS = 8


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build(
        tmp_path_factory.mktemp("records") / "records",
        [ROOT / "tests/unit/native/records.c", *RECORD_SOURCES],
        packages=["libcbor"],
    )


class Server:
    """The C program as a server: a record goes in, the same record comes back, or a refusal."""

    def __init__(self, program):
        self.process = subprocess.Popen(
            [program, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def send(self, data):
        """Return what C wrote after reading data, or raise ValueError with C's message."""
        self.process.stdin.write(struct.pack("=I", len(data)) + data)
        self.process.stdin.flush()
        (size,) = struct.unpack("=I", self.process.stdout.read(4))
        answer = self.process.stdout.read(size)
        if answer[0] != 1:
            raise ValueError(answer[1:].decode())
        return answer[1:]

    def close(self):
        """End it; its exit code tells whether a sanitizer had something to say."""
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def server(program):
    server = Server(program)
    yield server
    server.close()


def point():
    number = st.integers(-1000, 1000)
    return st.fixed_dictionaries({"x": number, "y": number})


def text(longest):
    """Return texts without NUL of at most so many bytes."""
    letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    return st.text(letters, max_size=longest).filter(lambda s: len(s.encode()) <= longest)


def leaf():
    return st.fixed_dictionaries(
        {"id": st.integers(1, 2**32 - 1), "points": st.lists(point(), max_size=8)},
        optional={"label": text(16).filter(bool)},
    )


def row():
    return st.tuples(
        st.integers(0, 2**64 - 1),
        st.integers(1, 4096),
        st.none() | st.integers(1, 8),
        st.none() | st.binary(min_size=1, max_size=32),
    ).map(list)


def samples():
    """Return what sample.h describes; optional members are missing where C would not write them."""
    return st.fixed_dictionaries(
        {
            "u8": st.integers(0, 2**8 - 1),
            "u16": st.integers(0, 2**16 - 1),
            "u32": st.integers(0, 2**32 - 1),
            "u64": st.integers(0, 2**64 - 2),
            "i8": st.integers(-(2**7), 2**7 - 1),
            "i16": st.integers(-(2**15), 2**15 - 1),
            "i32": st.integers(-(2**31), 2**31 - 1),
            "i64": st.integers(-(2**63), 2**63 - 1),
            "flag": st.booleans(),
            "blob": st.binary(max_size=300),
            "path": st.binary(max_size=40).map(lambda path: path.replace(b"\0", b"/")),
            "name": text(64),
            "leaves": st.lists(leaf(), max_size=20),
            "rows": st.lists(row(), max_size=20),
            "origin": point(),
        },
        optional={
            "peer": st.integers(1, 9),
            "pointer": point().filter(lambda p: any(p.values())),
            "extras": st.lists(point(), min_size=1, max_size=3),
        },
    )


def unknown_values():
    """Return anything that cbor2 can write; depth is what levels() counts."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)  # beyond 64 bits: a tagged byte string
        | st.floats()
        | st.binary(max_size=20)
        | st.text(max_size=20)
        | st.just(cbor2.undefined)
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
            # One-byte tags from 6 to 20 are unknown to libcbor 0.8
            | st.builds(cbor2.CBORTag, st.integers(24, 2**64 - 1), inner)
        ),
        max_leaves=12,
    )


def levels(value):
    """Return how many containers and tags hold the innermost item of a value."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, int):
        return 0 if -(2**64) <= value < 2**64 else 1
    if isinstance(value, cbor2.CBORTag):
        return 1 + levels(value.value)
    if isinstance(value, dict):
        members = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple):
        members = value
    else:
        return 0
    return 1 + max(map(levels, members)) if members else 0


def least():
    """Return a record in which nothing is more than it must be, in the order of the table."""
    numbers = dict.fromkeys(["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"], 0)
    others = {"flag": False, "blob": b"", "path": b"", "name": "", "leaves": [], "rows": []}
    return numbers | others | {"origin": {"x": 0, "y": 0}}


def test_the_program_checks_itself(program):
    done = run(program)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert b" passed, 0 failed" in done.stdout


def test_cbor2_reads_what_c_writes(program):
    record = cbor2.loads(run(program, "write").stdout)
    assert record["u64"] == 2**64 - 2
    assert record["i64"] == 2**63 - 1
    assert record["i8"] == -100
    assert record["flag"] is True
    assert record["blob"] == b"\0\1\2\xff"
    assert record["path"] == b"/srv/caf\xe9"
    assert record["name"] == "grüß € \N{PENGUIN}"
    assert record["leaves"][9] == {"id": 10, "label": "odd", "points": [{"x": -9, "y": 9}]}
    assert record["leaves"][0] == {"id": 1, "points": [{"x": 0, "y": 0}]}
    assert record["rows"][:2] == [[0, 1, None, None], [4096, 1, 1, None]]
    assert record["pointer"] == {"x": 0, "y": 1}
    assert list(record)[:3] == ["u8", "u16", "u32"]


def test_c_writes_the_shortest_form(server):
    for value in (0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1):
        for number in (value, -value - 1):
            record = least() | {"i64": number, "u64": value}
            assert server.send(cbor2.dumps(record)) == cbor2.dumps(record)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(record=samples())
def test_c_reads_and_writes_what_cbor2_writes(server, record):
    assert cbor2.loads(server.send(cbor2.dumps(record))) == record


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=unknown_values())
def test_unknown_keys_are_skipped(server, value):
    known = least()
    data = cbor2.dumps({"before": value} | known | {"after": {"inner": [value]}})
    if levels(value) + 2 <= MOST_LEVELS:
        assert cbor2.loads(server.send(data)) == known
    else:
        with pytest.raises(ValueError, match="nested deeper than 8"):
            server.send(data)


def test_an_unknown_nested_key_with_a_tag_is_skipped(server):
    known = least()
    later = {"u9": {"deep": cbor2.CBORTag(1234, [cbor2.CBORTag(0, "2013-03-21T20:04:00Z"), 1.5])}}
    record = later | known | {"leaves": [{"id": 1, "points": [], "new": cbor2.CBORTag(258, [1])}]}
    answer = cbor2.loads(server.send(cbor2.dumps(record)))
    assert answer == known | {"leaves": [{"id": 1, "points": []}]}


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(record=samples(), data=st.data())
def test_a_mandatory_key_may_not_be_missing(server, record, data):
    name = data.draw(st.sampled_from(sorted(least())))
    del record[name]
    with pytest.raises(ValueError, match=f"has no {name}$"):
        server.send(cbor2.dumps(record))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("u8", 256),
        ("u8", -1),
        ("u8", 1.0),
        ("u8", None),
        ("u64", 2**64 - 1),
        ("u64", 2**64),
        ("i8", 128),
        ("i8", -129),
        ("i64", 2**63),
        ("i64", -(2**63) - 1),
        ("flag", 1),
        ("blob", "text"),
        ("blob", bytes(301)),
        ("path", b"a\0b"),
        ("path", bytes(4097)),
        ("name", b"bytes"),
        ("name", "a\0b"),
        ("name", "ä" * 33),
        ("name", cbor2.CBORTag(0, "tagged")),
        ("leaves", {}),
        ("leaves", [[]]),
        ("leaves", [{"id": 1, "points": []}] * 21),
        ("rows", [{"start": 1}]),
        ("rows", [[1]]),
        ("rows", [[1, None]]),
        ("origin", [1, 2]),
        ("origin", {"x": 1}),
        ("origin", {"x": 1, "y": 1001}),
        ("peer", 0),
        ("peer", None),
        ("extras", [{"x": 0, "y": 0}] * 4),
    ],
)
def test_a_value_that_the_table_does_not_allow_is_refused(server, name, value):
    with pytest.raises(ValueError, match=rf"^Bad {name} at byte \d+: "):
        server.send(cbor2.dumps(least() | {name: value}))


def test_indefinite_lengths_are_refused(server):
    with pytest.raises(ValueError, match="indefinite length"):
        server.send(b"\xbf" + cbor2.dumps(least())[1:] + b"\xff")


def test_the_description_is_json_and_complete(program):
    fields = {field["name"]: field for field in json.loads(run(program, "describe").stdout)}
    assert fields["u64"] == {
        "name": "u64",
        "type": "uint",
        "doc": 'eight bytes, a "limit" below all',
        "optional": False,
        "min": 0,
        "max": 2**64 - 2,
    }
    assert fields["i64"]["min"] == -(2**63)
    assert fields["pointer"]["doc"] == "C:\\tmp"
    assert fields["pointer"]["optional"] is True
    assert fields["extras"]["doc"] == "last\n"
    assert [field["name"] for field in fields["rows"]["fields"]] == [
        "start",
        "length",
        "node",
        "note",
    ]
    assert {field["type"] for field in fields.values()} == {
        "uint", "int", "bool", "bytes", "path", "text", "list", "rows", "struct",
    }  # fmt: skip
