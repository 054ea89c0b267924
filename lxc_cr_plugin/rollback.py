# SPDX-License-Identifier: LGPL-2.1-or-later
"""A container that runs goes back to an image: its processes, its memory and its files.

What runs is checkpointed first and ended at that instant; if the way back fails, it is restarted from
there. So the container ends up as it was in the image, or as it was a moment ago. That also holds when
all of this is killed, or the power fails: before anything is ended, the mark of a pending restart says
what the container has to run from, the restart of either image removes it, and whoever of lxc-cr comes
while it is there calls finish().
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from . import image as images
from . import pending, snapshot
from .container import STOPPED, Container, settle
from .errors import Cancelled, LxcCrError, RestartError
from .journal import Journals
from .log import Reporter
from .restore import Restarted, refuse_foreign
from .store import Image, Reference

# The tag of what ran before.
BEFORE = "before-rollback"


class RolledBack(NamedTuple):
    """What runs now, and the image of what ran before, if one was made."""

    restarted: Restarted
    before: Image | None

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        before = f"sha256:{self.before.digest}" if self.before else None
        return {**self.restarted.as_json(), "before": before}

    def summary(self, container: str) -> str:
        """For people."""
        text = self.restarted.summary(container)
        if self.before:
            text += f"\n  what ran before is {self.before.reference()}"
        return text


def roll_back(
    container: Container,
    *,
    image: Image,
    journals: Journals,
    end: Callable[[], Image | None],
    restart: Callable[[Image], Restarted],
    report: Reporter,
) -> RolledBack:
    """Bring @container back to @image, from whatever it is doing.

    @end checkpoints and ends it and returns that image; None: it was killed, and cannot come back. It
    marks the container before. @restart restarts it from an image. If anything raises, the container is
    as before, or stopped when it was, unless the message says otherwise.
    """
    with journals.locked(container=container.name, lxcpath=container.lxcpath):
        with report.step("verify", f"Verify {image.reference()} before anything is ended"):
            manifest = image.manifest()
            refuse_foreign(container, image, manifest)
            images.verify_records(image, manifest)
            images.verify_pages(image, manifest)
            if manifest.rootfs is not None:
                snapshot.refuse_unreadable(container.rootfs())
        before = None
        if container.defined() and container.state() != STOPPED:
            with report.step("end", "End what runs now"):
                before = end()
        try:
            return RolledBack(restart(image), before)
        except Exception as error:  # whatever it is, what ran before must not stay ended
            if before is None:
                pending.clear(container.directory)
                raise
            return_to(container, before, error, restart=restart, report=report)
            raise


def return_to(
    container: Container,
    before: Image,
    reason: Exception,
    *,
    restart: Callable[[Image], Restarted],
    report: Reporter,
) -> None:
    """Let run what ran before the rollback failed for @reason; RestartError if that fails too."""
    report.warning(f"Going back to what ran before: {reason}")
    try:
        restart(before)
    except (LxcCrError, OSError) as error:
        leave(container, before)
        raise RestartError(
            f"The rollback failed ({reason}), and so did the way back: {error}",
            hint=f"Nothing is lost: what ran before is {before.reference()}",
        ) from error


def leave(container: Container, image: Image) -> None:
    """Nobody but the user starts @container from @image any more: by a plain start if it has the hooks."""
    if container.resumes():
        pending.set_pending(container.directory, image)
    else:
        pending.clear(container.directory)


def finish(
    container: Container,
    *,
    journals: Journals,
    resolve: Callable[[Reference], Image],
    restart: Callable[[Image], Restarted],
    report: Reporter,
) -> bool:
    """Let @container, marked by a rollback that was cut off, run again; False, and said, if it does not.

    From what ran before, or from the image of the rollback when that was to be lost. That is tried once.
    """
    with journals.locked_if_free(container=container.name, lxcpath=container.lxcpath) as free:
        mark = pending.read(container.directory) if free else None
        if mark is None or not mark.rollback:
            return True
        try:
            settle(container, ended=None)
            if container.state() != STOPPED:
                pending.clear(container.directory)
                report.info(f"The rollback of container '{container.name}' was cut off; it runs")
                return True
            image = resolve(mark.reference)
            try:
                restart(image)
            except Cancelled:
                raise
            except (LxcCrError, OSError):
                leave(container, image)
                raise
        except Cancelled:
            raise  # the mark stays: the next command tries it
        except (LxcCrError, OSError) as error:
            report.warning(
                f"Container '{container.name}' is stopped since a rollback was cut off, and could not "
                f"be started again: {error}"
            )
            report.warning(
                f"Once that is mended: `lxc-cr restart {container.name} {mark.reference}`"
            )
            return False
        report.info(
            f"Container '{container.name}' runs again from {image.reference()}: a rollback was cut off"
        )
        return True
