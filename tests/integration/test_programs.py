# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real programs out of Debian packages, checkpointed while they work; each verifies its own work.

Ten checkpoints that leave them running, then three generations of stop and restart.
"""

import contextlib
import time
from collections.abc import Iterator

import pytest

from .conftest import Shared, asked_for, containers_of
from .container import Container, Victim

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


# Those that leave the others time share a container; who is asked for by name (-k) is alone with
# those that were too.
ALONE = ("java", "go", "gcc and make")
COMPANIES = [*([name] for name in ALONE), [name for name in COMMANDS if name not in ALONE]]


@pytest.fixture(scope="module")
def companies(request, laboratory, container_names, debian) -> Iterator[Shared]:
    @contextlib.contextmanager
    def company(number: int) -> Iterator[dict[str, Victim]]:
        with containers_of(laboratory, container_names) as make:
            container = make(debian)
            programs = {name: add(container, name) for name in asked_for(request, number)}
            container.start()
            for program in programs.values():
                program.wait_for("ready", timeout=READY_TIMEOUT)
            checkpoint_and_restart(container)
            yield programs

    with Shared(company) as shared:
        yield shared


@pytest.fixture
def company(request, companies) -> dict[str, Victim]:
    """The programs of a company, after all checkpoints and restarts of their container."""
    return companies.of(request.param)


def add(container: Container, name: str) -> Victim:
    """Have the container run this program."""
    status = name.replace(" ", "-")
    container.add_program(
        f"{COMMANDS[name]} /status/{status} {ARGUMENTS.get(name, '')}".strip(),
        tty=TERMINALS.get(name, ""),
    )
    return Victim(container=container, name=status)


def checkpoint_and_restart(container: Container) -> None:
    for _ in range(CHECKPOINTS):
        image = container.checkpoint(*NO_FILES).result["image"]
        container.cr("rm", image)
        time.sleep(0.05)
    for _ in range(GENERATIONS):
        image = container.checkpoint("--stop", *NO_FILES).result["image"]
        container.restart()
        container.cr("rm", image)
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("company", "name"),
    [
        pytest.param(number, name, id=name)
        for number, names in enumerate(COMPANIES)
        for name in names
    ],
    indirect=["company"],
)
def test_program(company, name):
    company[name].verify(timeout=VERIFY_TIMEOUT)
