# SPDX-License-Identifier: LGPL-2.1-or-later
"""A damaged image is refused before anything is touched, whatever the damage."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import cbor2
import pytest

from .container import Container, Victim

ALL_ZEROS = 2**64 - 1  # in place of where an extent lies in the pages file

IMAGE_ERROR = 6
HOST_ERROR = 7


class Lab:
    """An image of a stopped container, and a copy to damage it from again and again."""

    def __init__(self, container: Container, victim: Victim, path: Path) -> None:
        self.container = container
        self.victim = victim
        self.home = container.laboratory.store / container.name
        self.copy = path / "copy"
        shutil.copytree(self.home, self.copy)
        # What a restart would take away again.
        self.since = container.rootfs / "since"
        self.since.touch()
        self.stamps = self.read_stamps()

    def read_stamps(self) -> list[tuple[int, int]]:
        """They change with whatever is done to the container's files."""
        rootfs = self.container.rootfs
        return [(s.st_ino, s.st_ctime_ns) for s in map(Path.stat, (rootfs, self.since))]

    @property
    def image(self) -> Path:
        return next(path for path in self.home.iterdir() if path.name != "tags")

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.image.rglob("*") if path.is_file())

    def mend(self) -> None:
        shutil.rmtree(self.home)
        shutil.copytree(self.copy, self.home)

    def assert_refused(self, what: str, *, late: bool = False) -> None:
        """Before anything is touched; what only shows when the container stands is undone: @late."""
        outcome = self.container.try_cr("restart", self.container.name)
        assert outcome.code in (IMAGE_ERROR, HOST_ERROR), (
            f"{what}: exit code {outcome.code}\n{outcome.text}"
        )
        assert self.container.state == "STOPPED", what
        if late:
            assert self.since.exists(), f"{what}: files are not as before"
        else:
            assert self.read_stamps() == self.stamps, f"{what}: files were touched"

    def assert_restarts(self) -> None:
        self.mend()
        self.container.restart()
        self.victim.verify()


@pytest.fixture
def lab(container, tmp_path) -> Lab:
    victim = container.add_victim("pipe")
    container.start()
    victim.ready()
    container.checkpoint("--stop")
    return Lab(container, victim, tmp_path)


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 0x10]))


def damages(path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Ways to damage a file, by name."""
    size = path.stat().st_size
    yield "missing", path.unlink
    for left in sorted({0, size // 2, size - 1}):
        yield f"cut to {left} bytes", lambda left=left: truncate(path, left)
    for position in sorted({0, size // 7, size // 3, size // 2, size - 1}):
        yield f"byte {position} changed", lambda position=position: flip(path, position)
    yield "longer", lambda: append(path)


def truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def test_every_file_damaged_in_every_way(lab):
    names = [path.relative_to(lab.image) for path in lab.files]
    assert {"manifest.json", "objects.cbor", "state.cbor", "pages"} <= {str(n) for n in names}
    for name in names:
        for number, (what, _) in enumerate(list(damages(lab.image / name))):
            if name.parts[0] == "rootfs" and what.startswith("byte"):
                continue  # read only when it is needed: test_files.py
            lab.mend()
            _, damage = list(damages(lab.image / name))[number]
            damage()
            lab.assert_refused(f"{name} {what}")
    lab.assert_restarts()


def reseal(lab: Lab, change: Callable[[dict], object]) -> None:
    """Change the manifest and make all digests right again: an image that lies."""
    image = lab.image
    manifest = json.loads((image / "manifest.json").read_text())
    for file in manifest["files"]:
        path = image / file["name"]
        file["size"] = path.stat().st_size
        if "sha256" in file:
            file["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    change(manifest)
    data = json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"
    (image / "manifest.json").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    image.rename(lab.home / digest)
    (lab.home / "tags" / "latest").write_text(digest + "\n")


CHANGES = {
    "a newer requires": lambda m: m["requires"].append("telepathy"),
    "another format": lambda m: m.update(format=99),
    "no clocks": lambda m: m.pop("clocks"),
    "a clock that is no number": lambda m: m["clocks"].update(monotonic="now"),
    "a file too many": lambda m: m["files"].append({**m["files"][0], "name": "no-such-file"}),
    "a file too few": lambda m: m["files"].pop(),
    "a file outside": lambda m: m["files"][0].update(name="../../escape"),
    "another machine": lambda m: m["host"].update(machine="m68k"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_manifest_that_cannot_be_followed(what, lab):
    reseal(lab, CHANGES[what])
    lab.assert_refused(what)
    lab.assert_restarts()


def test_records_that_lie(lab):
    """Digests are right, contents are not: the engine itself must find out."""
    name = "state.cbor"
    size = (lab.image / name).stat().st_size
    for position in range(0, size, max(1, size // 25)):
        lab.mend()
        truncate(lab.image / name, position)
        reseal(lab, lambda manifest: None)
        lab.assert_refused(f"{name} cut to {position} bytes")
    lab.assert_restarts()


def rewrite_records(lab: Lab, lie: Callable[[list], None]) -> None:
    """Decode state.cbor, let lie() change its records, and seal the image again."""
    path = lab.image / "state.cbor"
    items = []
    with path.open("rb") as stream:
        while stream.peek(1):
            items.append(cbor2.load(stream))
    lie(items[1:])
    path.write_bytes(b"".join(cbor2.dumps(item) for item in items))
    reseal(lab, lambda manifest: None)


def records_of(records: list, wanted: str) -> Iterator[dict]:
    return (fields for kind, _, fields in records if kind == wanted)


def add_page(records: list, page_of: Callable[[dict], int]) -> None:
    """Claim a page of contents at a place of the first address space."""
    memory = next(records_of(records, "memory"))
    memory["extents"] = sorted([*memory["extents"], [page_of(memory), 1, 0]])


def add_guard(records: list, page_of: Callable[[dict], int]) -> None:
    """Claim a guard page there."""
    memory = next(records_of(records, "memory"))
    memory["guards"] = sorted([*memory.get("guards", []), [page_of(memory), 1]])


def gap_of(memory: dict) -> int:
    """A page that no mapping has."""
    vmas = memory["vmas"]
    return next(
        low["end"] // 4096 for low, high in pairwise(vmas) if high["start"] - low["end"] >= 4096
    )


def vdso_of(memory: dict) -> int:
    return next(vma["start"] // 4096 for vma in memory["vmas"] if vma["name"] == b"[vdso]")


def show_one_page_everywhere(records: list) -> None:
    """Claim the first page of the file at more places than it has pages."""
    extents = [e for _, _, fields in records for e in fields.get("extents", [])]
    stored = max(index + count for _, count, index in extents if index != ALL_ZEROS)
    memory = max(records_of(records, "memory"), key=lambda memory: len(anonymous_pages(memory)))
    pages = anonymous_pages(memory)[: stored + 1]
    assert len(pages) > stored
    memory["extents"] = [[page, 1, 0] for page in pages]


def anonymous_pages(memory: dict) -> list[int]:
    return [
        page
        for vma in memory["vmas"]
        if vma["type"] == 0 and not vma["name"]
        for page in range(vma["start"] // 4096, vma["end"] // 4096)
    ]


def call_something_else(records: list) -> None:
    """Have a thread make another system call than the one it was waiting in."""
    waiting = [fields for fields in records_of(records, "restart_block") if fields["syscall"]]
    assert waiting
    for fields in waiting:
        fields["syscall"] = 39  # getpid


def share_backwards(records: list) -> None:
    """Two processes that share nothing have each other's id, and the later one's memory."""
    sleeps = (r for r in records if r[0] == "thread" and r[2]["comm"] == b"sleep")
    one, other = list(sleeps)[:2]
    names = {one[1]: other[1], other[1]: one[1]}
    for record in records:
        record[1] = names.get(record[1], record[1])
    shared = next(records_of(records, "share"))
    shared.update(what=1, tasks=[[other[2]["tid"]], [one[2]["tid"]]])


def share_in_two_ways(records: list) -> None:
    """A thread has its directory from another one, which has it from its process."""
    processes = {number: fields["pid"] for kind, number, fields in records if kind == "process"}
    threads = {number: fields["tid"] for kind, number, fields in records if kind == "thread"}
    apart = {fields["tid"] for fields in records_of(records, "thread_tables")}
    # The first of those that are no process, and have nothing for themselves.
    plain_id = next(n for n, tid in threads.items() if tid not in {*processes.values(), *apart})
    leader = processes[max(number for number in processes if number < plain_id)]
    things = [fields for fields in records_of(records, "share") if fields["what"] == 2]
    members = [{tid for (tid,) in fields["tasks"]} for fields in things]
    # Of threads alone: what processes share is looked at more closely.
    first = next(i for i, tids in enumerate(members) if tids <= apart)
    last = next(i for i, tids in enumerate(members) if i > first and not tids & apart)
    things[first]["tasks"].insert(0, [threads[plain_id]])
    things[last]["tasks"] = [[leader], [threads[plain_id]]]


def lease_of_nobody(records: list) -> None:
    for lease in records_of(records, "lease"):
        lease["pid"] = 4000000


LIES = {
    "a page where no mapping is": lambda records: add_page(records, gap_of),
    "a page over the vdso": lambda records: add_page(records, vdso_of),
    "one page everywhere": show_one_page_everywhere,
    "another system call": call_something_else,
    "a guard page where no mapping is": lambda records: add_guard(records, gap_of),
    "a guard page over the vdso": lambda records: add_guard(records, vdso_of),
    "memory of a later process": share_backwards,
    "sharing in two ways": share_in_two_ways,
    "a lease of nobody": lease_of_nobody,
}


@pytest.mark.parametrize("what", LIES)
def test_well_formed_records_that_lie(what, container, tmp_path):
    # threads, processes and threads that share, and a lease
    names = ("thread", "share", "thread_tables", "lease")
    others = [container.add_victim(name) for name in names]
    container.add_program("/bin/sleep 1000")
    container.add_program("/bin/sleep 1001")
    victim = container.add_victim("pipe")
    container.start()
    for one in (*others, victim):
        one.ready()
    container.checkpoint("--stop")
    lab = Lab(container, victim, tmp_path)
    rewrite_records(lab, LIES[what])
    lab.assert_refused(what, late=True)
    lab.assert_restarts()


def name_memory(records: list, name: bytes) -> None:
    """Have each anonymous mapping say that a program has named it."""
    for memory in records_of(records, "memory"):
        for vma in memory["vmas"]:
            if vma["type"] == 0:
                vma["given_name"] = name


def test_names_of_memory(lab):
    """One that prctl(2) would not take is a lie; a kernel that has no names says so, once."""
    for name in (b"open end", b"two\nlines\0", b"[heap]\0", b"NUL\0inside\0", b"\xff\0"):
        rewrite_records(lab, lambda records, name=name: name_memory(records, name))
        lab.assert_refused(repr(name))
        lab.mend()
    rewrite_records(lab, lambda records: name_memory(records, b"given\0"))
    said = lab.container.restart().text.count("'given'")
    maps = Path(f"/proc/{lab.container.init_pid}/maps").read_text()
    assert said == ("[anon:given]" not in maps)
    lab.victim.verify()


def test_image_of_another_user(lab):
    lab.image.chmod(0o777)
    outcome = lab.container.try_cr("restart", lab.container.name)
    assert outcome.code != 0, outcome.text
    assert lab.container.state == "STOPPED"
    lab.assert_restarts()
