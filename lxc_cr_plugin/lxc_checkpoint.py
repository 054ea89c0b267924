# SPDX-License-Identifier: LGPL-2.1-or-later
"""lxc-checkpoint and lxc-restart: the command lines that people know, with this engine behind them.

The options are those of LXC's own lxc-checkpoint(1). The directory of -D is an image store of its
own, with the one image in it: `lxc-cr --store DIR inspect NAME` looks into it.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, TextIO

from . import __version__
from .cli import guarded
from .config import refuse_empty
from .errors import LxcCrError, StoreError, UsageError, os_message
from .lease import LeasePolicy
from .log import DEBUG, ERROR, INFO, WARNING, Reporter, printable, say
from .run import hold_standard_descriptors, signals_ignored
from .session import Session

if TYPE_CHECKING:
    from .container.foreground import ForegroundContainer

# LXC's names for priorities to ours; the first of several is what a log shows.
PRIORITIES = {
    "ERROR": ERROR,
    "FATAL": ERROR,
    "ALERT": ERROR,
    "CRIT": ERROR,
    "WARN": WARNING,
    "INFO": INFO,
    "NOTICE": INFO,
    "DEBUG": DEBUG,
    "TRACE": DEBUG,
}

# What to do instead of having CRIU send pages to another host.
EXPORT = (
    "checkpoint into a directory DIR of this host; "
    "`lxc-cr export NAME --store DIR | ssh HOST lxc-cr import` sends it to another one"
)

# Options of lxc-checkpoint, and of the calls behind it, that mean something for CRIU alone, and what to
# do instead.
REFUSED = {
    "action_script": (
        "-A",
        "there is nothing that a script would have to set up: LXC starts the container as always",
    ),
    "pre_dump": (
        "-p",
        "make a checkpoint without -s into a directory of its own: the container runs on, and an "
        "image never depends on an earlier one",
    ),
    "predump_dir": ("--predump-dir", "leave it out: an image never depends on an earlier one"),
    "page_server": ("--page-server", EXPORT),
    "address": ("--address", EXPORT),
    "port": ("--port", EXPORT),
    "rcfile": (
        "--rcfile",
        "put what differs into the container's own configuration, from which LXC starts it",
    ),
}


class LogReporter(Reporter):
    """Messages to stderr, and to a log file those from a priority on."""

    def __init__(
        self, *, program: str, file: TextIO | None, priority: int, quiet: bool, verbose: bool
    ) -> None:
        super().__init__(debug=verbose or (file is not None and priority == DEBUG))
        self.program = program
        self._file = file
        self._priority = priority
        self._quiet = quiet
        self._shown_from = DEBUG if verbose else INFO

    def log(self, level: int, text: str) -> None:
        """A line, to whoever wants lines of this @level."""
        self._write(level, text)
        if level >= self._shown_from and not self._quiet:
            super().log(level, text)

    def error(self, error: LxcCrError) -> None:
        """Why the command failed, and what to do."""
        for line in (str(error), *(obstacle.message for obstacle in error.obstacles), error.hint):
            self._write(ERROR, line or "")
        if not self._quiet:
            super().error(error)

    def _write(self, level: int, text: str) -> None:
        if self._file and text and level >= self._priority:
            name = next(name for name, number in PRIORITIES.items() if number == level)
            when = time.strftime("%Y%m%d%H%M%S")
            say(f"{self.program} {when} {name:<6} {printable(text)}", file=self._file)


def parser(*, restart: bool = False) -> argparse.ArgumentParser:
    """The command line of lxc-checkpoint, or of lxc-restart."""
    name = "lxc-restart" if restart else "lxc-checkpoint"
    made = argparse.ArgumentParser(
        prog=name,
        add_help=False,
        allow_abbrev=True,
        description="Restore a container from a checkpoint."
        if restart
        else "Checkpoint and restore a container.",
    )
    add = made.add_argument
    add("-n", "--name", required=True, help="name of the container")
    add("-D", "--checkpoint-dir", metavar="DIR", required=True, help="where the checkpoint lies")
    if restart:
        made.set_defaults(restore=True, stop=False)
    else:
        add("-r", "--restore", action="store_true", help="restore the container from DIR")
        add("-s", "--stop", action="store_true", help="stop the container after the checkpoint")
    add("-v", "--verbose", action="store_true", help="show every step")
    add_options_of_criu(made)
    add("-d", "--daemon", action="store_true", help="restore in the background (the default)")
    add(
        "-F",
        "--foreground",
        action="store_true",
        help="restore with this terminal as the console, and stay until the container ends",
    )
    add("--rcfile", metavar="FILE", help="refused: the container's own configuration is used")
    add("-o", "--logfile", metavar="FILE", help="append a log to FILE")
    add(
        "-l",
        "--logpriority",
        metavar="LEVEL",
        type=str.upper,
        choices=PRIORITIES,
        default="ERROR",
        help="what goes into that log, from LEVEL on: " + ", ".join(PRIORITIES),
    )
    add("-q", "--quiet", action="store_true", help="show nothing")
    add("-P", "--lxcpath", metavar="DIR", help="where LXC keeps its containers")
    add("-?", "-h", "--help", action="help", help="show this text")
    add("--version", action="version", version=f"{name} of lxc-cr {__version__}")
    add("--usage", action=UsageAction, nargs=0, help="show a short text")
    return made


def add_options_of_criu(made: argparse.ArgumentParser) -> None:
    """Options that are known only to be refused; scripts give them to both commands."""
    refused = "of CRIU alone: refused"
    made.add_argument("-A", "--action-script", metavar="PATH", help=refused)
    made.add_argument("-p", "--pre-dump", action="store_true", help=refused)
    made.add_argument("--predump-dir", metavar="DIR", help=refused)
    # A flag in one release, with an address in another.
    made.add_argument("--page-server", metavar="ADDRESS", nargs="?", const="", help=refused)
    made.add_argument("--address", metavar="ADDRESS", help=refused)
    made.add_argument("--port", metavar="PORT", help=refused)


class UsageAction(argparse.Action):
    """--usage of LXC's tools."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.print_usage()
        parser.exit()


def run(argv: list[str] | None, *, restart: bool) -> int:
    """One of the two commands; returns its exit code."""
    hold_standard_descriptors()
    made = parser(restart=restart)
    arguments = made.parse_args(argv)
    with ExitStack() as undo:
        file = None
        try:
            if arguments.logfile:
                file = undo.enter_context(open(arguments.logfile, "a"))  # noqa: PTH123
        except OSError as error:
            print(f"Failed to open '{arguments.logfile}': {os_message(error)}", file=sys.stderr)
            return UsageError.exit_code
        report = LogReporter(
            program=made.prog,
            file=file,
            priority=PRIORITIES[arguments.logpriority],
            quiet=arguments.quiet,
            verbose=arguments.verbose,
        )
        return guarded(lambda: follow(arguments, report), report)


def follow(arguments: argparse.Namespace, report: Reporter) -> int:
    """Do what the command line says."""
    refuse_others(arguments)
    refuse_empty("-D", arguments.checkpoint_dir)
    arguments.store = arguments.checkpoint_dir
    # Buffered images of the same container have nothing to do with it; this one is never made.
    arguments.buffer_dir = f"{arguments.checkpoint_dir}/buffer"
    session = Session(arguments, report)
    if arguments.restore:
        restore(session)
    else:
        dump(session)
    return 0


def refuse_others(arguments: argparse.Namespace) -> None:
    """Raise UsageError for options that cannot be followed, or not together."""
    for name, (option, advice) in REFUSED.items():
        if getattr(arguments, name) not in (None, False):
            raise UsageError(
                f"{option} is for CRIU, which is not used here", hint=f"Instead, {advice}"
            )
    if arguments.restore and arguments.stop:
        raise UsageError(
            "-s is not compatible with -r", hint="A container is either saved or restored"
        )
    if arguments.foreground and arguments.daemon:
        raise UsageError("-F is not compatible with -d")
    if not arguments.restore and (arguments.foreground or arguments.daemon):
        raise UsageError("-d and -F need -r", hint="A checkpoint starts nothing")


def dump(session: Session) -> None:
    """Checkpoint the container into the directory."""
    from .store import Reference

    name = session.arguments.name
    if session.store().images():
        raise StoreError(
            f"'{session.settings.store}' holds a checkpoint already", hint="Use a fresh directory"
        )
    done = session.make_image(
        Reference(name),
        stop=session.arguments.stop,
        buffered=False,
        files=session.policy.files,
    )
    session.report.info(done.summary(stopped=session.arguments.stop))


def restore(session: Session) -> None:
    """Restore the container from the directory; in the foreground, until it ends."""
    from .store import Reference

    name, policy = session.arguments.name, session.policy
    container = foreground(session) if session.arguments.foreground else None
    done = session.start_from(
        session.store().resolve(Reference(name)),
        files=policy.restart_files,
        full=policy.verify == "full",
        lease=LeasePolicy.parse(policy.lease),
        container=container,
    )
    session.report.info(done.summary(name))
    if container and container.monitor:
        # From here on Ctrl-C is the container's.
        with signals_ignored():
            container.monitor.join()


def foreground(session: Session) -> ForegroundContainer:
    """The container that the command names, to be started with this terminal."""
    from .container.foreground import ForegroundContainer

    return ForegroundContainer(name=session.arguments.name, lxcpath=session.settings.lxcpath)
