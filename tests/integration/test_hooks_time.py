# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the hooks of `lxc-cr stanza` cost a container that has nothing to do with them."""

import os
import subprocess
import time

import pytest

from .container import Container

# The best of so many counts: the machine is shared.
ROUNDS = 40
# So often a busy machine is asked again.
BATCHES = 4

MOST = 0.005  # seconds that a start may take longer, and a stop
MOST_OF_LINES = 0.001  # of it for what our lines do in the shells that LXC runs for them

EMPTY_LINE = "2>&1; :"


@pytest.fixture
def hooked(container, stanza) -> Container:
    container.configure(f"lxc.include = {stanza}")
    return container


def time_of(work) -> float:
    """Seconds that a call takes."""
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def test_the_lines_of_an_ordinary_life_take_no_time(hooked, stanza, capsys):
    """Those of a start and a stop as LXC runs them, beside as many that do nothing."""
    lines = [
        line.partition(" = ")[2]
        for line in stanza.read_text().splitlines()
        if line.startswith(("lxc.hook.pre-start", "lxc.hook.start-host", "lxc.hook.stop"))
        or line.startswith("lxc.hook.post-stop")
    ]
    assert len(lines) == 4
    variables = {"LXC_CONFIG_FILE": f"{hooked.directory}/config", "LXC_NAME": hooked.name}

    def run_lines(lines: list[str]) -> None:
        for line in lines:
            subprocess.run(
                ["/bin/sh", "-c", f"exec {line} {hooked.name} lxc pre-start"],
                env={**os.environ, **variables}, check=True,
            )  # fmt: skip

    pairs = [
        (time_of(lambda: run_lines([EMPTY_LINE] * len(lines))), time_of(lambda: run_lines(lines)))
        for _ in range(ROUNDS)
    ]
    empty, ours = (min(times) for times in zip(*pairs, strict=True))
    with capsys.disabled():
        print(f"\nhooks of an ordinary life: {ours * 1e3:.2f} ms, empty {empty * 1e3:.2f} ms")
    assert ours - empty < MOST_OF_LINES


def test_an_ordinary_start_loses_no_time(hooked, new_container, capsys):
    """All that the stanza adds to a start and a stop, beside a container that does without."""
    plain = new_container()
    rounds: list[list[float]] = []

    def longer() -> list[float]:
        """Start and stop."""
        for _ in range(ROUNDS):
            calls = (plain.start, plain.stop, hooked.start, hooked.stop)
            rounds.append([time_of(call) for call in calls])
        best = [min(times) for times in zip(*rounds, strict=True)]
        return [best[2] - best[0], best[3] - best[1]]

    for _ in range(BATCHES):
        found = longer()
        if max(found) < MOST:
            break
    with capsys.disabled():
        print(f"\nthe stanza: start {found[0] * 1e3:+.1f} ms, stop {found[1] * 1e3:+.1f} ms")
    assert max(found) < MOST
