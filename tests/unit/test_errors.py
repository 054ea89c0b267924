# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tree of errors: one class and one exit code per decision."""

import errno
import re

import pytest

from lxc_cr_plugin import errors
from lxc_cr_plugin.errors import (
    CheckpointError,
    HostError,
    LxcCrError,
    Obstacle,
    exit_codes,
    os_errors,
    os_message,
)


def test_the_tree_at_the_top_is_the_truth():
    drawn = re.findall(r"^[├└]── (\w+) .* (\d+)$", errors.__doc__, re.MULTILINE)
    real = [(error.__name__, str(error.exit_code)) for error in LxcCrError.__subclasses__()]
    assert drawn == real


def test_exit_codes_are_distinct():
    codes = [code for code, _ in exit_codes()]
    assert len(set(codes)) == len(codes)
    assert codes == sorted(codes)


def test_json_leaves_out_what_is_not_known():
    assert CheckpointError("It broke").as_json() == {
        "class": "CheckpointError",
        "exit_code": 9,
        "message": "It broke",
    }


def test_json_holds_everything_known():
    obstacle = Obstacle("isolation", "Shared", hint="Unshare", pid=3, comm="sh", object="mm")
    error = CheckpointError(
        "It broke", hint="Mend it", pid=3, comm="sh", object="pipe", errno=5, obstacles=(obstacle,)
    )
    assert error.as_json() == {
        "class": "CheckpointError",
        "exit_code": 9,
        "message": "It broke",
        "hint": "Mend it",
        "pid": 3,
        "comm": "sh",
        "object": "pipe",
        "errno": 5,
        "obstacles": [
            {
                "kind": "isolation",
                "message": "Shared",
                "hint": "Unshare",
                "pid": 3,
                "comm": "sh",
                "object": "mm",
            }
        ],
    }
    again = LxcCrError.from_json(error.as_json())
    assert (type(again), again.as_json()) == (CheckpointError, error.as_json())


def test_os_message():
    assert os_message(OSError(errno.ENOENT, "No such file or directory")) == (
        "No such file or directory"
    )
    assert os_message(OSError("odd")) == "odd"


def test_scarcity_has_its_own_hint_whatever_failed():
    with pytest.raises(HostError) as found, os_errors(HostError, "Look at it", hint="Look again"):
        raise OSError(errno.EMFILE, "Too many open files", "/proc/sys")
    assert "Too many open files: '/proc/sys'" in str(found.value)
    assert "ulimit" in found.value.hint
    with pytest.raises(HostError) as found, os_errors(HostError, "Look at it", hint="Look again"):
        raise OSError(errno.ENOENT, "No such file or directory", "/proc/sys")
    assert found.value.hint == "Look again"
