# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plan of a restart's births, carried out by a model of the kernel: tests/unit/native/births.c."""

import re

import pytest

from tests.unit.native_build import NATIVE, ROOT, build, run

SOURCES = (
    ROOT / "tests/unit/native/births.c",
    *sorted(NATIVE.glob("births*.c")),
    *(NATIVE / name for name in ("error.c", "hash.c", "model.c", "pool.c")),
)


@pytest.fixture(scope="module")
def births(tmp_path_factory):
    return build(tmp_path_factory.mktemp("births") / "births", SOURCES)


@pytest.mark.parametrize(("steps", "most_refused"), [(15, 0), (40, 5)])
def test_random_trees_are_made_again(births, steps, most_refused):
    done = run(births, "1", "200", str(steps))
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    found = re.search(rb"(\d+) refused; pages of (\d+) kin, (\d+) again", done.stdout)
    refused, before, after = map(int, found.groups())
    assert refused <= most_refused
    assert after >= 0.9 * before > 0


def test_time_is_in_proportion(births):
    """No shape of 2000 processes takes much longer for each than one of 200."""

    def nanoseconds(count: str) -> dict[str, int]:
        done = run(births, "-c", count)
        assert done.returncode == 0, done.stdout.decode()
        return {
            name: int(each) for name, each in re.findall(r"(.+): (\d+) ns", done.stdout.decode())
        }

    few, many = nanoseconds("200"), nanoseconds("2000")
    for name, each in many.items():
        # caches, and whoever else is on the machine
        assert each < 5 * few[name] + 20000, name
