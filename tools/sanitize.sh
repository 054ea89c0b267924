#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Run the tests on an engine built with ASan and UBSan: tools/sanitize.sh [arguments of pytest]
# The build lies in a copy of the checkout, so the one in use stays as it is.

ROOT=$(cd "$(dirname "$0")/.." && pwd -P) || exit 1
COPY=$ROOT/build/sanitize

rm -rf "$COPY" && mkdir -p "$COPY" || exit 1
tar -C "$ROOT" --exclude=./.venv --exclude=./build --exclude=./.git --exclude='*.so' --exclude=_engine.c \
	-cf - . | tar -C "$COPY" -xf - || exit 1
cd "$COPY" || exit 1
LXC_CR_SANITIZE=1 "$ROOT/.venv/bin/python" setup.py --quiet build_ext --inplace --force || exit 1

# The copy is found before the checkout that is installed in .venv. Python itself leaks on purpose,
# and the engine's process ends without freeing what the kernel frees anyway.
export PYTHONPATH="$COPY"
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=0}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}"
[ $# -gt 0 ] || set -- tests/unit tests/integration
# Not for these two: they are about the signal that a crash ends with, and here it ends with a report.
set -- "$@" --deselect tests/unit/test_native_process.py::test_crashed \
	--deselect tests/unit/test_run.py::test_death_by_signal
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
	exec "$ROOT/.venv/bin/python" -m pytest "$@"
