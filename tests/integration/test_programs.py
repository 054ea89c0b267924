# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real programs out of Debian packages, checkpointed while they work; each verifies its own work.

Ten checkpoints that leave them running, then three generations of stop and restart.
"""

import time

import pytest

from .container import Victim

CHECKPOINTS = 10

# Nothing changes between a stop and its restart, and copying 800 MiB each time would take minutes.
NO_FILES = ("--files", "none")
GENERATIONS = 3

COMMANDS = {
    "python threads": "/usr/bin/python3 /programs/python_threads.py",
    "python multiprocessing": "/usr/bin/python3 /programs/python_multiprocessing.py",
    "python asyncio": "/usr/bin/python3 /programs/python_asyncio.py",
    "node": "/usr/bin/node /programs/workers.js",
    # Its performance data lie in a file that it maps, locks and closes.
    "java": "/usr/bin/java -XX:+UseG1GC -Xms1g -Xmx1g /programs/Churn.java",
    "go": "/bin/bash /programs/restic.sh",
    "sqlite delete": "/usr/bin/python3 /programs/sqlite.py",
    "sqlite wal": "/usr/bin/python3 /programs/sqlite.py",
    "gcc and make": "/bin/bash /programs/build.sh",
    "bash jobs": "/bin/bash /programs/jobs.sh",
}
ARGUMENTS = {"sqlite delete": "delete", "sqlite wal": "wal"}
TERMINALS = {"bash jobs": "tty1"}

# The slowest to begin is java, which compiles itself first.
READY_TIMEOUT = 180
# The one that has most to read again is restic.
VERIFY_TIMEOUT = 180


@pytest.fixture
def program(request, debian, new_container) -> Victim:
    """The program, running in a container of its own."""
    name = request.getfixturevalue("name")
    status = name.replace(" ", "-")
    container = new_container(debian)
    container.add_program(
        f"{COMMANDS[name]} /status/{status} {ARGUMENTS.get(name, '')}".strip(),
        tty=TERMINALS.get(name, ""),
    )
    victim = Victim(container=container, name=status)
    container.start()
    victim.wait_for("ready", timeout=READY_TIMEOUT)
    return victim


@pytest.mark.parametrize("name", COMMANDS)
def test_program(name, program):
    container = program.container
    for _ in range(CHECKPOINTS):
        image = container.checkpoint(*NO_FILES).result["image"]
        container.cr("rm", image)
        time.sleep(0.05)
    for _ in range(GENERATIONS):
        image = container.checkpoint("--stop", *NO_FILES).result["image"]
        container.restart()
        container.cr("rm", image)
        time.sleep(0.2)
    program.verify(timeout=VERIFY_TIMEOUT)
