# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small valid images for tests of the store and of what reads them."""

from pathlib import Path

import cbor2

from lxc_cr_plugin import manifest
from lxc_cr_plugin.manifest import Manifest
from lxc_cr_plugin.store import Image, Store

OBJECTS = [
    {"id": 1, "kind": "regular", "type": "file", "path": b"/tmp/a"},
    {"id": 2, "kind": "pipe", "path": b"pipe:[\xff]"},
]
STATE = [
    {"format": "lxc-cr", "requires": [["process"], ["pipe"]]},
    ["process", 3, {"pid": 1, "ppid": 0}],
    ["thread", 4, {"tid": 1, "comm": b"init"}],
    ["process", 5, {"pid": 7, "ppid": 1}],
    ["thread", 6, {"tid": 7, "comm": b"count\xff"}],
    ["files", 3, {"descriptors": [[0, 1, 0], [4, 2, 1]]}],
    ["files", 5, {"descriptors": [[5, 2, 0]]}],
    [
        "memory",
        5,
        {"vmas": [{"start": 0x400000, "end": 0x402000, "protection": 5, "name": b"/bin/count"}]},
    ],
]


def write_files(directory: Path, *, pages: bytes = b"\x07" * 8192) -> None:
    """What the engine leaves in a staging directory."""
    (directory / "objects.cbor").write_bytes(cbor2.dumps(OBJECTS))
    (directory / "state.cbor").write_bytes(b"".join(cbor2.dumps(item) for item in STATE))
    (directory / "pages").write_bytes(pages)
    (directory / "files").mkdir()
    (directory / "files" / "5").write_bytes(b"an unlinked file")


def make_manifest(directory: Path, *, container: str = "web", downtime: int = 1000) -> Manifest:
    """A manifest for the files in @directory."""
    return Manifest(
        engine="0.1.0",
        requires=("process", "pipe"),
        created=manifest.now(),
        container={
            "name": container,
            "lxcpath": "/var/lib/lxc",
            "runtime": "lxc",
            "init_pid": 4711,
            "config": "lxc.uts.name = web\n",
            "rootfs": "dir:/var/lib/lxc/web/rootfs",
        },
        clocks={"monotonic": 1, "boottime": 2, "realtime": 3},
        host={"kernel": "6.1.0", "machine": "x86_64", "hostname": "host", "page_size": 4096},
        statistics={
            "downtime": downtime,
            "stopping": 1,
            "collecting": 2,
            "capturing": 0,
            "writing": 3,
            "processes": 2,
            "threads": 2,
            "files": 2,
            "pages": 2,
        },
        files=manifest.describe_files(directory),
    )


def add_image(
    store: Store,
    *,
    container: str = "web",
    tag: str = "latest",
    buffered: bool = False,
    downtime: int = 1000,
    content: bytes = b"",
) -> Image:
    """Put an image into @store, perhaps with a file of the container; another downtime makes another one."""
    with store.staging(buffered=buffered) as staging:
        write_files(staging.path)
        if content:
            (staging.path / "rootfs").mkdir()
            (staging.path / "rootfs" / ("0" * 64)).write_bytes(content)
        made = make_manifest(staging.path, container=container, downtime=downtime)
        (staging.path / manifest.NAME).write_bytes(made.encode())
        return store.commit(staging, container=container, tag=tag)
