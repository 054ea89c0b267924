#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A Go program with work to verify: backups of changing files, then all of them read and compared.
status=$1
export RESTIC_REPOSITORY=/repository RESTIC_PASSWORD=secret RESTIC_CACHE_DIR=/cache

fail() {
	echo "FAIL $*" >>"$status"
	exit 1
}

mkdir -p /data /restored
restic init >/dev/null || fail "restic init: $?"
echo ready >>"$status"
number=0
while [ ! -e "$status.go" ]; do
	number=$((number + 1))
	head -c 300000 /dev/urandom >"/data/$((number % 5))"
	restic --quiet backup /data || fail "backup $number: $?"
done
restic check --read-data >/dev/null || fail "check: $?"
restic --quiet restore latest --target /restored || fail "restore: $?"
diff -r /data /restored/data || fail "the last backup differs"
[ "$(restic snapshots --json | grep -o '"short_id"' | wc -l)" = "$number" ] || fail "not $number snapshots"
echo ok >>"$status"
