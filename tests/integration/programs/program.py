# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the Python programs share: say "ready", work until told to go, say "ok" or "FAIL why".

The same protocol as that of the victims (victims/victim.h): a status file, named by the first
argument, and a second file beside it that says "go".
"""

import sys
import traceback
from pathlib import Path

STATUS = Path(sys.argv[1])
GO = Path(sys.argv[1] + ".go")


def say(text):
    with STATUS.open("a") as file:
        file.write(text + "\n")


def told_to_go():
    return GO.exists()


def main(work):
    """Run work(), which calls ready() when it is busy and returns when it has verified itself."""
    try:
        work()
    except BaseException:
        fail()
        raise
    say("ok")


def fail():
    """Say why: the exception that is being handled."""
    say("FAIL " + traceback.format_exc().strip().replace("\n", " | "))


def ready():
    say("ready")
