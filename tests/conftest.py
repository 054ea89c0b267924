# SPDX-License-Identifier: LGPL-2.1-or-later
"""For all tests: no skips where CR_MUST_RUN=1, and what the support matrix is made of."""

import json
import os
from pathlib import Path

import pytest

RESULTS = Path(__file__).parent / "results" / "support.json"
MUST_RUN = os.environ.get("CR_MUST_RUN") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if MUST_RUN and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"CR_MUST_RUN=1 and this test was skipped: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if MUST_RUN and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"CR_MUST_RUN=1 and this file was skipped: {report.longrepr}"
    return report


class SupportRecorder:
    """Collects the outcome of each test that carries the support marker."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, dict[str, str]]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        for marker in item.iter_markers("support"):
            kind, grade = marker.args
            tests = self.outcomes.setdefault(kind, {}).setdefault(grade, {})
            if report.when == "call" or report.outcome != "passed":
                tests[item.name] = report.outcome
        return report

    def pytest_sessionfinish(self):
        if not self.outcomes:
            return
        RESULTS.parent.mkdir(exist_ok=True)
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        for kind, grades in self.outcomes.items():
            for grade, tests in grades.items():
                known.setdefault(kind, {}).setdefault(grade, {}).update(tests)
        RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def pytest_configure(config):
    config.pluginmanager.register(SupportRecorder(), "cr-support-recorder")
