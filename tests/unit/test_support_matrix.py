# SPDX-License-Identifier: LGPL-2.1-or-later
"""A claim of the support matrix is as good as the worst of its tests."""

import pytest

from tools.support_matrix import NOT_YET, REFUSES, WORKS, grade, render


@pytest.mark.parametrize(
    ("claims", "wanted"),
    [
        ({WORKS: {"a": "passed", "b": "passed"}}, WORKS),
        ({WORKS: {"a": "passed", "b": "failed"}}, NOT_YET),
        ({WORKS: {"a": "skipped"}}, NOT_YET),
        ({REFUSES: {"a": "passed"}}, REFUSES),
        ({WORKS: {"a": "failed"}, REFUSES: {"b": "passed"}}, NOT_YET),
        ({}, NOT_YET),
    ],
)
def test_grade(claims, wanted):
    assert grade(claims) == wanted


def test_rows_are_sorted_by_grade_and_name():
    page = render(
        {
            "zebra": {WORKS: {"a": "passed"}},
            "unix_socket": {REFUSES: {"a": "passed"}},
            "apple": {WORKS: {"a": "passed", "b": "passed"}},
            "broken": {WORKS: {"a": "failed", "b": "passed"}},
        }
    )
    assert page.endswith(
        "| apple | works | 2 of 2 |\n"
        "| zebra | works | 1 of 1 |\n"
        "| unix socket | refuses | 1 of 1 |\n"
        "| broken | not yet | 1 of 2 |\n"
    )
