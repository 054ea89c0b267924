#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# gcc and make -j4 over and over; what comes out must compute the right number each time.
status=$1

fail() {
	echo "FAIL $*" >>"$status"
	exit 1
}

mkdir -p /build && cd /build || exit 1
for i in $(seq 40); do
	echo "int f$i(int x) { return x + $i; }" >"f$i.c"
done
{
	seq -f 'int f%g(int);' 40
	echo '#include <stdio.h>'
	echo 'int main(void) { int x = 0;'
	seq -f 'x = f%g(x);' 40
	echo 'printf("%d", x); return 0; }'
} >main.c
cat >Makefile <<'M'
OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))
all: $(OBJECTS)
	gcc -o all $(OBJECTS)
%.o: %.c
	gcc -O2 -c -o $@ $<
M
echo ready >>"$status"
while [ ! -e "$status.go" ]; do
	rm -f ./*.o all
	make -s -j4 >log 2>&1 || fail "make: $? $(tail -n 3 log | tr '\n' ' ')"
	[ "$(./all)" = 820 ] || fail "the program says $(./all)"
done
echo ok >>"$status"
