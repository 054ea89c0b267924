# SPDX-License-Identifier: LGPL-2.1-or-later
"""The engine's look at a file tree, at what programs in a container may do to it."""

import os
import shutil
from pathlib import Path

import pytest

from lxc_cr_plugin.errors import UnsupportedError
from lxc_cr_plugin.native.tree_look import ENTRY, LONGEST_PATH, TreeLook

NAME = 255 * "n"

# Entries that have room before the list is moved for the first time.
FIRST_ROOM = (1 << 16) // ENTRY.size


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "tree"
    path.mkdir()
    yield path
    shutil.rmtree(path)


def look(root: Path) -> TreeLook:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return TreeLook(fd)
    finally:
        os.close(fd)


def make_path_that_is_too_long(root: Path) -> int:
    """Make it step by step, as a program would have to; returns how many entries are above its end."""
    here = os.open(root, os.O_RDONLY)
    depth = LONGEST_PATH // (len(NAME) + 1)
    for _ in range(depth + 1):
        os.mkdir(NAME, dir_fd=here)
        below = os.open(NAME, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    return depth


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_path_that_is_too_long_wherever_it_lies_in_the_list(more, root):
    above = make_path_that_is_too_long(root)
    for number in range(FIRST_ROOM - above - 1 + more):
        (root / str(number)).touch()
    with pytest.raises(
        UnsupportedError, match=f"longer than {LONGEST_PATH - 1} bytes: /{NAME[:10]}"
    ):
        look(root)


def test_times_that_no_nanoseconds_hold(root):
    for seconds in (-(2**31), -1, 0, 2**33, 2**40):
        os.utime(root, ns=(0, seconds * 10**9 + 7))
        ((_, status),) = look(root).entries()
        assert status.st_mtime_ns == root.stat().st_mtime_ns
