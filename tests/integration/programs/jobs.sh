#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A shell with job control on a terminal: jobs in the background, one of them stopped.
set -m
status=$1

fail() {
	echo "FAIL $*" >>"$status"
	exit 1
}

count() {
	local i=0
	while [ ! -e "$status.go" ]; do
		i=$((i + 1))
		echo "$i" >>"/numbers-$1"
		sleep 0.02
	done
}

count one &
one=$!
count two &
two=$!
sleep 1000 &
stopped=$!
kill -STOP $stopped
until jobs -s | grep -q 'sleep 1000'; do sleep 0.01; done
echo ready >>"$status"
while [ ! -e "$status.go" ]; do
	sleep 0.01 || fail "sleep in the foreground: $?"
done
wait $one || fail "job one: $?"
wait $two || fail "job two: $?"
jobs -s | grep -q 'sleep 1000' || fail "the stopped job: $(jobs)"
kill -CONT $stopped
kill -TERM $stopped
# bash takes the end for the stop it knew of when the end comes while `wait -f` looks, with no
# checkpoint about; asked again it says the end
until wait -f $stopped; code=$?; [ $code != 147 ]; do :; done
[ $code = 143 ] || fail "the stopped job ended with $code"
for name in one two; do
	seq "$(wc -l <"/numbers-$name")" | cmp - "/numbers-$name" || fail "numbers of $name"
done
echo ok >>"$status"
