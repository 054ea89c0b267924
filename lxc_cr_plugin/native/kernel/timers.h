/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The POSIX timers of a process: /proc/PID/timers lists them without their times, and
 * timer_gettime(2) is for the process alone. So the kernel's own list is followed.
 */
#ifndef CR_KERNEL_TIMERS_H
#define CR_KERNEL_TIMERS_H

#include <signal.h>
#include <stdint.h>

#include "../error.h"
#include "../pool.h"
#include "btf.h"
#include "peek.h"

/* How many timers of one process are read. */
enum { KERNEL_TIMERS_MAX = 16384 };

struct kernel_timer {
	int32_t id;
	int32_t clock;	/* as given to timer_create(2) */
	int32_t notify; /* SIGEV_... */
	int32_t signal;
	uint64_t value;	 /* union sigval */
	int32_t thread;	 /* who gets the signal, in the initial pid namespace */
	int32_t on_cpu;	 /* whose CPU time it counts, in the initial pid namespace; else 0 */
	bool armed;	 /* it will fire */
	bool due;	 /* it has fired, and goes on when its signal is taken */
	bool queued;	 /* its signal is in a queue */
	bool stale;	 /* and is not of this time, but comes all the same */
	bool realtime;	 /* armed for a moment of CLOCK_REALTIME, not for a span of time */
	int64_t expires; /* ns, of the initial time namespace, or CPU time */
	uint64_t interval;
	int64_t overruns; /* what timer_getoverrun(2) says */
};

struct kernel_timer_reader;

/* CR_HOST when this kernel keeps its timers otherwise. */
struct cr_error *kernel_timer_reader_open(const struct btf *btf, struct kernel_timer_reader **ret);
void kernel_timer_reader_close(struct kernel_timer_reader *reader); /* NULL is fine */

/* Append the timers of a list to @ret; @first: struct kernel_task has it. There may be none. */
struct cr_error *kernel_timer_reader_read(const struct kernel_timer_reader *reader,
					  struct kernel_peek *peek, uint64_t first,
					  struct pool *pool, struct list *ret);

#endif
