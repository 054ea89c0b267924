#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Checkpoint and restart a real container: sudo ./demo.sh [--keep]
# Installs what is missing (Debian packages, PyPI packages into .venv), then runs demo/demo.py.

CR_ROOT=$(cd "$(dirname "$0")" && pwd -P) || exit 1
. "$CR_ROOT/tools/bootstrap.sh"

cr_bootstrap demo
exec "$CR_ROOT/.venv/bin/python" "$CR_ROOT/demo/demo.py" "$@"
