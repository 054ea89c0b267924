# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutates the records of a real image: whatever comes of it is read, or refused; nothing crashes.

The mutations keep the records well formed, so that they come past the decoder (fuzz_record.c) to
those who put them together: who shares what with whom, who is whose parent, which object is meant.
"""

import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cbor2

from lxc_cr_plugin.native import _engine

ODD_NUMBERS = [0, 1, 2, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1]

# Of one image; the engine is done with a good one in milliseconds.
CPU_SECONDS = 20

Place = tuple[Any, ...]


class Outcome(NamedTuple):
    tried: int
    accepted: int
    crashes: list[str]


def read_records(path: Path) -> list[bytes]:
    """The items of a state.cbor, encoded each."""
    items = []
    with path.open("rb") as stream:
        while stream.peek(1):
            items.append(cbor2.dumps(cbor2.load(stream)))
    return items


def numbers_in(value: Any, place: Place = ()) -> Iterator[Place]:
    """Where integers are, at any depth."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers_in(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from numbers_in(item, (*place, index))
    elif isinstance(value, int):
        yield place


def lists_in(value: Any) -> Iterator[list[Any]]:
    """Lists of more than one item, at any depth."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in below:
        yield from lists_in(item)
    if isinstance(value, list) and len(value) > 1:
        yield value


class Mutator:
    """Changes numbers to numbers that mean something else in the same image, and the order."""

    def __init__(self, records: list[bytes], rng: random.Random) -> None:
        self._records = records
        self._rng = rng
        decoded = [cbor2.loads(record) for record in records[1:-1]]
        self._by_kind: dict[str, list[int]] = {}
        for index, (kind, *_) in enumerate(decoded, start=1):
            self._by_kind.setdefault(kind, []).append(index)
        self._ids = [record[1] for record in decoded]
        self._tasks = [
            fields["pid" if kind == "process" else "tid"]
            for kind, _, fields in decoded
            if kind in ("process", "thread")
        ]
        self._thread_ids = {r[2]["tid"]: r[1] for r in decoded if r[0] == "thread"}

    def mutated(self) -> tuple[list[bytes], str]:
        """One to three changes, and their description."""
        records, what = list(self._records), []
        for _ in range(self._rng.choice((1, 1, 2, 3))):
            change = self._rng.choice(
                (self._change_number,) * 5 + (self._shuffle, self._swap_ids, self._share)
            )
            what.append(change(records))
        return records, "; ".join(what)

    def _pick(self) -> int:
        """A record: all kinds alike, however many there are of each."""
        return self._rng.choice(self._by_kind[self._rng.choice(list(self._by_kind))])

    def _change_number(self, records: list[bytes]) -> str:
        index = self._pick()
        record = cbor2.loads(records[index])
        *way, last = self._rng.choice(list(numbers_in(record)))
        holder = record
        for key in way:
            holder = holder[key]
        old = holder[last]
        near, ours = [old + 1, max(old - 1, 0)], [*self._rng.sample(self._ids, 2)]
        holder[last] = self._rng.choice(
            [*ODD_NUMBERS, *near, *ours, *ours, *self._rng.choices(self._tasks, k=4)]
        )
        records[index] = cbor2.dumps(record)
        return f"{record[0]} {record[1]}: {[*way, last]}: {old} to {holder[last]}"

    def _shuffle(self, records: list[bytes]) -> str:
        index = self._pick()
        record = cbor2.loads(records[index])
        lists = list(lists_in(record[2]))
        if lists:
            self._rng.shuffle(self._rng.choice(lists))
        records[index] = cbor2.dumps(record)
        return f"{record[0]} {record[1]}: shuffled"

    def _swap_ids(self, records: list[bytes]) -> str:
        """Two threads, or two of another kind, have each other's id everywhere."""
        kind = self._rng.choice([k for k, found in self._by_kind.items() if len(found) > 1])
        one, other = (self._ids[i - 1] for i in self._rng.sample(self._by_kind[kind], 2))
        return self._swap(records, one, other)

    def _swap(self, records: list[bytes], one: int, other: int) -> str:
        names = {one: other, other: one}
        for index in range(1, len(records) - 1):
            record = cbor2.loads(records[index])
            if record[1] in names:
                record[1] = names[record[1]]
                records[index] = cbor2.dumps(record)
        return f"ids {one} and {other} swapped"

    def _share(self, records: list[bytes]) -> str:
        """Others share something than those who did, perhaps in the wrong order."""
        index = self._rng.choice(self._by_kind["share"])
        record = cbor2.loads(records[index])
        tasks = self._rng.sample(list(self._thread_ids), self._rng.choice((2, 2, 3)))
        record[2]["tasks"] = [[task] for task in tasks]
        records[index] = cbor2.dumps(record)
        what = f"{tasks} share {record[2]['what']}"
        if self._rng.random() < 0.5:
            return what
        one, other = (self._thread_ids[task] for task in tasks[:2])
        return f"{what}, {self._swap(records, one, other)}"


def check_apart(image: Path) -> int:
    """Have a child check the image; returns what waitpid(2) tells."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        lib, ffi = _engine.lib, _engine.ffi
        error = lib.cr_image_check(os.open(image, os.O_RDONLY | os.O_DIRECTORY), ffi.NULL)
        os._exit(0 if error == ffi.NULL else 1)
    finally:
        os._exit(2)


def run(image: Path, *, seconds: float, seed: int) -> Outcome:
    """Fuzz a copy of an image, in place, for @seconds."""
    path = image / "state.cbor"
    mutator = Mutator(read_records(path), random.Random(seed))
    tried = accepted = 0
    crashes = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        records, what = mutator.mutated()
        path.write_bytes(b"".join(records))
        status = check_apart(image)
        tried += 1
        accepted += status == 0
        if os.WIFSIGNALED(status):
            crashes.append(f"{signal.Signals(os.WTERMSIG(status)).name} after {what}")
        else:
            assert os.WEXITSTATUS(status) in (0, 1), what
    return Outcome(tried, accepted, crashes)
