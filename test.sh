#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Run every test: sudo ./test.sh [arguments of pytest]
# Linters, unit tests and the integration tests on real containers. With CR_MUST_RUN=1 a test that
# would be skipped fails: a skip is for laptops.

CR_ROOT=$(cd "$(dirname "$0")" && pwd -P) || exit 1
. "$CR_ROOT/tools/bootstrap.sh"

if [ $# -eq 0 ]; then
	cr_bootstrap test whole
else
	cr_bootstrap test
fi
cd "$CR_ROOT" || exit 1
exec .venv/bin/pytest "$@"
