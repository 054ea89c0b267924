# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measure what the container's files add to the stop, on each storage: a report.

    .venv/bin/python tests/bench/files.py [--runs N]

A root filesystem of 300 MB in 11,000 files gets 500 MB of fresh writes, and then there is a checkpoint
that leaves the container running. The budget is 150 ms on btrfs and on an overlay with reflinks.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.bench.laboratory import new_laboratory  # noqa: E402
from tests.integration.container import Container, Laboratory, container  # noqa: E402
from tests.integration.filesystems import (  # noqa: E402
    loop_filesystem,
    remove_store,
    store_on,
)

CASES = ("btrfs@btrfs", "overlay@xfs", "dir@xfs", "dir@ext4")
FILES, FRESH = 11_000, 500
BUDGET = {"btrfs@btrfs": 150e6, "overlay@xfs": 150e6}


def populate(rootfs: Path) -> None:
    """300 MB in small files."""
    data = os.urandom(300_000_000 // FILES)
    for number in range(FILES):
        directory = rootfs / f"data/{number // 100}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / str(number)).write_bytes(data[number % 100 :])


def measure(box: Container, store: Path, runs: int) -> list[dict]:
    """The results of checkpoints, each after fresh writes; the first one, of everything, apart."""
    found = []
    for number in range(runs + 1):
        target = Path(f"/proc/{box.init_pid}/root/root/fresh-{number}")
        data = os.urandom(1 << 20)
        with target.open("wb") as file:
            for _ in range(FRESH):
                file.write(data)
        outcome = box.cr("checkpoint", box.name, "--store", store, timeout=600)
        found.append(outcome.result)
        target.unlink()
    return found


def run_case(laboratory: Laboratory, case: str, home: Path, pool: Path, runs: int) -> list[dict]:
    home.mkdir()
    name = f"{laboratory.session}-{case.replace('@', '-')}"
    with container(laboratory, name) as box:
        try:
            populate(box.rootfs)
            store_on(box, home, case.partition("@")[0])
            box.add_program("/bin/sleep 100000")
            box.start()
            return measure(box, home / "store", runs)
        finally:
            box.destroy()
            remove_store(home, pool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    options = parser.parse_args()
    print("| storage | the files, under the stop | downtime | first checkpoint: the files |")
    print("|---|---|---|---|")
    with new_laboratory("crf") as laboratory:
        pools = {name: laboratory.path / name for name in ("btrfs", "xfs", "ext4")}
        pools["ext4"].mkdir()
        with (
            loop_filesystem("btrfs", pools["btrfs"], megabytes=6000),
            loop_filesystem("xfs", pools["xfs"], megabytes=6000),
        ):
            for case in CASES:
                if options.only not in case:
                    continue
                home = pools[case.partition("@")[2]] / "home"
                results = measure_case(laboratory, case, home, pools["btrfs"], options.runs)
                print(results, flush=True)


def measure_case(laboratory: Laboratory, case: str, home: Path, pool: Path, runs: int) -> str:
    """A row of the table."""
    first, *results = run_case(laboratory, case, home, pool, runs)
    stood = statistics.median(result["rootfs"]["stood"] for result in results)
    downtime = statistics.median(result["downtime"] for result in results)
    verdict = ""
    if case in BUDGET:
        verdict = " (within the budget)" if stood <= BUDGET[case] else " (OVER THE BUDGET)"
    return (
        f"| {case} | {stood / 1e6:.1f} ms{verdict} | {downtime / 1e6:.1f} ms "
        f"| {first['rootfs']['stood'] / 1e6:.1f} ms |"
    )


if __name__ == "__main__":
    main()
