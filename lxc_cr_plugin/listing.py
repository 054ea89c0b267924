# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images as tables and trees for people, and as JSON for machines.

What a record holds is declared by the engine's field tables and grows with them, so nothing here
insists on a field: what is missing is left out, what is unknown appears with --json.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from .errors import Cancelled, LxcCrError
from .image import Records
from .log import human_size, human_time
from .manifest import Manifest
from .store import Image

# Deeper trees than this are drawn flat: an image may hold any nonsense.
DEEPEST = 100


def rows(images: Iterable[Image], *, container: str | None) -> list[dict[str, Any]]:
    """One dictionary per image, newest first; an image that cannot be read says why."""
    found = [_row(image) for image in images if container in (None, image.container)]
    return sorted(found, key=lambda row: str(row.get("created", "")), reverse=True)


def _row(image: Image) -> dict[str, Any]:
    row: dict[str, Any] = {
        "container": image.container,
        "tags": list(image.tags),
        "digest": f"sha256:{image.digest}",
        "buffered": image.buffered,
        "path": str(image.path),
    }
    try:
        manifest = image.manifest()
    except Cancelled:
        raise
    except LxcCrError as error:
        return {**row, "damaged": str(error)}
    return {
        **row,
        "created": manifest.created,
        "size": image.room(),
        "downtime": manifest.statistics["downtime"],
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """The rows of `ls` for people."""
    lines = [["CONTAINER", "TAGS", "DIGEST", "CREATED", "SIZE", "DOWNTIME", ""]]
    for row in found:
        head = [row["container"], ",".join(row["tags"]) or "-", row["digest"][7:19]]
        if "damaged" in row:
            lines.append([*head, "damaged", "-", "-", row["damaged"]])
            continue
        downtime = human_time(row["downtime"]) if row["downtime"] else "-"
        note = "buffered" if row["buffered"] else ""
        lines.append([*head, row["created"], human_size(row["size"]), downtime, note])
    return _columns(lines)


def _columns(lines: Sequence[Sequence[str]], *, indent: str = "") -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(indent + "  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def image_as_json(
    image: Image, manifest: Manifest, records: Records, network: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Everything that is known about an image."""
    return {
        "digest": f"sha256:{image.digest}",
        "path": str(image.path),
        "buffered": image.buffered,
        "tags": list(image.tags),
        "size": image.room(),
        "manifest": {
            **manifest._asdict(),
            "files": [file._asdict() for file in manifest.files],
        },
        "objects": records.objects,
        "header": records.header,
        "state": [record._asdict() for record in records.state],
        "network": network,
    }


def image_text(
    image: Image, manifest: Manifest, records: Records, network: dict[str, Any] | None = None
) -> str:
    """An image for people: where it comes from, its processes, descriptors and memory."""
    numbers = manifest.statistics
    tags = ", ".join(f"{image.container}:{tag}" for tag in image.tags) or "no tag"
    parts = [
        f"{tags} (sha256:{image.digest[:12]})",
        _columns(
            [
                ["container", manifest.container["name"]],
                ["created", manifest.created],
                ["host", f"{manifest.host['hostname']}, kernel {manifest.host['kernel']}"],
                ["written by", f"lxc-cr {manifest.engine}"],
                ["downtime", human_time(numbers["downtime"]) if numbers["downtime"] else "ended"],
                ["size", _size(image, manifest)],
                ["path", str(image.path)],
            ],
            indent="  ",
        ),
        _section("processes", process_tree(records)),
        _section("descriptors", descriptor_table(records)),
        _section("locks", lock_table(records)),
        _section("timers and waits", time_table(records)),
        _section("memory", memory_table(records)),
        _section("network", network_table(network)),
        _section("records", _counts(records)),
    ]
    return "\n".join(part for part in parts if part)


def _size(image: Image, manifest: Manifest) -> str:
    """What all of the image takes on the disk."""
    files = f", with {manifest.rootfs['entries']} files of the container" if manifest.rootfs else ""
    return f"{human_size(image.room())}{files}"


def _section(title: str, body: str) -> str:
    return f"{title}:\n{body}" if body else ""


def process_tree(records: Records) -> str:
    """Processes with their children indented; names in quotes, as they may hold anything."""
    names = {
        fields.get("tid"): fields.get("comm", "")
        for _, fields in _of_kind(records, "thread")
        if isinstance(fields.get("tid"), int)
    }
    parents = {
        fields["pid"]: fields.get("ppid")
        for _, fields in _of_kind(records, "process")
        if isinstance(fields.get("pid"), int)
    }
    lines = []
    for pid in _in_tree_order(parents):
        depth, above = 0, parents[pid]
        while isinstance(above, int) and above in parents and depth < DEEPEST:
            depth, above = depth + 1, parents[above]
        lines.append(f"  {'  ' * (depth % DEEPEST)}{pid} {names.get(pid, '')!r}")
    return "\n".join(lines)


def _in_tree_order(parents: dict[int, Any]) -> list[int]:
    """All keys of @parents, each after its parent, as far as that is possible."""
    children: dict[int | None, list[int]] = {}
    for pid, parent in parents.items():
        known = parent if isinstance(parent, int) and parent in parents else None
        children.setdefault(known, []).append(pid)
    order: list[int] = []
    pending = children.get(None, [])[::-1]
    while pending:
        pid = pending.pop()
        order.append(pid)
        pending.extend(reversed(children.get(pid, [])))
    # Processes that are each other's parents belong to no tree.
    return order + sorted(parents.keys() - set(order))


def descriptor_table(records: Records) -> str:
    """Which process holds which open file under which number."""
    pids = _pids(records)
    objects = {item.get("id"): item for item in records.objects if _is_id(item.get("id"))}
    lines = []
    for owner, fields in _of_kind(records, "files"):
        descriptors = fields.get("descriptors")
        for row in descriptors if isinstance(descriptors, list) else ():
            match row:
                case [int(fd), int(number), *_]:
                    item = objects.get(number, {})
                    kind = str(item.get("type") or item.get("kind") or "?")
                    path = _printable(item.get("path"))
                    lines.append([pids.get(owner, "?"), str(fd), str(number), kind, path])
    if not lines:
        return ""
    return _columns([["PID", "FD", "OBJECT", "TYPE", "PATH"], *lines], indent="  ")


LOCK_SORTS = ("POSIX", "OFD", "flock")
LOCK_TYPES = ("read", "write")
FLOCK_TYPES = ("shared", "exclusive")
ENDLESS = 2**63 - 1


def lock_table(records: Records) -> str:
    """File locks, who waits for one, and leases with the time that is left, in words."""
    paths = {
        item["id"]: _printable(item.get("path"))
        for item in records.objects
        if _is_id(item.get("id"))
    }
    shown = _shown_files(records)

    def line(fields: dict[str, Any], what: str) -> list[str]:
        pid, fd = fields.get("pid", "?"), fields.get("fd", "?")
        number = fields.get("object", shown.get((str(pid), str(fd)), ""))
        path = paths.get(number, "") if isinstance(number, int) else ""
        by = "mapped" if fd == -1 or fields.get("mapped") else str(fd)
        return [str(pid), by, str(number), what, path]

    lines = [
        line(fields, f"{_lock_word(fields)} lock, {_range(fields)}")
        for _, fields in _of_kind(records, "lock")
    ]
    # in the order of the queue
    waiting = [
        line(fields, f"thread {fields.get('tid', '?')} waits for a lock ({_sort_word(fields)})")
        for _, fields in _of_kind(records, "lock_waiter")
    ]
    queues: dict[str, list[list[str]]] = {}
    for waiter in waiting:
        queue = queues.setdefault(waiter[-1] or waiter[2], [])
        queue.append(waiter)
    for queue in queues.values():
        for place, waiter in enumerate(queue, start=1):
            waiter[3] += f", number {place} of {len(queue)} for this file"
    lines += waiting
    lines += [line(fields, _lease_words(fields)) for _, fields in _of_kind(records, "lease")]
    lines += [_outside_line(fields) for _, fields in _of_kind(records, "outside_lock")]
    head = ["PID", "FD", "OBJECT", "WHAT", "PATH"]
    return _columns([head, *lines], indent="  ") if lines else ""


def _shown_files(records: Records) -> dict[tuple[str, str], int]:
    """Which open file description a descriptor shows, by pid and number."""
    pids = _pids(records)
    shown = {}
    for owner, fields in _of_kind(records, "files"):
        descriptors = fields.get("descriptors")
        for row in descriptors if isinstance(descriptors, list) else ():
            match row:
                case [int(fd), int(number), *_]:
                    shown[pids.get(owner, "?"), str(fd)] = number
    return shown


def _outside_line(fields: dict[str, Any]) -> list[str]:
    """Somebody outside, who has no pid in the container."""
    what = (
        f"{_word(LOCK_TYPES, fields.get('type'))} lease"
        if fields.get("lease")
        else f"{_lock_word(fields)} lock, {_range(fields)}"
    )
    who = f"process {fields.get('host_pid', '?')} of the host ({_printable(fields.get('comm'))})"
    return ["-", "-", "-", f"{what}, of {who}, ignored", _printable(fields.get("what"))]


def _word(words: tuple[str, ...], index: object) -> str:
    return words[index] if isinstance(index, int) and 0 <= index < len(words) else "?"


def _sort_word(fields: dict[str, Any]) -> str:
    return _word(LOCK_SORTS, fields.get("sort"))


def _lock_word(fields: dict[str, Any]) -> str:
    """In the words of the call by which it was taken."""
    sort = _sort_word(fields)
    types = FLOCK_TYPES if sort == "flock" else LOCK_TYPES
    return f"{sort} {_word(types, fields.get('type'))}"


def _range(fields: dict[str, Any]) -> str:
    start, end = fields.get("start"), fields.get("end")
    if end == ENDLESS:
        return f"bytes {start} to the end" if start else "whole file"
    if start == end:
        return f"byte {start}"
    return f"bytes {start} to {end}"


def _lease_words(fields: dict[str, Any]) -> str:
    words = [f"{_word(LOCK_TYPES, fields.get('type'))} lease"]
    for pending, what in (("downgrade", "for a reader"), ("unlock", "for a writer")):
        left = fields.get(f"{pending}_remaining")
        if fields.get(pending) and isinstance(left, int):
            words.append(f"being broken {what}, {left / 1e9:.3f} s left")
    if fields.get("guessed"):
        words.append("which nobody told: the whole time was taken")
    waiters = fields.get("waiters")
    if isinstance(waiters, list) and waiters:
        threads = [str(item.get("tid")) if isinstance(item, dict) else "?" for item in waiters]
        several = "s" if len(threads) > 1 else ""
        words.append(f"thread{several} {', '.join(threads)} waiting for it to be given back")
    return ", ".join(words)


# By their numbers on x86-64, the only machine yet.
WAITING_CALLS = {
    0: "read", 1: "write", 7: "poll", 19: "readv", 20: "writev", 23: "select", 35: "nanosleep",
    40: "sendfile", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg",
    47: "recvmsg", 65: "semop", 128: "rt_sigtimedwait", 202: "futex", 208: "io_getevents",
    220: "semtimedop", 230: "clock_nanosleep", 232: "epoll_wait", 270: "pselect6", 271: "ppoll",
    275: "splice", 281: "epoll_pwait", 288: "accept4", 299: "recvmmsg", 307: "sendmmsg",
    327: "preadv2", 328: "pwritev2", 333: "io_pgetevents", 441: "epoll_pwait2",
}  # fmt: skip
# The end of the year 9999, ns.
LAST_DATE = 253_402_300_800 * 10**9
CLOCKS = {
    0: "CLOCK_REALTIME", 1: "CLOCK_MONOTONIC", 2: "CPU time of the process",
    3: "CPU time of the thread", 7: "CLOCK_BOOTTIME", 8: "CLOCK_REALTIME_ALARM",
    9: "CLOCK_BOOTTIME_ALARM", 11: "CLOCK_TAI",
}  # fmt: skip


def time_table(records: Records) -> str:
    """Timers, and threads that wait until some time, with what was left to them."""
    lines = [*_interval_timers(records), *_posix_timers(records), *_timerfds(records)]
    lines += _timed_waits(records)
    return _columns([["PID", "WHAT", "LEFT", "THEN EVERY"], *lines], indent="  ") if lines else ""


def _interval_timers(records: Records) -> Iterator[list[str]]:
    pids = _pids(records)
    for owner, fields in _of_kind(records, "itimer"):
        for name in ("real", "virtual", "prof"):
            timer = fields.get(name)
            if isinstance(timer, dict) and timer.get("remaining"):
                left = _seconds(timer["remaining"])
                what = f"interval timer ITIMER_{name.upper()}"
                yield [pids.get(owner, "?"), what, left, _every(timer)]


def _posix_timers(records: Records) -> Iterator[list[str]]:
    pids = _pids(records)
    for owner, fields in _of_kind(records, "posix_timer"):
        timers = fields.get("timers")
        for timer in timers if isinstance(timers, list) else ():
            if not isinstance(timer, dict):
                continue
            what = f"POSIX timer {timer.get('id', '?')} on {_clock(timer)}"
            yield [pids.get(owner, "?"), what, _posix_left(timer), _every(timer)]


def _posix_left(timer: dict[str, Any]) -> str:
    if timer.get("due"):
        return "has fired, its signal waits" if timer.get("queued") else "has fired"
    if not timer.get("armed"):
        return "not armed"
    moment = timer.get("remaining")
    return _date(moment) if timer.get("realtime") else _seconds(moment)


def _timerfds(records: Records) -> Iterator[list[str]]:
    holders = _holders(records)
    for number, fields in _of_kind(records, "timerfd"):
        pid, fd = holders.get(number, ("?", "?"))
        if not fields.get("remaining"):
            left = "not armed"
        elif fields.get("deadline"):
            left = _date(fields["deadline"])
        else:
            left = _seconds(fields["remaining"])
        ticks = fields.get("ticks")
        if isinstance(ticks, int) and ticks:
            left += f", {ticks} expirations unread"
        yield [pid, f"timerfd, descriptor {fd}, on {_clock(fields)}", left, _every(fields)]


def _timed_waits(records: Records) -> Iterator[list[str]]:
    threads = dict(_of_kind(records, "thread"))
    pid = "?"
    for record in records.state:
        if record.kind == "process":
            pid = str(record.fields.get("pid", "?"))
        elif record.kind == "restart_block" and _is_wait(record.fields):
            tid = threads.get(record.id, {}).get("tid", "?")
            number = record.fields.get("syscall")
            call = WAITING_CALLS.get(number if isinstance(number, int) else -1, "a system call")
            timed = record.fields.get("timed")
            left = _seconds(record.fields.get("remaining")) if timed else "no end"
            yield [pid, f"thread {tid} waits in {call}", left, ""]


def _is_wait(fields: dict[str, Any]) -> bool:
    return bool(fields.get("syscall") or fields.get("timed"))


def _holders(records: Records) -> dict[int, tuple[str, str]]:
    """The first process that holds each object, and under which number."""
    pids = _pids(records)
    holders: dict[int, tuple[str, str]] = {}
    for owner, fields in _of_kind(records, "files"):
        descriptors = fields.get("descriptors")
        for row in descriptors if isinstance(descriptors, list) else ():
            match row:
                case [int(fd), int(number), *_]:
                    holders.setdefault(number, (pids.get(owner, "?"), str(fd)))
    return holders


def _clock(fields: dict[str, Any]) -> str:
    clock = fields.get("clock")
    return CLOCKS.get(clock, "another's CPU time") if isinstance(clock, int) else "?"


def _every(fields: dict[str, Any]) -> str:
    return _seconds(fields["interval"]) if fields.get("interval") else ""


def _seconds(ns: object) -> str:
    return f"{ns / 1e9:.3f} s" if isinstance(ns, int) else "?"


def _date(ns: object) -> str:
    """A moment of the wall clock, given in nanoseconds."""
    if not isinstance(ns, int) or not 0 <= ns < LAST_DATE:
        return "?"
    return datetime.fromtimestamp(ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def memory_table(records: Records) -> str:
    """Memory mappings with their address range and what they map."""
    pids = _pids(records)
    lines = []
    for owner, fields in _of_kind(records, "memory"):
        mappings = fields.get("vmas")
        for mapping in mappings if isinstance(mappings, list) else ():
            match mapping:
                case {"start": int(start), "end": int(end), **rest}:
                    size = human_size(max(0, end - start))
                    address = f"{start:012x}-{end:012x}"
                    protection = _protection(rest.get("protection"))
                    name = _printable(rest.get("name"))
                    lines.append([pids.get(owner, "?"), address, protection, size, name])
    if not lines:
        return ""
    return _columns([["PID", "RANGE", "", "SIZE", "PATH"], *lines], indent="  ")


def network_table(network: dict[str, Any] | None) -> str:
    """Interfaces with their addresses; of the rest, how much there is."""
    if network is None:
        return ""
    lines = [["NAME", "KIND", "MAC", "MTU", "ADDRESSES"]]
    for link in network["links"]:
        addresses = [
            f"{row['attributes'].get('IFA_LOCAL') or row['attributes'].get('IFA_ADDRESS')}"
            f"/{row.get('prefixlen')}"
            for row in network["addresses"]
            if row.get("index") == link["name"]
        ]
        kind, mac = link["kind"] or "-", link["address"] or "-"
        lines.append([link["name"], kind, mac, str(link["mtu"]), " ".join(addresses)])
    counts = ", ".join(f"{len(network[key])} {key}" for key in ("routes", "rules", "neighbours"))
    return f"{_columns(lines, indent='  ')}\n  {counts}" + (
        ", a packet filter" if network["filter"] else ""
    )


def _of_kind(records: Records, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((record.id, record.fields) for record in records.state if record.kind == kind)


def _pids(records: Records) -> dict[int, str]:
    """The pid of each process by the id of its record."""
    return {number: str(fields.get("pid", "?")) for number, fields in _of_kind(records, "process")}


def _is_id(value: object) -> bool:
    return isinstance(value, int)


def _protection(bits: object) -> str:
    if not isinstance(bits, int):
        return ""
    return "".join(letter if bits & 1 << n else "-" for n, letter in enumerate("rwx"))


def _printable(path: object) -> str:
    if not path:
        return ""
    return path if isinstance(path, str) and path.isprintable() else repr(path)


def _counts(records: Records) -> str:
    counts: dict[str, int] = {}
    for record in records.state:
        counts[record.kind] = counts.get(record.kind, 0) + 1
    lines = [[kind, str(count)] for kind, count in counts.items()]
    return _columns(lines, indent="  ") if lines else ""
