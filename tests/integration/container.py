# SPDX-License-Identifier: LGPL-2.1-or-later
"""A busybox container for one test, made in a few milliseconds, and lxc-cr run on it.

A Laboratory holds what one test session shares: a directory, the busybox tree, the compiled victims
and an image store. A Container is a hard-linked copy of that tree with its own LXC configuration.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from .preloaded import Preloaded

HERE = Path(__file__).parent
VICTIMS = HERE / "victims"
LXC_CR = Path(sys.executable).parent / "lxc-cr"

# Every process that a test starts has this in its environment: how leaks are found.
SESSION_VARIABLE = "CR_TEST_SESSION"

CONFIG = """\
lxc.uts.name = {name}
lxc.rootfs.path = dir:{rootfs}
lxc.net.0.type = empty
lxc.autodev = 1
lxc.tty.max = 2
lxc.pty.max = 8
lxc.signal.halt = SIGUSR1
lxc.signal.reboot = SIGTERM
lxc.cap.drop = sys_module mac_admin mac_override sys_time
lxc.apparmor.profile = unconfined
lxc.mount.auto = cgroup:mixed proc:mixed sys:ro
lxc.mount.entry = shm dev/shm tmpfs defaults,create=dir 0 0
"""


class VictimError(AssertionError):
    """A victim found its state changed; the text is its own."""


def wait_until(condition, *, what: str, timeout: float = 60):
    """Call condition until it gives something true, and return that."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.01)


def run(*command: object, check: bool = True, timeout: float = 240, **options):
    """Run a command to its end; its output is in the error when it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(str(word) for word in command)}: exit code {done.returncode}\n"
            f"{done.stdout}{done.stderr}"
        )
    return done


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run of lxc-cr gave."""

    code: int
    events: list[dict]
    stderr: str

    @property
    def result(self) -> dict:
        """The last event: the result, or the error."""
        return self.events[-1] if self.events else {}

    @property
    def log(self) -> list[str]:
        """The lines of the log."""
        return [event["text"] for event in self.events if event["event"] == "log"]

    @property
    def text(self) -> str:
        """Everything a user would have seen."""
        return "\n".join([*(json.dumps(event) for event in self.events), self.stderr])


@dataclass(kw_only=True)
class Laboratory:
    """What the containers of one session share."""

    path: Path
    session: str
    built: dict[str, Path] = field(default_factory=dict)
    preloaded: Preloaded | None = None  # what commands are forked from, if they are

    @property
    def lxcpath(self) -> Path:
        return self.path / "lxc"

    @property
    def store(self) -> Path:
        return self.path / "store"

    @property
    def base(self) -> Path:
        return self.path / "base"

    def link(self, letters: str) -> str:
        """The name of a network interface of this session on the host, told apart by @letters."""
        return f"cr{self.number}{letters}"

    def is_link(self, name: str) -> bool:
        """Whether @name is one of `link`."""
        return re.fullmatch(rf"cr{self.number}[a-z]+", name) is not None

    @property
    def number(self) -> int:
        """The session's number, as short as the name of an interface needs it."""
        return int(self.session.removeprefix("crt")) % 10**7

    @property
    def environment(self) -> dict[str, str]:
        variables = {**os.environ, SESSION_VARIABLE: self.session}
        # As where it is installed: compiled once, not by every command.
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        return variables

    @property
    def config(self) -> Path:
        return self.path / "lxc-cr.toml"

    @property
    def buffer(self) -> Path:
        return Path("/dev/shm") / self.session

    @property
    def run_dir(self) -> Path:
        return self.path / "run"

    def prepare(self) -> None:
        """Make the directories and the tree that all containers start from."""
        self.path.chmod(0o755)
        self.lxcpath.mkdir()
        self.base.mkdir()
        make_tree(self.base)
        self.config.write_text(
            f'store = "{self.store}"\nrun_dir = "{self.run_dir}"\nbuffer_dir = "{self.buffer}"\n'
        )

    def remove(self) -> None:
        """Remove what does not lie in the directory; all containers are destroyed by now."""
        shutil.rmtree(self.buffer, ignore_errors=True)

    def compile_victims(self, names: Iterable[str]) -> None:
        """Compile them by all processors at once; `compile` finds them made."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda name: self.compile(VICTIMS / f"{name}.c"), names))

    def compile(
        self,
        source: Path,
        *flags: str,
        libraries: tuple[str, ...] = (),
        libc: str = "glibc",
    ) -> Path:
        """A static program, compiled once per session; @libraries without their lib."""
        other = [] if libc == "glibc" else [libc]
        name = "-".join([source.stem, *(flag.strip("-=") for flag in flags), *other])
        if name not in self.built:
            target = self.path / "bin" / name
            target.parent.mkdir(exist_ok=True)
            run(
                *COMPILERS[libc], "-std=gnu11", "-D_GNU_SOURCE", "-static", "-O2", "-g", "-pthread", "-Wall", "-Wextra",
                "-Werror", "-Wno-format-truncation", *flags, "-o", target, source,
                *(f"-l{library}" for library in (*libraries, "m")),
            )  # fmt: skip
            self.built[name] = target
        return self.built[name]


# musl has no headers of the kernel's own.
COMPILERS = {
    "glibc": ["gcc"],
    "musl": [
        "musl-gcc",
        *("-idirafter", "/usr/include"),
        *("-idirafter", "/usr/include/x86_64-linux-gnu"),
    ],
}


def make_tree(root: Path) -> None:
    """A busybox root file system: what LXC's busybox template makes, without its daemons."""
    for directory in (
        "bin", "sbin", "etc/init.d", "dev", "proc", "sys", "root", "mnt", "var/run", "victims",
    ):  # fmt: skip
        (root / directory).mkdir(parents=True)
    for directory in ("tmp", "status"):
        (root / directory).mkdir()
        (root / directory).chmod(0o1777)
    busybox = root / "bin/busybox"
    shutil.copy("/bin/busybox", busybox)
    for applet in run(busybox, "--list").stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "sbin/init").symlink_to("../bin/busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:root\n")


@dataclass(kw_only=True)
class Container:
    """One container and what a test does to it."""

    laboratory: Laboratory
    name: str
    lines: list[str] = field(default_factory=list)  # of its inittab
    # What it needs around it: left when it is gone. Of several containers the last one that was made goes
    # first, so what changes the same for two of them must be entered in the order in which they were made.
    scope: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def directory(self) -> Path:
        return self.laboratory.lxcpath / self.name

    @property
    def rootfs(self) -> Path:
        return self.directory / "rootfs"

    @property
    def log(self) -> Path:
        return self.directory / "lxc.log"

    # -- before the start --------------------------------------------------------------------------

    def make(self, tree: Path) -> None:
        """Link the tree; write the configuration."""
        self.directory.mkdir()
        run("cp", "-al", tree, self.rootfs)
        # What a container writes to must not be shared with the others.
        for file in ("etc/passwd", "etc/group"):
            text = (self.rootfs / file).read_bytes()
            (self.rootfs / file).unlink()
            (self.rootfs / file).write_bytes(text)
        (self.directory / "config").write_text(CONFIG.format(name=self.name, rootfs=self.rootfs))

    def configure(self, *lines: str) -> None:
        """Add lines to the configuration."""
        with (self.directory / "config").open("a") as config:
            config.writelines(f"{line}\n" for line in lines)

    def load_seccomp(self, *lines: str) -> None:
        """Have LXC load a seccomp filter that forbids what these lines name."""
        profile = self.directory / "seccomp"
        profile.write_text("\n".join(["2", "denylist", "[all]", *lines]) + "\n")
        self.configure(f"lxc.seccomp.profile = {profile}")

    def install(self, program: Path, target: str) -> None:
        """Link a program into the root file system."""
        path = self.rootfs / target.lstrip("/")
        if path.exists():
            return
        try:
            os.link(program, path)
        except OSError:  # another file system
            shutil.copy(program, path)

    def add_program(self, command: str, *, tty: str = "") -> None:
        """Have init run a command once, with the console or a tty as its terminal."""
        self.lines.append(f"{tty}::once:{command}")

    def add_victim(self, name: str, *arguments: str, tty: str = "", status: str = "") -> "Victim":
        """Have init run a victim; arguments come after the path of its status file."""
        program = self.laboratory.compile(VICTIMS / f"{name}.c")
        return self.add_program_as_victim(program, *arguments, tty=tty, status=status)

    def add_program_as_victim(
        self, program: Path, *arguments: str, tty: str = "", status: str = ""
    ) -> "Victim":
        """The same for a program that was compiled elsewhere."""
        self.install(program, f"/victims/{program.name}")
        victim = Victim(container=self, name=status or program.name)
        words = [f"/victims/{program.name}", f"/status/{victim.name}", *arguments]
        self.add_program(" ".join(words), tty=tty)
        return victim

    # -- the life of a container -------------------------------------------------------------------

    def lxc(self, tool: str, *arguments: object, **options):
        """Run one of LXC's own tools on this container."""
        return run(
            f"lxc-{tool}", "-P", self.laboratory.lxcpath, "-n", self.name, *arguments,
            env=self.laboratory.environment, **options,
        )  # fmt: skip

    def start(self) -> None:
        """Start it as a daemon; the programs run when this returns, or soon after."""
        (self.rootfs / "etc/inittab").write_text("".join(f"{line}\n" for line in self.lines))
        self.lxc("start", "-d", "-o", self.log, "-l", "DEBUG")

    def stop(self) -> None:
        """Kill it, as lxc-stop -k does."""
        self.lxc("stop", "-k", check=False)

    def attach(self, *command: str, **options) -> str:
        """Run a command inside, give its output."""
        return self.lxc("attach", "--clear-env", "--", *command, **options).stdout

    @property
    def state(self) -> str:
        """RUNNING, STOPPED, FROZEN and so on, as lxc-info says it."""
        return self.lxc("info", "-s", "-H").stdout.strip()

    @property
    def init_pid(self) -> int:
        """The host's pid of the container's init."""
        return int(self.lxc("info", "-p", "-H").stdout)

    @property
    def cgroups(self) -> list[Path]:
        """Its payload cgroups, in every hierarchy."""
        mounts = [
            Path(line.split()[4])
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if " - cgroup" in line
        ]
        return [
            directory
            for mount in mounts
            for directory in mount.glob(f"lxc.payload.{self.name}*")
            # LXC adds a number when a directory of that name is still there.
            if re.fullmatch(rf"lxc\.payload\.{self.name}(-\d+)?", directory.name)
        ]

    @property
    def processes(self) -> dict[int, str]:
        """Everything that runs inside: host pid and name."""
        pids = {
            int(pid)
            for cgroup in self.cgroups
            for procs in cgroup.rglob("cgroup.procs")
            for pid in procs.read_text().split()
        }
        names = {}
        for pid in sorted(pids):
            with contextlib.suppress(OSError):
                names[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
        return names

    def destroy(self) -> None:
        """Leave nothing of it, whatever state it is in."""
        self.thaw()
        if self.directory.exists():
            self.stop()
        for pid in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        wait_until(lambda: not self.processes, what=f"the end of {self.name}")
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.laboratory.store / self.name, ignore_errors=True)

    def remove_monitor_cgroups(self) -> bool:
        """What LXC leaves of a failed start of its own, without lxc-cr; True when they are gone."""
        root, name = Path("/sys/fs/cgroup"), f"lxc.monitor.{self.name}"
        left = [*root.glob(f"*/{name}"), *root.glob(name)]
        for cgroup in left:
            with contextlib.suppress(OSError):
                cgroup.rmdir()
        return not left

    def thaw(self) -> None:
        """Undo a freeze that a broken checkpoint has left."""
        for cgroup in self.cgroups:
            for file, text in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                if (cgroup / file).exists():
                    (cgroup / file).write_text(text)

    # -- lxc-cr ------------------------------------------------------------------------------------

    def command(self, verb: str, *arguments: object) -> list[str]:
        """The words of an lxc-cr command on this container."""
        return [
            str(word)
            for word in (
                LXC_CR, "--json", "--config", self.laboratory.config,
                "-P", self.laboratory.lxcpath, verb, *arguments,
            )
        ]  # fmt: skip

    def spawn(self, verb: str, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        """Start lxc-cr and do not wait for it; variables go to its environment."""
        return subprocess.Popen(
            self.command(verb, *arguments),
            env={**self.laboratory.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def try_cr(
        self, verb: str, *arguments: object, timeout: float = 240, **variables: str
    ) -> Outcome:
        """Run lxc-cr to its end, whatever that is."""
        command = self.command(verb, *arguments)
        environment = {**self.laboratory.environment, **variables}
        preloaded = self.laboratory.preloaded
        if preloaded:
            done = preloaded.run(command, environment=environment, timeout=timeout)
        else:
            done = run(
                *command, env=environment, check=False, stdin=subprocess.DEVNULL, timeout=timeout
            )
        events = []
        for line in done.stdout.splitlines():
            # A command that was killed leaves half a line.
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
        return Outcome(code=done.returncode, events=events, stderr=done.stderr)

    def cr(self, verb: str, *arguments: object, **options) -> Outcome:
        """Run lxc-cr; it must succeed."""
        outcome = self.try_cr(verb, *arguments, **options)
        assert outcome.code == 0, f"lxc-cr {verb}: exit code {outcome.code}\n{outcome.text}"
        return outcome

    @property
    def images(self) -> list[dict]:
        """Its images, as lxc-cr ls lists them; every command repairs what killed ones have left."""
        return self.cr("ls", self.name).result["images"]

    def checkpoint(self, *arguments: object) -> Outcome:
        return self.cr("checkpoint", self.name, *arguments)

    def restart(self, *arguments: object) -> Outcome:
        return self.cr("restart", self.name, *arguments)


@dataclass(kw_only=True)
class Victim:
    """A program that builds some state, waits, and says whether it found it again."""

    container: Container
    name: str

    @property
    def status(self) -> Path:
        return self.container.rootfs / "status" / self.name

    @property
    def lines(self) -> list[str]:
        return self.status.read_text().splitlines() if self.status.exists() else []

    def _line(self, wanted: str) -> bool:
        lines = self.lines
        for line in lines:
            if line.startswith("FAIL"):
                raise VictimError(f"{self.name}: {line}")
        return wanted in lines

    def wait_for(self, line: str, timeout: float = 60) -> None:
        """Until the victim has written this line; its failure is raised."""
        try:
            wait_until(lambda: self._line(line), what=f"{self.name}: '{line}'", timeout=timeout)
        except TimeoutError as error:
            error.add_note(f"status: {self.lines}, processes: {self.container.processes}")
            raise

    def ready(self) -> None:
        self.wait_for("ready")

    def go(self) -> None:
        """Let it verify."""
        self.status.with_name(self.status.name + ".go").touch()

    def verify(self, timeout: float = 60) -> None:
        """It must find everything as it was."""
        self.go()
        self.wait_for("ok", timeout=timeout)
        for line in self.lines:
            if line.startswith("slow"):
                print(f"{self.container.name}, {line}: not all was looked at")


@contextlib.contextmanager
def container(
    laboratory: Laboratory, name: str, *, tree: Path | None = None
) -> Iterator[Container]:
    """A container, of busybox or a copy of tree, that is gone at the end, whatever happened to it."""
    with contextlib.ExitStack() as scope:
        box = Container(laboratory=laboratory, name=name, scope=scope)
        box.make(tree or laboratory.base)
        try:
            yield box
        finally:
            box.destroy()
