# SPDX-License-Identifier: LGPL-2.1-or-later
"""A container that runs goes back to an image: its processes, its memory and its files.

What runs is checkpointed first and ended at that instant; if the way back fails, it is restarted from
there. So the container ends up as it was in the image, or as it was a moment ago.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from . import image as images
from . import snapshot
from .container import STOPPED, Container
from .errors import LxcCrError, RestartError
from .log import Reporter
from .restore import Restarted, refuse_foreign
from .store import Image

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
    end: Callable[[], Image | None],
    restart: Callable[[Image], Restarted],
    report: Reporter,
) -> RolledBack:
    """Bring @container back to @image, from whatever it is doing.

    @end checkpoints and ends it and returns that image; None: it was killed, and cannot come back.
    @restart restarts it from an image. If anything raises, the container is as before, or stopped
    when it was, unless the message says otherwise.
    """
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
            raise
        return_to(before, error, restart=restart, report=report)
        raise


def return_to(
    before: Image, reason: Exception, *, restart: Callable[[Image], Restarted], report: Reporter
) -> None:
    """Let run what ran before the rollback failed for @reason; RestartError if that fails too."""
    report.warning(f"Going back to what ran before: {reason}")
    try:
        restart(before)
    except (LxcCrError, OSError) as error:
        raise RestartError(
            f"The rollback failed ({reason}), and so did the way back: {error}",
            hint=f"Nothing is lost: what ran before is {before.reference()}",
        ) from error
