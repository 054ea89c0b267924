#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Run the tests on an engine built with ASan and UBSan: tools/sanitize.sh [arguments of pytest]
# The build lies in a copy of the checkout, so the one in use stays as it is; it is made again when the
# engine's sources have changed. What the sanitizers find fails the run, whatever the tests say of it.

CR_ROOT=$(cd "$(dirname "$0")/.." && pwd -P) || exit 1
. "$CR_ROOT/tools/bootstrap.sh"
COPY=$CR_ROOT/build/sanitize/copy
BUILT=$CR_ROOT/build/sanitize/engine
REPORTS=$CR_ROOT/build/sanitize/reports

rm -rf "$COPY" "$REPORTS" && mkdir -p "$COPY" "$BUILT" "$REPORTS" || exit 1
tar -C "$CR_ROOT" --exclude=./.venv --exclude=./build --exclude=./.git --exclude='*.so' --exclude=_engine.c \
	-cf - . | tar -C "$COPY" -xf - || exit 1
cd "$COPY" || exit 1
digest=$(cr_native_digest)
if [ "$(cat "$BUILT/stamp" 2>/dev/null)" != "$digest" ]; then
	rm -f "$BUILT"/*
	LXC_CR_SANITIZE=1 "$CR_ROOT/.venv/bin/python" setup.py --quiet build_ext --inplace --force || exit 1
	cp lxc_cr_plugin/native/_engine*.so "$BUILT" || exit 1
	echo "$digest" >"$BUILT/stamp"
else
	cp "$BUILT"/_engine*.so lxc_cr_plugin/native/ || exit 1
fi

# The copy is found before the checkout that is installed in .venv. Python itself leaks on purpose,
# and the engine's process ends without freeing what the kernel frees anyway.
export PYTHONPATH="$COPY/tools/sanitized:$COPY"
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=0}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1:abort_on_error=1}"
# Behind them, as a test may expect that a command fails, and see no difference to its crash.
ASAN_OPTIONS="$ASAN_OPTIONS:log_path=$REPORTS/asan"
UBSAN_OPTIONS="$UBSAN_OPTIONS:log_path=$REPORTS/ubsan"
LXC_CR_SANITIZERS="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)"
export LXC_CR_SANITIZERS
[ $# -gt 0 ] || set -- tests/unit tests/integration
# Not for these two: they are about the signal that a crash ends with, and here it ends with a report.
set -- "$@" --deselect tests/unit/test_native_process.py::test_crashed \
	--deselect tests/unit/test_run.py::test_death_by_signal
"$CR_ROOT/.venv/bin/python" -m pytest "$@"
code=$?
for report in "$REPORTS"/*; do
	[ -e "$report" ] || continue
	echo "==> $report"
	cat "$report"
	code=1
done
exit $code
