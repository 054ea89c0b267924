# SPDX-License-Identifier: LGPL-2.1-or-later
"""A restart, step by step: `restart()` is the contents page.

The runtime builds the container as always. Its hook tells our engine which process is about to
become init; the engine takes that over and rebuilds out of it what the image holds. Hook and engine
meet at two fifos in a directory that nobody else can enter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from . import image as images
from . import mount_entries, native, network, pending, snapshot, unfinished
from .clocks import CONTINUE, POLICIES
from .completion import complete
from .config import FRESH, KEEP
from .container import RUNNING, STOPPED, Container, refuse_undefined
from .errors import ContainerError, ImageError, RestartError
from .in_use import hold
from .journal import RESTART, Entry, Journals, entry_of_this_process
from .lease import REMAINING, LeasePolicy
from .log import Reporter, human_time
from .manifest import Manifest
from .native import RestartResult
from .resources import hook
from .run import signals_ignored
from .store import Image

NO_SOURCES: Mapping[str, str] = {}

# How many changed paths are told to machines, and to people.
TOLD_PATHS = 1000
SHOWN_PATHS = 5

# What a busy machine does to a program every day is not worth a word, nanoseconds.
LATE = 100_000_000

# How long LXC may take to report what its container has become, seconds.
CONFIRM_TIMEOUT = 10.0


class FileChanges(NamedTuple):
    """What was different from the snapshot; `policy` says what became of it."""

    policy: str
    changed: int
    paths: tuple[str, ...]

    def summary(self) -> str:
        """For people."""
        if not self.changed:
            return "files as they were at the checkpoint"
        done = "brought back" if self.policy == snapshot.ROLLBACK else "left as they are"
        return f"{self.changed} changed files {done}: {self.examples()}"

    def examples(self) -> str:
        """The first paths."""
        shown = ", ".join(f"/{path}" for path in self.paths[:SHOWN_PATHS])
        return shown + (", ..." if self.changed > SHOWN_PATHS else "")


class Restarted(NamedTuple):
    """What runs again; `total` is what it took, nanoseconds."""

    image: Image
    total: int
    numbers: RestartResult
    files: FileChanges | None = None

    def as_json(self) -> dict[str, Any]:
        """For --json; times in nanoseconds."""
        return {
            "image": self.image.reference(),
            "digest": f"sha256:{self.image.digest}",
            "total": self.total,
            "rootfs": self.files._asdict() if self.files else None,
            **self.numbers._asdict(),
        }

    def summary(self, container: str) -> str:
        """For people."""
        n = self.numbers
        return (
            f"Container '{container}' runs again from {self.image.reference()}: "
            f"{n.processes} processes, {n.threads} threads\n"
            f"  after {human_time(self.total)} (engine: "
            f"{human_time(n.loading)} loading, {human_time(n.building + n.releasing)} building)"
            + (f"\n  {self.files.summary()}" if self.files else "")
            + (f"\n  its clocks have gone on for {human_time(n.late)}" if n.late > LATE else "")
        )


def restart(
    container: Container,
    *,
    image: Image,
    journals: Journals,
    run_dir: Path,
    timeout: float,
    report: Reporter,
    files: str = snapshot.ROLLBACK,
    full: bool = False,
    lease: LeasePolicy = REMAINING,
    time_policy: str = CONTINUE,
    sources: Mapping[str, str | None] = NO_SOURCES,
    bridges: Mapping[str, str] = NO_SOURCES,
    clone: bool = False,
    clone_network: str = FRESH,
    fault: str | None = None,
) -> Restarted:
    """Restart a stopped container from @image.

    @files says what becomes of files that were changed since: snapshot.ROLLBACK, KEEP or REFUSE;
    with @full all of them are read to find out. @time_policy is clocks.CONTINUE or WALL. @sources are
    directories of the host to be mounted instead of those of the configuration, by their places;
    @bridges are bridges instead of those, by the name of an interface or of its configured bridge. A
    @clone may have the image of another container, and its addresses if @clone_network is config.KEEP.

    If anything raises, the container is stopped, its files and the image are as before. @timeout, in seconds,
    is for the runtime to come to the point where its init is taken over.
    """
    begin = time.monotonic_ns()
    with ExitStack() as undo:
        locked = journals.locked(container=container.name, lxcpath=container.lxcpath)
        lock = undo.enter_context(locked)
        refuse_running(container)
        refuse_unknown(container, sources, bridges)
        with report.step("manifest", f"Read and check the manifest of {image.reference()}"):
            manifest = image.manifest()
            refuse_foreign(container, image, manifest, clone=clone)
            images.verify_records(image, manifest)
            net = network_of(container, image, manifest, clone_network)
        with report.step("journal", "Make the meeting place and write down where it is"):
            place = meeting_place(run_dir)
            journal = undo.enter_context(journals.written(entry_at(place, container)))
            make_fifos(place)
        with report.step("engine", "Load the image"):
            engine = undo.enter_context(
                engine_at(
                    place,
                    image=image,
                    container=container,
                    timeout=timeout,
                    lease=lease,
                    time_policy=POLICIES[time_policy],
                    report=report,
                    keep=(lock,),
                    seized=journal.seized,
                    taken_over=completing(image, manifest, net, substituted=sources, report=report),
                    released=journal.released,
                    fault=fault,
                )
            )
            images.verify_pages(image, manifest)
            engine.wait_ready()
        # The image is whole: from here on something is touched.
        with report.step("files", "Compare the files with the image's snapshot"):
            changes = bring_files(container, image, manifest, files=files, full=full, report=report)
        with report.step("start", f"Start container '{container.name}' and take over its init"):
            # It holds the lock as well: as long as it may run the hook, nobody may remove the
            # meeting place, or the hook would let a fresh init start.
            settings = network.settings_of(net, container.nics(), bridges)
            starter = undo.enter_context(
                container.start(
                    hook=hook_at(place), sources=sources, settings=settings, keep=(lock,)
                )
            )
            numbers = engine.finish(starter=starter)
        with signals_ignored(), report.step("confirm", "Ask LXC whether it runs"):
            confirm_running(container, started=starter.wait() == 0, numbers=numbers)
            journal.confirm()
        return Restarted(image, time.monotonic_ns() - begin, numbers, changes)


def entry_at(place: Path, container: Container) -> Entry:
    """What the journal says of a restart that meets its hook at @place."""
    return entry_of_this_process(
        operation=RESTART,
        container=container.name,
        lxcpath=container.lxcpath,
        meeting_place=place,
        kept=place_to_keep(container),
        promises=[pending.mark_of(container.directory)],
    )


def network_of(
    container: Container, image: Image, manifest: Manifest, clone_network: str
) -> network.State | None:
    """The network that the container is to have again, None: the host's, or whatever it gets."""
    state = network.load(image, manifest)
    if state is None or container.shares_network():
        return None
    network.import_tools()
    if manifest.container["name"] != container.name:
        # Both may run at the same time, on the same bridge.
        network.forget_identity(state, addresses=clone_network == KEEP)
    return state


def completing(
    image: Image,
    manifest: Manifest,
    net: network.State | None,
    *,
    substituted: Collection[str],
    report: Reporter,
) -> Callable[[int], None]:
    """What is done in the engine's process when the container stands and nothing in it runs yet."""

    def taken_over(init_pid: int) -> None:
        if net:
            network.put_back(init_pid, net)
        for place in complete(image, manifest, init_pid, substituted=substituted):
            report.warning(
                f"Something is mounted at '{place}' that was not at the checkpoint: unmounted inside, "
                "it comes back with every start"
            )

    return taken_over


def bring_files(
    container: Container,
    image: Image,
    manifest: Manifest,
    *,
    files: str,
    full: bool,
    report: Reporter,
) -> FileChanges | None:
    """Bring the container's files to the snapshot of @image, as far as @files says so.

    What they were is kept beside them, and returns unless the restart is confirmed. None when the
    image knows nothing of files.
    """
    if manifest.rootfs is None:
        return None
    backend = snapshot.backend_for(container.rootfs())
    snapshot.refuse_other_layout(backend, manifest)
    found = snapshot.compare(backend, image, manifest, full=full)
    loud = [change.path for change in found if not change.silent]
    changes = FileChanges(files, len(loud), tuple(loud[:TOLD_PATHS]))
    if loud:
        report.info(f"Files changed since the checkpoint: {changes.examples()}")
    if loud and files == snapshot.REFUSE:
        raise RestartError(
            f"{len(loud)} files were changed since the checkpoint: {changes.examples()}",
            hint="Write --files rollback to bring them back, or --files keep to leave them",
        )
    if found and files == snapshot.ROLLBACK:
        unfinished.note(container.directory, backend.kept)
        backend.roll_back(image, manifest, found)
    return changes


def refuse_running(container: Container) -> None:
    """Raise ContainerError unless the container exists and is stopped."""
    refuse_undefined(container)
    if container.state() != STOPPED:
        raise ContainerError(
            f"Container '{container.name}' is running",
            hint=f"Stop it first with `lxc-stop {container.address}`, "
            "or go back with `lxc-cr rollback`",
        )


def refuse_unknown(
    container: Container, sources: Mapping[str, str | None], bridges: Mapping[str, str]
) -> None:
    """Raise RestartError for a substitution that would change nothing, or that this host lacks."""
    refuse_unknown_places(container, sources)
    refuse_unknown_bridges(container, bridges)


def refuse_unknown_places(container: Container, places: Iterable[str]) -> None:
    """Raise RestartError unless the configuration has something mounted at all of these @places."""
    configured = {str(PurePosixPath("/") / place) for place in container.mount_places()}
    for place in places:
        if place not in configured:
            raise RestartError(
                f"The configuration of '{container.name}' mounts nothing at '{place}'",
                hint="It mounts something at: " + (", ".join(sorted(configured)) or "no place"),
            )


def refuse_unknown_bridges(container: Container, bridges: Mapping[str, str]) -> None:
    """Raise RestartError unless all of @bridges stand for something that is configured, and exist."""
    nics = container.nics()
    known = {name for nic in nics for name in (nic.name, nic.link) if name}
    for old, new in bridges.items():
        if old not in known:
            raise RestartError(
                f"The configuration of '{container.name}' has no network interface or bridge '{old}'",
                hint="It has: " + (", ".join(sorted(known)) or "none at all"),
            )
        if not Path("/sys/class/net", new).exists():
            raise RestartError(
                f"This host has no bridge '{new}' to be used instead of '{old}'",
                hint="`ip link show type bridge` shows what there is",
            )


def refuse_foreign(
    container: Container, image: Image, manifest: Manifest, *, clone: bool = False
) -> None:
    """Raise ImageError when the image cannot be restarted by this version as this container.

    A @clone may have the image of any container.
    """
    manifest.check_requires(known=(*native.kinds(), network.FEATURE))
    mount_entries.refuse_forged(manifest)
    name = manifest.container["name"]
    # An image that lies with this container has followed it when it was copied.
    if container.name not in (name, image.container) and not clone:
        raise ImageError(f"The image is of container '{name}', not of '{container.name}'")
    machine = manifest.host["machine"]
    if machine != os.uname().machine:
        raise ImageError(
            f"The image is of a {machine} machine, this one is {os.uname().machine}",
            hint="Restart it on a machine like the one it was made on",
        )


def meeting_place(run_dir: Path) -> Path:
    """A path for the meeting place. Never used again: hooks of later reboots look for it."""
    return run_dir / f"meet-{os.urandom(8).hex()}"


def place_to_keep(container: Container) -> Path | None:
    """Where the previous state of the files will be kept, after what an old restart has left there."""
    kept = snapshot.kept_beside(container.rootfs())
    if kept:
        snapshot.repair(kept, confirmed=None)
    return kept


def hook_at(place: Path) -> list[str]:
    """The command by which the runtime comes to the meeting @place."""
    return ["/bin/sh", str(hook("lxc-start-host")), str(place)]


def make_fifos(place: Path) -> None:
    """Make the meeting place; the fifos last, because the hook takes them as an invitation."""
    place.mkdir(mode=0o700)
    for name in ("reply", "request"):
        os.mkfifo(place / name, mode=0o600)


@contextmanager
def engine_at(
    place: Path,
    *,
    image: Image,
    container: Container,
    timeout: float,
    lease: LeasePolicy,
    time_policy: int,
    report: Reporter,
    keep: tuple[int, ...],
    seized: Callable[[int], None],
    taken_over: Callable[[int], None],
    released: Callable[[], None],
    fault: str | None,
) -> Iterator[native.Restart]:
    """An engine that loads @image and then waits at @place; called off at the end if it runs."""
    with ExitStack() as undo:
        # Both for reading and writing: opening never waits for the hook, which may never come.
        # Only the engine keeps them, so that a hook sees an end of file when the engine dies.
        ends = [_open(undo, place / name, os.O_RDWR) for name in ("request", "reply")]
        image_fd = hold(image.path)
        undo.callback(os.close, image_fd)
        engine = native.Restart(
            image_fd=image_fd,
            request_fd=ends[0],
            reply_fd=ends[1],
            cgroup_hint=container.cgroup_hint(),
            timeout=timeout,
            lease=lease,
            time_policy=time_policy,
            listener=report,
            seized=seized,
            taken_over=taken_over,
            released=released,
            keep=keep,
            fault=fault,
        )
    with engine:
        yield engine


def _open(undo: ExitStack, path: Path, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC)
    undo.callback(os.close, fd)
    return fd


def confirm_running(container: Container, *, started: bool, numbers: RestartResult) -> None:
    """Raise RestartError unless the runtime has the container running with the engine's init."""
    running = started and container.wait_for(RUNNING, timeout=CONFIRM_TIMEOUT)
    if not running:
        raise RestartError(
            f"The processes were restored, but container '{container.name}' is "
            f"{container.state()} afterwards",
            hint="Look into LXC's log of the container",
        )
    if container.init_pid() != numbers.init_pid:
        raise RestartError(
            f"LXC takes process {container.init_pid()} for the init of '{container.name}', "
            f"the engine restored {numbers.init_pid}",
            hint="Was the container rebooted just now? Restart it again",
        )
