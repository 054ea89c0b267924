# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: arguments to one call, its outcome to text and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from . import __version__, config
from .config import Settings
from .errors import ContainerError, HostError, LxcCrError, UsageError, exit_codes
from .lease import REMAINING, LeasePolicy
from .log import Reporter
from .run import signals_cancel

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .container.lxc import LxcContainer
    from .journal import Entry, Journals
    from .restore import Restarted
    from .store import Image, Reference, Store

FAULT_VARIABLE = "LXC_CR_FAULT"


class Session:
    """What every command works with, made when it is first needed."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings, report: Reporter) -> None:
        self.arguments = arguments
        self.settings = settings
        self.report = report
        self.fault = os.environ.get(FAULT_VARIABLE)
        self.deleted_file_limit = settings.deleted_file_limit << 20

    def store(self) -> Store:
        """The image store, without what killed commands had begun to write."""
        from .store import Store

        store = Store(root=self.settings.store, buffer=self.settings.buffer_dir)
        store.sweep()
        return store

    def journals(self) -> Journals:
        """The journals, after what killed commands have left was repaired."""
        from .journal import Journals

        journals = Journals(
            run_dir=self.settings.run_dir, report=self.report, stop_container=stop_container
        )
        journals.repair()
        return journals

    def container(self) -> LxcContainer:
        """The container that the command names."""
        return open_container(self.arguments.name, self.settings.lxcpath)


def open_container(name: str, lxcpath: str | None) -> LxcContainer:
    """A container of LXC; HostError when Python's binding of LXC is not there."""
    try:
        from .container.lxc import LxcContainer
    except ImportError as error:
        raise HostError(
            f"Python's binding of LXC does not load: {error}",
            hint="Install it into the same Python: pip install lxc (needs lxc-dev)",
        ) from error
    return LxcContainer(name=name, lxcpath=lxcpath)


def stop_container(entry: Entry) -> bool:
    """End the container that a failed restart has left; False when it did not run.

    Only the init that the restart has taken over is ended: somebody else may have started the
    container before or since. Raises ContainerError when that one runs on files that the restart
    has exchanged, which cannot be brought back under it.
    """
    from .container import STOPPED, settle
    from .run import kill_process

    ended = entry.init is not None and kill_process(entry.init, started=entry.init_started)
    container = open_container(entry.container, entry.lxcpath)
    settle(container, ended=entry.init)
    if entry.kept and Path(entry.kept).exists() and container.state() != STOPPED:
        raise ContainerError(
            f"Container '{entry.container}' was started by somebody else, with files that a restart "
            "had exchanged",
            hint=f"`lxc-stop {container.address}`: the next lxc-cr brings its files back",
        )
    return ended


def checkpoint(session: Session) -> int:
    """lxc-cr checkpoint NAME."""
    from .store import Reference

    arguments = session.arguments
    reference = Reference.parse(arguments.image or arguments.name, container=arguments.name)
    if reference.digest:
        raise UsageError("A new image cannot be given its digest", hint="Write --image NAME:TAG")
    done = make_image(
        session,
        reference,
        stop=arguments.stop,
        buffered=arguments.buffered,
        files=arguments.files or session.settings.files,
    )
    session.report.result(
        {"command": "checkpoint", **done.as_json()}, text=done.summary(stopped=arguments.stop)
    )
    return 0


def make_image(
    session: Session, reference: Reference, *, stop: bool, buffered: bool, files: str
) -> Checkpoint:
    """Checkpoint the container that the command names."""
    from .checkpoint import checkpoint as run

    return run(
        session.container(),
        reference=reference,
        stop=stop,
        buffered=buffered,
        deleted_file_limit=session.deleted_file_limit,
        files=files,
        store=session.store(),
        journals=session.journals(),
        report=session.report,
        fault=session.fault,
    )


def start_from(
    session: Session,
    image: Image,
    *,
    files: str,
    full: bool = False,
    lease: LeasePolicy = REMAINING,
) -> Restarted:
    """Restart the container that the command names."""
    from .restore import restart as run

    return run(
        session.container(),
        image=image,
        journals=session.journals(),
        run_dir=session.settings.run_dir,
        timeout=session.settings.restart_timeout,
        files=files,
        full=full,
        lease=lease,
        report=session.report,
        fault=session.fault,
    )


def restart(session: Session) -> int:
    """lxc-cr restart NAME [REF]."""
    from .store import Reference

    arguments = session.arguments
    lease = LeasePolicy.parse(arguments.lease)
    reference = Reference.parse(arguments.reference or arguments.name, container=arguments.name)
    done = start_from(
        session,
        session.store().resolve(reference),
        files=arguments.files,
        full=arguments.verify == "full",
        lease=lease,
    )
    session.report.result(
        {"command": "restart", **done.as_json()}, text=done.summary(arguments.name)
    )
    return 0


def rollback(session: Session) -> int:
    """lxc-cr rollback NAME [REF]."""
    from .rollback import BEFORE, roll_back
    from .snapshot import ROLLBACK
    from .store import Reference

    name = session.arguments.name
    reference = Reference.parse(session.arguments.reference or name, container=name)
    if reference.tag == BEFORE and not session.arguments.no_checkpoint:
        raise UsageError(
            f"'{reference}' is about to name what runs now",
            hint="Write --no-checkpoint, or name the image by its digest",
        )

    def end() -> Image:
        made = make_image(
            session,
            Reference(name, BEFORE),
            stop=True,
            buffered=False,
            files=session.settings.files,
        )
        return made.image

    session.journals()
    done = roll_back(
        session.container(),
        image=session.store().resolve(reference),
        end=None if session.arguments.no_checkpoint else end,
        restart=lambda image: start_from(session, image, files=ROLLBACK),
        report=session.report,
    )
    session.report.result({"command": "rollback", **done.as_json()}, text=done.summary(name))
    return 0


def check(session: Session) -> int:
    """lxc-cr check NAME."""
    from .check import examine, find_obstacles, refuse

    container = session.container()
    session.journals()
    found = find_obstacles(
        container,
        examine(container),
        deleted_file_limit=session.deleted_file_limit,
        report=session.report,
    )
    refuse(container, found)
    session.report.result(
        {"command": "check", "container": container.name, "obstacles": 0},
        text=f"Container '{container.name}' can be checkpointed now",
    )
    return 0


def ls(session: Session) -> int:
    """lxc-cr ls [NAME]."""
    from .listing import rows, table

    session.journals()
    found = rows(session.store().images(), container=session.arguments.name)
    session.report.result({"command": "ls", "images": found}, text=table(found))
    return 0


def inspect(session: Session) -> int:
    """lxc-cr inspect REF."""
    from .image import read_records, verify_by_engine, verify_pages, verify_records
    from .listing import image_as_json, image_text
    from .store import Reference

    session.journals()
    image = session.store().resolve(Reference.parse(session.arguments.reference))
    manifest = image.manifest()
    with session.report.step("verify", f"Verify {image.reference()}"):
        verify_records(image, manifest)
        verify_pages(image, manifest)
        verify_by_engine(image, listener=session.report)
    records = read_records(image.path)
    session.report.result(
        {"command": "inspect", **image_as_json(image, manifest, records)},
        text=image_text(image, manifest, records),
    )
    return 0


def verify(session: Session) -> int:
    """lxc-cr verify REF."""
    from .image import verify_all
    from .store import Reference

    session.journals()
    image = session.store().resolve(Reference.parse(session.arguments.reference))
    with session.report.step("verify", f"Read all of {image.reference()}"):
        verify_all(image, listener=session.report)
    session.report.result(
        {"command": "verify", "digest": f"sha256:{image.digest}"},
        text=f"Image {image.reference()} is as it was written",
    )
    return 0


def prune(session: Session) -> int:
    """lxc-cr prune [NAME]."""
    from .prune import Rules, superfluous

    arguments = session.arguments
    if arguments.keep_last is None and arguments.keep_days is None:
        raise UsageError(
            "Nothing says which images to keep", hint="Give --keep-last, --keep-days or both"
        )
    session.journals()
    store = session.store()
    rules = Rules(arguments.keep_last, arguments.keep_days, arguments.tagged)
    images = [i for i in store.images() if arguments.name in (None, i.container)]
    found = superfluous(images, rules)
    for image in found:
        if not arguments.dry_run:
            store.remove(image)
    names = [f"{image.container}@sha256:{image.digest[:12]}" for image in found]
    verb = "Would remove" if arguments.dry_run else "Removed"
    session.report.result(
        {
            "command": "prune",
            "dry_run": arguments.dry_run,
            "digests": [f"sha256:{image.digest}" for image in found],
        },
        text="\n".join(f"{verb} {name}" for name in names) or "Nothing to remove",
    )
    return 0


def export(session: Session) -> int:
    """lxc-cr export REF [FILE]."""
    from .store import Reference, writing
    from .transfer import export_image

    session.journals()
    image = session.store().resolve(Reference.parse(session.arguments.reference))
    file = session.arguments.file
    if file == "-":
        if sys.stdout.isatty():
            raise UsageError("An image is not for a terminal", hint="Name a file, or pipe it")
        export_image(image, sys.stdout.buffer)
        return 0
    with writing(f"Failed to write '{file}'"):
        # An image holds all secrets of a container.
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as stream:
            export_image(image, stream)
    session.report.result(
        {"command": "export", "digest": f"sha256:{image.digest}", "file": file},
        text=f"Image {image.reference()} is in {file}",
    )
    return 0


def import_(session: Session) -> int:
    """lxc-cr import [FILE]."""
    from .store import TAG, writing
    from .transfer import import_image

    arguments = session.arguments
    if arguments.tag and not TAG.fullmatch(arguments.tag):
        raise UsageError(f"'{arguments.tag}' cannot be a tag")
    session.journals()
    store = session.store()
    with contextlib.ExitStack() as undo:
        stream: BinaryIO = sys.stdin.buffer
        if arguments.file != "-":
            with writing(f"Failed to read '{arguments.file}'"):
                stream = undo.enter_context(Path(arguments.file).open("rb"))
        image = import_image(
            stream,
            store=store,
            tag=arguments.tag,
            buffered=arguments.buffered,
            listener=session.report,
        )
    session.report.result(
        {"command": "import", "digest": f"sha256:{image.digest}", "path": str(image.path)},
        text=f"Image {image.reference()} is in {image.path}",
    )
    return 0


def rm(session: Session) -> int:
    """lxc-cr rm REF..."""
    from .store import Reference

    session.journals()
    store = session.store()
    for text in session.arguments.reference:
        image = store.resolve(Reference.parse(text))
        store.remove(image)
        session.report.result(
            {"command": "rm", "digest": f"sha256:{image.digest}", "tags": list(image.tags)},
            text=f"Removed {image.container}@sha256:{image.digest[:12]}"
            + "".join(f" {image.container}:{tag}" for tag in image.tags),
        )
    return 0


def flush(session: Session) -> int:
    """lxc-cr flush REF."""
    from .store import Reference

    session.journals()
    store = session.store()
    image = store.flush(store.resolve(Reference.parse(session.arguments.reference)))
    session.report.result(
        {"command": "flush", "digest": f"sha256:{image.digest}", "path": str(image.path)},
        text=f"Image {image.reference()} is in {image.path}",
    )
    return 0


def epilog() -> str:
    """The end of the help text: references and exit codes."""
    lines = [f"  {code:>3}  {meaning}" for code, meaning in exit_codes()]
    return "\n".join(
        [
            "an image REF is NAME (its latest), NAME:TAG or NAME@sha256:DIGEST (8 digits or more)",
            "",
            "exit codes:",
            *lines,
        ]
    )


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    add = common.add_argument
    add("-P", "--lxcpath", metavar="DIR", help="where LXC keeps its containers")
    add("--store", metavar="DIR", help="where images lie (default: /var/lib/lxc-cr)")
    add("--config", metavar="FILE", type=Path, help="instead of /etc/lxc-cr.toml")
    add("--json", action="store_true", help="one JSON object per line on stdout")
    add("--debug", action="store_true", help="show every step before it runs")
    top = argparse.ArgumentParser(
        prog="lxc-cr",
        description="Checkpoint running LXC containers and restart them.",
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    top.add_argument("--version", action="version", version=f"lxc-cr {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        run: Callable[[Session], int], text: str, *, aliases: tuple[str, ...] = ()
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(
            run.__name__.rstrip("_"),
            aliases=list(aliases),
            help=text,
            description=text,
            parents=[common],
        )
        made.set_defaults(run=run)
        return made

    add_commands(command)
    return top


def not_negative(text: str) -> int:
    """A count on the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number")
    return int(text)


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """All commands with their options, in the order of the help text."""
    one = command(checkpoint, "Checkpoint a running container.")
    one.add_argument("name", metavar="NAME", help="the container")
    one.add_argument("--stop", action="store_true", help="end it at the instant of the image")
    one.add_argument("--image", metavar="REF", help="name of the image (default: NAME:latest)")
    one.add_argument(
        "--buffered", action="store_true", help="leave the image in memory until `lxc-cr flush`"
    )
    one.add_argument(
        "--files",
        choices=("snapshot", "none"),
        help="take the container's files too, or not (default: snapshot)",
    )
    one = command(restart, "Restart a stopped container from an image.", aliases=("restore",))
    one.add_argument("name", metavar="NAME", help="the container")
    one.add_argument("reference", metavar="REF", nargs="?", help="default: NAME:latest")
    one.add_argument(
        "--files",
        choices=("rollback", "keep", "refuse"),
        default="rollback",
        help="what to do about files that were changed since the checkpoint: bring them back "
        "(the default), leave them, or refuse to restart",
    )
    one.add_argument(
        "--verify",
        choices=("quick", "full"),
        default="quick",
        help="how to find them: by their times (the default), or by reading all of them",
    )
    one.add_argument(
        "--lease",
        metavar="WHOM",
        default="remaining",
        help="what is left to the holder of a file lease that is being broken: remaining (what was "
        "left), holder (at least a whole lease-break-time), breaker (nothing), +SECONDS more",
    )
    one = command(rollback, "Bring a container back to an image, from whatever it is doing.")
    one.add_argument("name", metavar="NAME", help="the container")
    one.add_argument("reference", metavar="REF", nargs="?", help="default: NAME:latest")
    one.add_argument(
        "--no-checkpoint",
        action="store_true",
        help="kill what runs, instead of keeping it as NAME:before-rollback",
    )
    one = command(check, "Say what stands in the way of a checkpoint; stops nothing.")
    one.add_argument("name", metavar="NAME", help="the container")
    one = command(ls, "List images.")
    one.add_argument("name", metavar="NAME", nargs="?", help="only those of this container")
    one = command(inspect, "Verify an image and show what it holds.")
    one.add_argument("reference", metavar="REF", help="the image")
    one = command(verify, "Read all of an image, files and memory: is it as it was written.")
    one.add_argument("reference", metavar="REF", help="the image")
    one = command(prune, "Remove images that no rule keeps; tagged ones only with --tagged.")
    one.add_argument("name", metavar="NAME", nargs="?", help="only those of this container")
    one.add_argument(
        "--keep-last", type=not_negative, metavar="N", help="keep the newest N of each container"
    )
    one.add_argument(
        "--keep-days", type=not_negative, metavar="N", help="keep those of the last N days"
    )
    one.add_argument("--tagged", action="store_true", help="remove tagged ones too")
    one.add_argument("--dry-run", action="store_true", help="only say what would go")
    one = command(export, "Write an image as one stream.")
    one.add_argument("reference", metavar="REF", help="the image")
    one.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: stdout")
    one = command(import_, "Verify an exported image and add it to the store.")
    one.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: stdin")
    one.add_argument("--tag", help="its tag here (default: latest)")
    one.add_argument("--buffered", action="store_true", help="leave it in memory")
    one = command(rm, "Remove images and the tags that point to them.")
    one.add_argument("reference", metavar="REF", nargs="+", help="the images")
    one = command(flush, "Write a buffered image to the disk.")
    one.add_argument("reference", metavar="REF", help="the image")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = parser().parse_args(argv)
    given = vars(arguments)
    report = Reporter(
        json_lines=given.get("json", False),
        debug=given.get("debug", False),
        fault=os.environ.get(FAULT_VARIABLE),
    )
    try:
        with signals_cancel():
            refuse_user()
            settings = config.load(
                file=given.get("config"), store=given.get("store"), lxcpath=given.get("lxcpath")
            )
            code: int = arguments.run(Session(arguments, settings, report))
    except LxcCrError as error:
        report.error(error)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # A bug: say so in a form that machines understand as well, and where with --debug.
        if report.debugging:
            traceback.print_exc()
        failure = LxcCrError(
            f"Internal error: {type(error).__name__}: {error}",
            hint="Please report it, with the output of the same command and --debug",
        )
        report.error(failure)
        return failure.exit_code
    finally:
        report.close()
    return code


def refuse_user() -> None:
    """Raise HostError unless we are root."""
    if os.geteuid() != 0:
        raise HostError("lxc-cr must run as root", hint="Use sudo")
