# SPDX-License-Identifier: LGPL-2.1-or-later
"""What becomes of images when their container has ended, was copied, or is destroyed.

The policies on_stop, on_clone and on_destroy say it; hooks of LXC call these functions. LXC holds
locks of its own while it waits for a hook: nothing here may open the container through LXC, only the
directory where it lives.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .config import CONTAINER_FILE, DROP, FLUSH, FOLLOW, REMOVE
from .journal import Entry, Journals
from .pending import pending
from .session import Session


def after_stop(session: Session, directory: Path) -> None:
    """Buffered images of a container that has ended: kept, dropped or flushed."""
    init = os.environ.get("LXC_PID", "")
    if not init.isdecimal():
        return  # it has not even begun
    on_stop = session.policy_of(directory).on_stop
    if ended_by_us(session, int(init)) or on_stop not in (DROP, FLUSH):
        return
    store, needed = session.store(), pending(directory)
    for image in store.newest(directory.name):
        with session.passing_over_used():
            if image.buffered and on_stop == FLUSH:
                store.flush(image)
            elif image.buffered and not (needed and needed.digest == image.digest):
                store.remove(image)


def ended_by_us(session: Session, init: int) -> bool:
    """Whether a command of ours has ended the container of @init.

    By `checkpoint --stop --buffered`, say, or by a rollback: its images are needed.
    """

    def stop(_entry: Entry) -> bool:
        raise AssertionError("nothing is repaired here")

    journals = Journals(
        run_dir=session.settings.run_dir, report=session.report, stop_container=stop
    )
    announced = journals.announcement(init).exists()
    journals.announcement(init).unlink(missing_ok=True)
    return announced


def after_clone(session: Session, directory: Path) -> None:
    """The copy that lxc-copy has made gets the policy of the original, and perhaps its images."""
    source = directory.with_name(os.environ.get("LXC_SRC_NAME") or directory.name)
    if source == directory or not source.is_dir():
        return  # it comes from another lxcpath: whose policy would it be?
    policy, copy = source / CONTAINER_FILE, directory / CONTAINER_FILE
    if policy.exists() and not copy.exists():
        shutil.copy2(policy, copy)
    if session.policy_of(source).on_clone == FOLLOW:
        store = session.store()
        for image in reversed(store.newest(source.name)):
            store.copy(image, container=directory.name)


def after_destroy(session: Session, directory: Path) -> None:
    """The images of a container that is being destroyed: kept or removed."""
    if session.policy_of(directory).on_destroy == REMOVE:
        store = session.store()
        for image in store.newest(directory.name):
            with session.passing_over_used():
                store.remove(image)
