/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Time as a process that naps a millisecond at a time has seen it go by: a long gap is a time in which
 * nobody ran.
 */
#ifndef LEASE_CLOCK_H
#define LEASE_CLOCK_H

#include "victim.h"

#define SECOND 1000000000ull

struct lease_clock {
	uint64_t alive; /* ns that the container has run */
	uint32_t stop;
};

static uint64_t lease_clock_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void lease_clock_process(void *argument)
{
	enum { GAP = 400000000 };
	struct lease_clock *clock = argument;
	uint64_t last = lease_clock_now();

	while (!__atomic_load_n(&clock->stop, __ATOMIC_SEQ_CST)) {
		uint64_t time;

		victim_nap(1);
		time = lease_clock_now();
		if (time - last < GAP)
			__atomic_add_fetch(&clock->alive, time - last, __ATOMIC_SEQ_CST);
		last = time;
	}
}

/* What a new break is given, ns. */
static uint64_t lease_break_time(void)
{
	char text[32];

	victim_read("/proc/sys/fs/lease-break-time", text, sizeof(text));
	return strtoull(text, NULL, 10) * SECOND;
}

#endif
