# SPDX-License-Identifier: LGPL-2.1-or-later
"""A database's files and the memory of the program that writes them are of one instant.

SQLite in each of its journal modes, all in one container: a checkpoint under write load, the container
runs on, and then it is brought back to the image. Each writer compares its files with its memory
after every transaction.
"""

import os

import pytest

from .container import HERE, Container, Victim, wait_until

MODES = ("delete", "truncate", "persist", "memory", "wal", "off")
# Databases brought back: six in each round; CR_DATABASE_ROUNDS gives more of them.
ROUNDS = int(os.environ.get("CR_DATABASE_ROUNDS", "16"))

# Transactions after the checkpoint, of the fastest writer.
RUN_ON = 3


@pytest.fixture
def writers(container: Container, laboratory) -> list[Victim]:
    program = laboratory.compile(HERE / "programs/sqlite_writer.c", libraries=("sqlite3",))
    victims = [
        container.add_program_as_victim(program, mode, status=f"sqlite-{mode}") for mode in MODES
    ]
    container.start()
    for victim in victims:
        victim.ready()
    return victims


def rows(writer: Victim) -> int:
    """How many it has committed."""
    return int(writer.status.with_name(f"{writer.name}.rows").read_text())


def go_on(writers: list[Victim]) -> list[int]:
    """Until each has committed something, the fastest some more; what all had then."""
    begin = {writer.name: rows(writer) for writer in writers}

    def more(writer: Victim) -> int:
        return rows(writer) - begin[writer.name]

    wait_until(lambda: any(more(w) > RUN_ON for w in writers), what=f"more than {begin}")
    for writer in writers:
        wait_until(lambda writer=writer: more(writer) > 0, what=f"a transaction of {writer.name}")
        writer.ready()
    return [rows(writer) for writer in writers]


@pytest.mark.slow
def test_files_and_memory_are_of_one_instant(container, writers):
    for _ in range(ROUNDS):
        outcome = container.checkpoint()
        go_on(writers)
        container.stop()
        restarted = container.restart()
        assert restarted.result["rootfs"]["changed"] > 0
        container.cr("rm", outcome.result["image"])
    go_on(writers)
    for writer in writers:
        writer.verify()
