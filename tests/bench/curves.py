# SPDX-License-Identifier: LGPL-2.1-or-later
"""What does one more process, thread, VMA, file or lock cost? It must not depend on how many there are.

    make curves
    .venv/bin/python tests/bench/curves.py [--runs N] [--counts 10,100,1000] [--only WORD,WORD]
        [--picture FILE]

The cost of the empty container is taken off, the rest divided by the count: a flat line is a cost in
proportion, a rising one a step that looks at everything again for each.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.bench.laboratory import new_laboratory  # noqa: E402
from tests.bench.run import measure  # noqa: E402
from tests.integration.container import Laboratory, container  # noqa: E402

OBJECTS = {
    "processes": "process",
    "orphans": "process that init has adopted",
    "threads": "thread",
    "vmas": "VMA",
    "files": "open file",
    "locks": "locked file",
    "pipes": "pipe",
    "eventfds": "eventfd",
}
COUNTS = (10, 30, 100, 300, 1000)
PHASES = {"downtime": "checkpoint: the stop", "engine_restart": "restart: the engine"}

# {object: {count: {phase: nanoseconds each}}}
Costs = dict[str, dict[int, dict[str, float]]]


def fastest(laboratory: Laboratory, program: Path, name: str, arguments: list[str], runs: int):
    """Nanoseconds of each phase: the fastest run, for the others tell of the machine."""
    with container(laboratory, name) as box:
        victim = box.add_program_as_victim(program, *arguments)
        found = measure(box, victim, runs, files="none")
    return {phase: min(found[phase]) for phase in PHASES}


def costs(counts: tuple[int, ...], runs: int, objects: tuple[str, ...]) -> Costs:
    """What one of each costs when there are so many."""
    found: Costs = {}
    with new_laboratory("crc") as laboratory:
        program = laboratory.compile(HERE / "load.c")
        empty = fastest(laboratory, program, f"{laboratory.session}-idle", ["idle"], runs)
        for what in objects:
            for count in counts:
                print(f"{count} {what} ...", file=sys.stderr, flush=True)
                name = f"{laboratory.session}-{what}-{count}"
                took = fastest(laboratory, program, name, [what, str(count)], runs)
                each = {phase: max(took[phase] - empty[phase], 0) / count for phase in PHASES}
                found.setdefault(what, {})[count] = each
    return found


def draw(found: Costs, file: Path) -> None:
    """A plot for each phase, a line for each sort of object."""
    import matplotlib

    matplotlib.use("svg")
    # The same numbers give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "lxc-cr"
    from matplotlib import pyplot

    figure, plots = pyplot.subplots(1, len(PHASES), figsize=(10, 4), layout="constrained")
    for plot, (phase, title) in zip(plots, PHASES.items(), strict=True):
        for what, points in found.items():
            each = [took[phase] / 1e3 for took in points.values()]
            article = "an" if OBJECTS[what][0] in "aeiou" else "a"
            plot.plot(list(points), each, marker="o", label=f"{article} {OBJECTS[what]}")
        plot.set(title=title, xlabel="how many there are", xscale="log", yscale="log")
        plot.set_ylabel("microseconds each")
        plot.grid(visible=True, alpha=0.3)
    plots[0].legend()
    figure.savefig(file, metadata={"Date": None})


def table(found: Costs) -> str:
    """The same as text, microseconds."""
    lines = []
    for phase, title in PHASES.items():
        counts = list(next(iter(found.values())))
        lines += [f"| {title}, us each | {' | '.join(map(str, counts))} |"]
        lines += [f"|---|{'---|' * len(counts)}"]
        for what, points in found.items():
            cells = [f"{took[phase] / 1e3:.1f}" for took in points.values()]
            lines.append(f"| {OBJECTS[what]} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)))
    parser.add_argument("--only", default=",".join(OBJECTS))
    parser.add_argument("--picture", type=Path, default=HERE.parent.parent / "docs/cost-curves.svg")
    arguments = parser.parse_args()
    found = costs(
        tuple(map(int, arguments.counts.split(","))),
        arguments.runs,
        tuple(arguments.only.split(",")),
    )
    print(table(found))
    draw(found, arguments.picture)


if __name__ == "__main__":
    main()
