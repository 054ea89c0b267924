# SPDX-License-Identifier: LGPL-2.1-or-later
"""A short run of the image fuzzer; CR_FUZZ_SECONDS makes it longer, CR_FUZZ_SEED another one."""

import os
import shutil

from tests.fuzz import fuzz_image

from .container import Container

# Much of what refers to something else: tables, memory, files, locks, leases, children that ended.
VICTIMS = ["share", "thread_tables", "lock_mapped", "lease", "zombie", "shared_memory"]


def test_no_image_crashes_the_reader(container: Container, tmp_path):
    victims = [container.add_victim(name) for name in VICTIMS]
    container.start()
    for victim in victims:
        victim.ready()
    container.checkpoint("--files", "none")
    home = container.laboratory.store / container.name
    image = tmp_path / "image"
    shutil.copytree(next(path for path in home.iterdir() if path.name != "tags"), image)
    assert fuzz_image.check_apart(image) == 0
    outcome = fuzz_image.run(
        image,
        seconds=float(os.environ.get("CR_FUZZ_SECONDS", "4")),
        seed=int(os.environ.get("CR_FUZZ_SEED", "1")),
    )
    assert outcome.crashes == []
    assert 0 < outcome.accepted < outcome.tried
