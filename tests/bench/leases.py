# SPDX-License-Identifier: LGPL-2.1-or-later
"""How exact is what a restart leaves to a lease that is being broken? A picture of the errors.

    make leases
    .venv/bin/python tests/bench/leases.py [--errors N] [--picture docs/lease-error.svg]

A victim with a dozen broken leases is restarted again and again. The next checkpoint says what is
left then; the error is how much that is more than it should be, by what was left before and the
time from the release to the checkpoint.
"""

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.bench.laboratory import new_laboratory  # noqa: E402
from tests.integration.container import Container, container  # noqa: E402

LEASE_BREAK_TIME = Path("/proc/sys/fs/lease-break-time")
LONG = 1200  # seconds: none may end meanwhile

Remaining = dict[tuple[int, int, str], int]


def remaining(box: Container) -> tuple[Remaining, int]:
    """What is left to each lease of the last checkpoint, and its T0; nanoseconds."""
    image = box.try_cr("inspect", box.name).result
    left = {}
    for record in image["state"]:
        lease = record["fields"]
        for word in ("downgrade", "unlock") if record["kind"] == "lease" else ():
            if lease[word]:
                left[lease["pid"], lease["fd"], word] = lease[f"{word}_remaining"]
    return left, image["manifest"]["clocks"]["monotonic"]


def errors(box: Container) -> Iterator[float]:
    """Milliseconds, without end; negative: too short."""
    while True:
        box.checkpoint("--stop")
        before, _ = remaining(box)
        released = box.restart().result["released"]
        box.checkpoint()
        after, now = remaining(box)
        for lease, left in before.items():
            yield (after[lease] - (left - (now - released))) / 1e6


def picture(found: list[float]) -> str:
    """A histogram, a bar for each half of a millisecond."""
    bars = Counter(round(error * 2) for error in found)
    low, high = min(-20, *bars), max(20, *bars)
    scale = 160 / max(bars.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {(high - low) * 12 + 60} 230" '
        'font-family="sans-serif" font-size="11">',
        f'<text x="30" y="18">Error of the time left to a broken lease: {len(found)} leases '
        f"restarted, from {min(found):+.1f} to {max(found):+.1f} ms, "
        f"mean {statistics.mean(found):+.1f}, deviation {statistics.pstdev(found):.1f}</text>",
    ]
    for bar in range(low, high + 1):
        x, height = 30 + (bar - low) * 12, bars[bar] * scale
        parts.append(
            f'<rect x="{x - 5}" y="{195 - height:.1f}" width="10" height="{height:.1f}" '
            'fill="steelblue"/>'
        )
        if bar % 10 == 0:
            parts.append(f'<text x="{x}" y="212" text-anchor="middle">{bar // 2} ms</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def measure(wanted: int) -> list[float]:
    """That many errors; the sysctl is put back."""
    before = LEASE_BREAK_TIME.read_text()
    LEASE_BREAK_TIME.write_text(str(LONG))
    try:
        with new_laboratory("crl") as laboratory, container(laboratory, "leases") as box:
            victim = box.add_victim("lease_break")
            box.start()
            victim.ready()
            source = errors(box)
            return [next(source) for _ in range(wanted)]
    finally:
        LEASE_BREAK_TIME.write_text(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--errors", type=int, default=2600)
    parser.add_argument("--picture", type=Path, default=HERE.parent.parent / "docs/lease-error.svg")
    arguments = parser.parse_args()
    found = measure(arguments.errors)
    arguments.picture.write_text(picture(found))
    print(f"{len(found)} errors, {min(found):+.1f} to {max(found):+.1f} ms")


if __name__ == "__main__":
    main()
