# SPDX-License-Identifier: LGPL-2.1-or-later
"""A claim of the support matrix is as good as the worst of its tests."""

import pytest

from tools.support_matrix import (
    NOT_YET,
    REFUSES,
    TARGET,
    WORKS,
    Row,
    claimed,
    current,
    grade,
    passed,
    render,
    rows_of,
)


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
    results = {
        "zebra": {WORKS: {"a": "passed"}},
        "unix_socket": {REFUSES: {"a": "passed"}},
        "apple": {WORKS: {"a": "passed", "b": "passed"}},
        "broken": {WORKS: {"a": "failed", "b": "passed"}},
    }
    page = render({kind: Row(grade(found), passed(found)) for kind, found in results.items()})
    assert page.endswith(
        "| apple | works | 2 of 2 |\n"
        "| zebra | works | 1 of 1 |\n"
        "| unix socket | refuses | 1 of 1 |\n"
        "| broken | not yet | 1 of 2 |\n"
    )


def test_the_page_has_the_rows_of_the_tests():
    """Of their names only: results are those of the last whole run."""
    rows = rows_of(TARGET.read_text())
    claims = claimed()
    assert set(rows) == set(claims), "docs/support-matrix.md is stale: run tools/support_matrix.py"
    wrong = [kind for kind, row in rows.items() if row.grade not in {*claims[kind], NOT_YET}]
    assert wrong == [], "docs/support-matrix.md is stale: run tools/support_matrix.py"


def test_what_was_not_run_keeps_its_row():
    page = render({"old": Row(WORKS, "3 of 3"), "was_refused": Row(REFUSES, "3 of 3")})
    claims = {"old": {WORKS}, "was_refused": {WORKS}, "new": {WORKS}, "ran": {REFUSES}}
    rows = current(claims, results={"ran": {REFUSES: {"a": "passed"}}}, page=page)
    assert rows == {
        "old": Row(WORKS, "3 of 3"),
        "was_refused": Row(NOT_YET, "not run"),
        "new": Row(NOT_YET, "not run"),
        "ran": Row(REFUSES, "1 of 1"),
    }
    assert rows_of(render(rows)) == rows
