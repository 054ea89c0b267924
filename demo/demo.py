# SPDX-License-Identifier: LGPL-2.1-or-later
"""A checkpoint and a restart of a real container, step by step, with every claim looked at.

Run by demo.sh, which installs what is missing. The main story is `tell()`; machinery is below it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LXC_CR = Path(sys.executable).parent / "lxc-cr"
NAME = "lxc-cr-demo"
AWAY_SECONDS = 2.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# No bridge, no network: the container starts on every machine. AppArmor, where there is one, would
# want a profile to be loaded.
CONFIG = """\
lxc.net.0.type = empty
lxc.apparmor.profile = unconfined
lxc.log.file = {log}
lxc.log.level = INFO
"""

# The template's rcS starts syslogd and a DHCP client; ours starts the counter.
RCS = """\
#!/bin/sh
/bin/mount -a
/bin/counter /progress < /dev/null > /dev/null 2>&1 &
"""


class Failed(Exception):
    """Something is not as the demonstration says."""


def tell(demo: Demo) -> None:
    """The whole story."""
    demo.title("A busybox container without network, and in it a program that counts in memory")
    demo.create()
    demo.lxc("start", "-d")
    demo.wait_for_progress()
    before = demo.tasks()
    demo.say(f"process {demo.init_pid()} is its init, inside run: {before}")

    demo.title("A checkpoint that leaves it running")
    running = demo.lxc_cr("checkpoint", NAME, "--image", f"{NAME}:running")
    demo.say(f"it stood still for {milliseconds(running['downtime'])} and counts on")
    demo.wait_for_progress()
    demo.check_numbers()

    demo.title("A checkpoint that ends it, and a restart from the image")
    stopped = demo.lxc_cr("checkpoint", NAME, "--stop")
    demo.expect(demo.state() == "STOPPED", f"lxc-info says {demo.state()}")
    counted = len(demo.progress.read_text().splitlines())
    time.sleep(AWAY_SECONDS)
    restarted = demo.lxc_cr("restart", NAME)
    demo.wait_for_progress()

    demo.title("What came back")
    demo.check_numbers(after=counted)
    demo.expect(
        demo.tasks() == before, f"every process and thread has its old number: {demo.tasks()}"
    )
    demo.expect(demo.state() == "RUNNING", f"lxc-info says {demo.state()}")
    demo.expect(demo.attach("hostname") == NAME, "lxc-attach runs a command inside")
    demo.expect("login:" in demo.console(), "lxc-console: the getty on tty1 answers")

    demo.title("Back to the first image: its files are of the same instant as its memory")
    counted = len(demo.progress.read_text().splitlines())
    demo.lxc("stop", "-k")
    again = demo.lxc_cr("restart", NAME, f"{NAME}:running")
    told = again["rootfs"]["paths"]
    demo.say(f"changed since that checkpoint, and brought back: {', '.join(told)}")
    demo.expect("progress" in told, "the file that the counter writes is among them")
    demo.expect(
        len(demo.progress.read_text().splitlines()) < counted,
        "what it had written since is gone from the file, as it is from memory",
    )
    demo.wait_for_progress()
    demo.check_numbers()

    demo.title("It can be rebooted and stopped as ever")
    old, counted = demo.init_pid(), len(demo.numbers()["one"])
    demo.lxc("stop", "-r")
    demo.wait_until(lambda: demo.state() == "RUNNING" and demo.init_pid() != old, "the reboot")
    demo.wait_until(lambda: 0 < len(demo.numbers()["one"]) < counted, "a counter that begins anew")
    demo.check_numbers()
    demo.say(f"after the reboot init is process {demo.init_pid()}, the counter began at 1")
    demo.lxc("stop")
    demo.expect(demo.state() == "STOPPED", f"lxc-info says {demo.state()}")

    demo.title("In numbers")
    for what, value in (
        ("downtime of the checkpoint that left it running", milliseconds(running["downtime"])),
        ("time to restart, all in all", milliseconds(restarted["total"])),
        ("of that in the engine", milliseconds(restarted["building"] + restarted["releasing"])),
        ("size of the image", f"{stopped['size'] / 1024:.0f} KiB"),
        ("where it lies", stopped["path"] + ("" if demo.keep else " (removed now)")),
    ):
        print(f"    {what:<50} {value}")


def milliseconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.1f} ms"


class Demo:
    """The container, its lxcpath and its image store."""

    def __init__(self, *, path: Path, keep: bool) -> None:
        self.path = path
        self.keep = keep
        self.lxcpath = path / "lxc"
        self.images = path / "images"
        self.config = path / "lxc-cr.toml"
        self.rootfs = self.lxcpath / NAME / "rootfs"
        self.progress = self.rootfs / "progress"
        self.log = path / "lxc.log"

    # -- what is shown -----------------------------------------------------------------------------

    def title(self, text: str) -> None:
        print(f"\n=== {text}", flush=True)

    def say(self, text: str) -> None:
        print(f"    {text}", flush=True)

    def expect(self, good: bool, text: str) -> None:
        """Show that something is so; the demonstration ends when it is not."""
        if not good:
            raise Failed(f"Not so: {text}")
        print(f"    [ok] {text}", flush=True)

    # -- commands ----------------------------------------------------------------------------------

    def run(self, *command: str) -> str:
        """Show a command, run it, return its output."""
        print(f"  $ {' '.join(command)}", flush=True)
        return self.quietly(*command)

    def quietly(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise Failed(
                f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def lxc(self, tool: str, *arguments: str) -> str:
        return self.run(f"lxc-{tool}", "-P", str(self.lxcpath), "-n", NAME, *arguments)

    def attach(self, *command: str) -> str:
        return self.lxc("attach", "--", *command).strip()

    def info(self, *options: str) -> str:
        words = ("lxc-info", "-P", str(self.lxcpath), "-n", NAME, "-H", *options)
        return self.quietly(*words).strip()

    def state(self) -> str:
        return self.info("-s")

    def init_pid(self) -> int:
        """The host's number of the container's init; 0 when it does not run."""
        text = self.info("-p")
        return int(text) if text.isdigit() else 0

    def lxc_cr(self, *arguments: str) -> dict[str, Any]:
        """Run lxc-cr; returns the result event."""
        print(f"  $ lxc-cr {' '.join(arguments)}", flush=True)
        options = ("--json", "--config", str(self.config), "-P", str(self.lxcpath))
        done = subprocess.run(
            [str(LXC_CR), *options, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
        events: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode != 0 or not events or events[-1]["event"] != "result":
            raise Failed(
                "lxc-cr failed:\n" + "\n".join(str(event.get("message")) for event in events)
            )
        return events[-1]

    # -- the container -----------------------------------------------------------------------------

    def create(self) -> None:
        """Let LXC's own template make it, then put the counter in."""
        self.lxcpath.mkdir()
        self.config.write_text(f'store = "{self.images}"\nrun_dir = "{self.path}/run"\n')
        config = self.path / "lxc.conf"
        config.write_text(CONFIG.format(log=self.log))
        self.lxc("create", "-f", str(config), "-t", "busybox")
        self.run("gcc", "-O2", "-static", "-pthread", str(HERE / "counter.c"),
                 "-o", str(self.rootfs / "bin/counter"))  # fmt: skip
        (self.rootfs / "etc/init.d/rcS").write_text(RCS)

    def tasks(self) -> str:
        """Each process inside with the numbers of its threads, as the container sees them."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"/lxc.payload.{NAME}" not in (process / "cgroup").read_text():
                    continue
                name = (process / "comm").read_text().strip()
                found.append((sorted(map(number_inside, process.glob("task/*"))), name))
        return ", ".join(
            f"{name} {'+'.join(str(number) for number in numbers)}"
            for numbers, name in sorted(found)
        )

    def console(self) -> str:
        """Press Enter at lxc-console; returns what the terminal showed."""
        command = ["lxc-console", "-P", str(self.lxcpath), "-n", NAME, "-t", "1"]
        print(f"  $ {' '.join(command)}", flush=True)
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvp(command[0], command)
        shown = ""
        deadline = time.monotonic() + 10
        try:
            while "login:" not in shown and time.monotonic() < deadline:
                os.write(terminal, b"\r")
                while select.select([terminal], [], [], 0.5)[0]:
                    shown += os.read(terminal, 4096).decode(errors="replace")
            os.write(terminal, b"\x01q")
        except OSError:
            pass  # lxc-console has ended, what it showed is looked at by the caller
        finally:
            os.close(terminal)
            os.waitpid(pid, 0)
        return shown

    def log_errors(self) -> str:
        """What LXC had to complain about."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return "\n".join(line for line in lines if " ERROR " in line)

    def destroy(self) -> None:
        """Kill it if it still runs."""
        if (self.lxcpath / NAME / "config").exists() and self.state() != "STOPPED":
            self.quietly("lxc-stop", "-P", str(self.lxcpath), "-n", NAME, "-k")

    # -- what the counter has written --------------------------------------------------------------

    def numbers(self) -> dict[str, list[int]]:
        """The numbers that each thread has told, in the order of the file."""
        found: dict[str, list[int]] = {"one": [], "two": []}
        if self.progress.exists():
            for line in self.progress.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    name, number, _ = line.split()
                    found[name].append(int(number))
        return found

    def check_numbers(self, *, after: int = 0) -> None:
        """Not one number lost or repeated, and every sum what it must be to the last bit."""
        sums = {"one": 0.0, "two": 0.0}
        last = {"one": 0, "two": 0}
        lines = self.progress.read_text().splitlines(keepends=True)
        for line in lines:
            if not line.endswith("\n"):
                break  # being written
            name, number, total = line.split()
            last[name] += 1
            sums[name] += 1.0 / last[name]
            if int(number) != last[name] or float(total) != sums[name]:
                raise Failed(
                    f"Thread '{name}' wrote {number} {total}, not {last[name]} {sums[name]!r}"
                )
        self.expect(
            len(lines) > after,
            f"thread one counted 1 to {last['one']}, thread two 1 to {last['two']}: "
            "none lost, none repeated, both sums right to the last bit",
        )
        if after:
            self.say(f"line {after} of the file was the last before the checkpoint, {after + 1} "
                     "the first after the restart")  # fmt: skip

    def wait_for_progress(self) -> None:
        """Until both threads have told a hundred numbers more."""
        begin = {name: len(numbers) for name, numbers in self.numbers().items()}
        self.wait_until(
            lambda: all(len(n) >= begin[name] + 100 for name, n in self.numbers().items()),
            "the counter's progress",
        )

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            if time.monotonic() > deadline:
                raise Failed(f"Waited 20 s for {what}")
            time.sleep(0.05)


def number_inside(task: Path) -> int:
    """The innermost pid namespace's number of a task."""
    status = (task / "status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return int(line.split()[-1])


@contextlib.contextmanager
def place(*, keep: bool) -> Iterator[Path]:
    """A directory for everything; it stays only when asked for."""
    path = Path(tempfile.mkdtemp(prefix="lxc-cr-demo-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        if keep:
            print(f"\nEverything is kept in {path}:")
            print(f"    {LXC_CR} --config {path}/lxc-cr.toml -P {path}/lxc restart {NAME}")
        else:
            shutil.rmtree(path)


def main() -> int:
    """Tell the story; exit code 1 when it does not go as told."""
    arguments = argparse.ArgumentParser(prog="demo.sh", description=__doc__)
    arguments.add_argument("--keep", action="store_true", help="leave container and images behind")
    keep = arguments.parse_args().keep
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    with place(keep=keep) as path:
        demo = Demo(path=path, keep=keep)
        try:
            tell(demo)
        except Failed as failed:
            print(f"\n{failed}\n{demo.log_errors()}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nInterrupted", file=sys.stderr)
            return 130
        finally:
            # Once more would leave things behind.
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            demo.destroy()
    return 0


if __name__ == "__main__":
    sys.exit(main())
