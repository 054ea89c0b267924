# SPDX-License-Identifier: LGPL-2.1-or-later
"""sqlite in one journal mode: almost always in the middle of a transaction."""

import sqlite3
import sys
import time

import program

MODE = sys.argv[2]


def transfer(database, step):
    """Money moves between accounts and is noted; half way through the sums do not fit."""
    database.execute("BEGIN IMMEDIATE")
    for account in range(20):
        database.execute(
            "UPDATE account SET money = money - 1 WHERE number = ?", ((step + account) % 100,)
        )
        time.sleep(0.002)
        database.execute(
            "UPDATE account SET money = money + 1 WHERE number = ?", ((step * 7 + account) % 100,)
        )
    database.execute("INSERT INTO step VALUES (?)", (step,))
    database.execute("COMMIT")


def work():
    database = sqlite3.connect(f"/work-{MODE}.db", isolation_level=None)
    assert database.execute(f"PRAGMA journal_mode={MODE}").fetchone() == (MODE,)
    database.execute("CREATE TABLE account (number INTEGER PRIMARY KEY, money INTEGER)")
    database.execute("CREATE TABLE step (number INTEGER PRIMARY KEY)")
    database.executemany("INSERT INTO account VALUES (?, 1000)", [(n,) for n in range(100)])
    program.ready()
    steps = 0
    while not program.told_to_go():
        transfer(database, steps)
        steps += 1
    assert database.execute("SELECT sum(money) FROM account").fetchone() == (100000,)
    assert database.execute("SELECT count(*), max(number) FROM step").fetchone() == (
        steps,
        steps - 1,
    )
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


program.main(work)
