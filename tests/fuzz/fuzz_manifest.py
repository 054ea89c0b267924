# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutates a valid manifest: whatever comes of it is read, or refused with ImageError.

python -m tests.fuzz.fuzz_manifest [SECONDS] [SEED]
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path

import jsonschema

from lxc_cr_plugin import manifest
from lxc_cr_plugin.errors import ImageError
from lxc_cr_plugin.resources import data_file
from lxc_cr_plugin.schema import plainly_valid
from tests.unit.images import make_manifest, write_files

RULES = json.loads(data_file("schema/manifest.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(RULES)

ODD_VALUES = [
    None, True, False, 0, 1, -1, 2**63, 2**64, 10**400, "", "a", "\0", "\udcff", "../x", "x" * 5000,
    [], [[]], {}, {"": None}, [1] * 100, "sha256", "files/5", "9" * 64, "a" * 32,
]  # fmt: skip

ODD_TEXT = [b"NaN", b"1e999", b"-0", b"1.0", b"\xff", b"\\ud800", b"[" * 2000, b'"', b"{}", b"\0"]


def valid_manifest() -> bytes:
    """The manifest of a small image."""
    with tempfile.TemporaryDirectory() as directory:
        write_files(Path(directory))
        return make_manifest(Path(directory)).encode()


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes, to the bytes or to the members."""
    for _ in range(rng.randint(1, 4)):
        data = rng.choice((mutate_bytes, mutate_members))(data, rng)
    return data


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or insert."""
    begin = rng.randint(0, len(data))
    end = min(len(data), begin + rng.choice((0, 1, 2, 8, 100)))
    middle = rng.choice(
        (
            bytes(byte ^ (1 << rng.randrange(8)) for byte in data[begin:end]),
            b"",
            data[begin:end] * 2,
            rng.choice(ODD_TEXT),
        )
    )
    return data[:begin] + middle + data[end:]


def mutate_members(data: bytes, rng: random.Random) -> bytes:
    """Replace, remove, rename or add a member somewhere."""
    try:
        members = json.loads(data)
    except (ValueError, RecursionError):
        return data
    place = members
    while isinstance(place, dict | list) and place:
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        below = place[key]
        if isinstance(below, dict | list) and below and rng.random() < 0.7:
            place = below
            continue
        action = rng.randrange(3)
        if action == 0:
            place[key] = rng.choice(ODD_VALUES)
        elif action == 1:
            del place[key]
        elif isinstance(place, dict):
            place[rng.choice(("x", "", "sha256", "xxh3", "name"))] = rng.choice(ODD_VALUES)
        else:
            place.append(below)
        break
    try:
        return json.dumps(members).encode()
    except (ValueError, RecursionError):
        return data


def attempt(data: bytes) -> bool:
    """Decode @data; True when it is a manifest. Anything but ImageError is passed on: a bug."""
    try:
        made = manifest.decode(data)
    except ImageError:
        return False
    # The short cut of schema.py must not have been too generous, and what was read can be written.
    document = json.loads(data)
    assert not plainly_valid(document, RULES, root=RULES) or VALIDATOR.is_valid(document), data
    assert manifest.decode(made.encode()) == made, data
    return True


def run(*, seconds: float, seed: int) -> tuple[int, int]:
    """Fuzz for @seconds; how many manifests were tried and how many of them were read."""
    rng = random.Random(seed)
    seeds = [valid_manifest()]
    assert attempt(seeds[0])
    tried = read = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(rng.choice(seeds), rng)
        tried += 1
        if attempt(data):
            read += 1
            # Valid ones are the way to deeper places.
            seeds = [*seeds[-50:], data]
    return tried, read


if __name__ == "__main__":
    arguments = [int(text) for text in sys.argv[1:]]
    tried, read = run(
        seconds=arguments[0] if arguments else 60, seed=arguments[1] if arguments[1:] else 1
    )
    print(f"{tried} manifests, {read} of them valid")
