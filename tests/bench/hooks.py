# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measure what the stanza adds to a start and a stop that have nothing to resume: a report.

    .venv/bin/python tests/bench/hooks.py [--rounds N]

A container with the stanza and one without are started and stopped in turn; and the lines of the
stanza are run as LXC runs them, beside as many that do nothing. The budget of a start, and of a stop,
is 5 ms. The best of all rounds counts.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.bench.laboratory import new_laboratory  # noqa: E402
from tests.integration.container import (  # noqa: E402
    LXC_CR,
    Container,
    container,
    run,
)

BUDGET = 5e-3  # seconds

EMPTY_LINE = "2>&1; :"
ORDINARY = ("pre-start", "start-host", "stop", "post-stop")


def time_of(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def best_of(rounds: int, *works: Callable[[], object]) -> list[float]:
    """The shortest time of each, called in turn."""
    found = [[time_of(work) for work in works] for _ in range(rounds)]
    return [min(times) for times in zip(*found, strict=True)]


def lines_of(stanza: str) -> list[str]:
    """What LXC runs in an ordinary life."""
    pairs = (line.partition(" = ") for line in stanza.splitlines())
    return [line for key, _, line in pairs if key.removeprefix("lxc.hook.") in ORDINARY]


def run_lines(box: Container, lines: list[str]) -> None:
    variables = {"LXC_CONFIG_FILE": f"{box.directory}/config", "LXC_NAME": box.name}
    for line in lines:
        subprocess.run(
            ["/bin/sh", "-c", f"exec {line} {box.name} lxc hook"],
            env={**os.environ, **variables}, check=True,
        )  # fmt: skip


def row(what: str, ours: float, plain: float) -> str:
    more = ours - plain
    verdict = "within the budget" if more <= BUDGET else "OVER THE BUDGET"
    return f"| {what} | {plain * 1e3:.2f} | {ours * 1e3:.2f} | {more * 1e3:+.2f} ({verdict}) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    print("| milliseconds | without | with the stanza | more |")
    print("|---|---|---|---|")
    with new_laboratory("crh") as laboratory:
        stanza = run(LXC_CR, "--config", laboratory.config, "stanza").stdout
        file = laboratory.path / "lxc-cr.conf"
        file.write_text(stanza)
        with (
            container(laboratory, f"{laboratory.session}-plain") as plain,
            container(laboratory, f"{laboratory.session}-hooked") as hooked,
        ):
            hooked.configure(f"lxc.include = {file}")
            start, stop, our_start, our_stop = best_of(
                options.rounds, plain.start, plain.stop, hooked.start, hooked.stop
            )
            lines = lines_of(stanza)
            empty, ours = best_of(
                options.rounds,
                lambda: run_lines(plain, [EMPTY_LINE] * len(lines)),
                lambda: run_lines(hooked, lines),
            )
    print(row("start", our_start, start))
    print(row("stop", our_stop, stop))
    print(row("the lines of both, in LXC's shells", ours, empty))


if __name__ == "__main__":
    main()
