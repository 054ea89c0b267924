# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measure checkpoints and restarts: a report, never an assertion.

    make bench
    .venv/bin/python tests/bench/run.py [--runs N] [--only WORD] [--report DIR]

Downtime is what the engine measured between the first stopped and the last released task; the
totals are those of the whole command, seen from outside, Python and LXC included.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.bench import criu  # noqa: E402
from tests.bench.laboratory import new_laboratory  # noqa: E402
from tests.integration.container import Container, Victim, container  # noqa: E402

CASES = {
    "small container": ["idle"],
    "small container and its files": ["idle"],
    "1 GiB": ["memory", "1024", "plain"],
    "1 GiB, never huge pages": ["memory", "1024", "4k"],
    "1 GiB, always huge pages": ["memory", "1024", "thp"],
    "100 processes": ["processes", "100"],
    "1000 open files": ["files", "1000"],
    "500 VMAs": ["vmas", "500"],
    "100 threads": ["threads", "100"],
}

# The others are about processes and memory: their images hold no files.
WITH_FILES = {"small container and its files"}

COLUMNS = {
    "downtime": "downtime",
    "checkpoint": "checkpoint, total",
    "engine_restart": "restart, engine",
    "restart": "restart, total",
}


def measure(box: Container, victim: Victim, runs: int, *, files: str) -> dict[str, list[int]]:
    """Nanoseconds, one number per run; the first run of each warms up and is not counted."""
    found: dict[str, list[int]] = {name: [] for name in COLUMNS}
    found["size"] = []
    box.start()
    victim.wait_for("ready", timeout=120)
    for number in range(runs + 1):
        took, result = timed(box, "checkpoint", box.name, "--files", files)
        box.cr("rm", result["image"])
        if number:
            found["downtime"].append(result["downtime"])
            found["checkpoint"].append(took)
            found["size"].append(result["size"])
    for number in range(runs + 1):
        box.checkpoint("--stop", "--files", files)
        took, result = timed(box, "restart", box.name)
        box.cr("rm", result["image"])
        if number:
            found["restart"].append(took)
            found["engine_restart"].append(
                result["loading"] + result["building"] + result["releasing"]
            )
    return found


def timed(box: Container, verb: str, *arguments: str) -> tuple[int, dict]:
    begin = time.monotonic_ns()
    outcome = box.cr(verb, *arguments, timeout=600)
    return time.monotonic_ns() - begin, outcome.result


def milliseconds(numbers: list[int]) -> str:
    """Fastest and median."""
    if not numbers:
        return "-"
    return f"{min(numbers) / 1e6:.1f} / {statistics.median(numbers) / 1e6:.1f}"


def ratio(ours: list[int], theirs: list[int]) -> str:
    if not ours or not theirs:
        return "-"
    return f"{statistics.median(theirs) / statistics.median(ours):.1f}x"


def markdown(report: dict) -> str:
    """The report as text: a table of ours, one of CRIU's if it was there."""
    host = report["host"]
    lines = [
        "# lxc-cr bench",
        "",
        f"{report['when']}, Linux {host['kernel']}, {host['processor']}, "
        f"{host['processors']} processors; {report['runs']} runs after one to warm up; "
        "milliseconds, fastest / median.",
        "",
        f"| case | {' | '.join(COLUMNS.values())} | image |",
        f"|---|{'---|' * (len(COLUMNS) + 1)}",
    ]
    for case, numbers in report["cases"].items():
        cells = [milliseconds(numbers[name]) for name in COLUMNS]
        size = f"{statistics.median(numbers['size']) / (1 << 20):.1f} MiB"
        lines.append(f"| {case} | {' | '.join(cells)} | {size} |")
    if report["criu"]:
        lines += [
            "",
            f"CRIU {report['criu']} on the same programs as plain processes, in the same run; "
            "how many times its median is ours in brackets.",
            "",
            "| case | downtime | dump, total | restore, total |",
            "|---|---|---|---|",
        ]
        for case, theirs in report["criu_cases"].items():
            ours = report["cases"][case]
            cells = [
                f"{milliseconds(theirs[name])} ({ratio(ours[name], theirs[name])})"
                for name in ("downtime", "checkpoint", "restart")
            ]
            lines.append(f"| {case} | {' | '.join(cells)} |")
    else:
        lines += ["", f"No CRIU >= {criu.OLDEST} that works was found in PATH to compare with."]
    return "\n".join(lines) + "\n"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--report", type=Path, default=HERE / "report")
    options = parser.parse_args()
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": {
            "kernel": platform.release(),
            "processor": processor(),
            "processors": os.cpu_count(),
        },
        "runs": options.runs,
        "cases": {},
        "criu": criu.find(),
        "criu_cases": {},
    }
    with new_laboratory("crb") as laboratory:
        program = laboratory.compile(HERE / "load.c")
        for number, (case, arguments) in enumerate(CASES.items()):
            if options.only not in case:
                continue
            print(f"{case} ...", file=sys.stderr, flush=True)
            with container(laboratory, f"{laboratory.session}-{number}") as box:
                victim = box.add_program_as_victim(program, *arguments)
                files = "snapshot" if case in WITH_FILES else "none"
                report["cases"][case] = measure(box, victim, options.runs, files=files)
            if report["criu"]:
                report["criu_cases"][case] = criu.measure(
                    program, arguments, laboratory.path, options.runs
                )
    options.report.mkdir(exist_ok=True)
    (options.report / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.report / "report.md").write_text(markdown(report))
    print(markdown(report), end="")


if __name__ == "__main__":
    main()
