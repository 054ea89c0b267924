/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long has this container been running, not counting the time it was away? A process that
 * sleeps one millisecond at a time adds up what it sees. A test lets a container be away for longer
 * than AWAY; what is shorter is a stop, or a busy machine, and makes the check as much less exact.
 */
#ifndef TICKER_H
#define TICKER_H

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "victim.h"

enum { AWAY = 700 * 1000 * 1000, NOISE = 5 * 1000 * 1000, TOLERANCE = 50 * 1000 * 1000 };

struct ticker {
	volatile int64_t running; /* nanoseconds */
	volatile int64_t away;
	volatile int64_t noise;
	pid_t pid;
};

static inline int64_t ticker_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static inline void ticker_run(void *argument)
{
	struct ticker *ticker = argument;
	int64_t last = ticker_now();

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpriority(PRIO_PROCESS, 0, -20); /* a busy machine is no time away */
	for (;;) {
		int64_t now, gap;

		victim_nap(1);
		now = ticker_now();
		gap = now - last;
		last = now;
		if (gap > AWAY) {
			ticker->away += gap - 1000000;
			gap = 1000000;
		} else if (gap > NOISE) {
			ticker->noise += gap;
		}
		ticker->running += gap;
	}
}

static inline struct ticker *ticker_start(void)
{
	struct ticker *ticker = victim_shared(4096);

	ticker->pid = victim_child(ticker_run, ticker);
	return ticker;
}

/* Running time until now: that of the next tick. */
static inline int64_t ticker_read(const struct ticker *ticker)
{
	int64_t last = ticker->running;

	while (ticker->running == last)
		victim_nap(1);
	return ticker->running;
}

static inline void ticker_stop(struct ticker *ticker)
{
	kill(ticker->pid, SIGKILL);
	waitpid(ticker->pid, NULL, 0);
}

/* What this thread has waited for a processor since it is there, or back; 0 where nobody counts. */
static inline int64_t ticker_delayed(void)
{
	FILE *file = fopen("/proc/thread-self/schedstat", "re");
	long long delayed = 0;

	if (!file)
		return 0;
	if (fscanf(file, "%*s %lld", &delayed) != 1)
		delayed = 0;
	fclose(file);
	return delayed;
}

/* How much less exact a busy machine makes what this thread measures. */
static inline int64_t ticker_noise(const struct ticker *ticker)
{
	return ticker->noise + ticker_delayed();
}

/* A relative time of @nominal ns has ended after @took ns of running time. */
static inline void ticker_check(struct ticker *ticker, int64_t took, int64_t nominal,
				const char *what)
{
	int64_t wrong = took > nominal ? took - nominal : nominal - took;
	int64_t noise = ticker_noise(ticker);

	check(wrong <= TOLERANCE + noise,
	      "%s took %lld ms of running time, not %lld (away %lld ms, noise %lld ms)", what,
	      (long long)took / 1000000, (long long)nominal / 1000000,
	      (long long)ticker->away / 1000000, (long long)noise / 1000000);
}

#endif
