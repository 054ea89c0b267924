/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Resource limits: all sixteen, soft and hard, in two processes. */
#include <sys/resource.h>

#include "victim.h"

static uint32_t *arrived;

static void look(struct rlimit *limits)
{
	for (int i = 0; i < RLIMIT_NLIMITS; i++)
		must(getrlimit(i, &limits[i]));
}

static void arrive_and_compare(const char *who)
{
	struct rlimit before[RLIMIT_NLIMITS], now[RLIMIT_NLIMITS];

	look(before);
	victim_arrive(arrived);
	victim_wait();
	look(now);
	for (int i = 0; i < RLIMIT_NLIMITS; i++)
		check(now[i].rlim_cur == before[i].rlim_cur &&
			      now[i].rlim_max == before[i].rlim_max,
		      "%s: limit %d was %ld:%ld, is %ld:%ld", who, i, before[i].rlim_cur,
		      before[i].rlim_max, now[i].rlim_cur, now[i].rlim_max);
}

static void lower(int which, rlim_t soft, rlim_t hard)
{
	struct rlimit limit;

	must(getrlimit(which, &limit));
	if (limit.rlim_max > hard)
		limit.rlim_max = hard;
	limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
	must(setrlimit(which, &limit));
}

static void child(void *unused)
{
	int fds = 0;

	(void)unused;
	lower(RLIMIT_NOFILE, 20, 20);
	lower(RLIMIT_CORE, 0, 0);
	lower(RLIMIT_FSIZE, 1 << 20, 1 << 21);
	lower(RLIMIT_STACK, 1 << 20, 1 << 22);
	lower(RLIMIT_NPROC, 500, 600);
	lower(RLIMIT_AS, 1UL << 32, 1UL << 33);
	lower(RLIMIT_CPU, 3600, 7200);
	lower(RLIMIT_MEMLOCK, 4096, 8192);
	/* no number is free */
	while (dup(1) >= 0 && fds < 100)
		fds++;
	check(errno == EMFILE && fds < 20, "limit of descriptors does not hold: %d", fds);
	arrive_and_compare("child");
	check(dup(1) < 0 && errno == EMFILE, "limit of descriptors does not hold any more");
}

int main(int argc, char **argv)
{
	pid_t pid;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	pid = victim_child(child, NULL);
	lower(RLIMIT_SIGPENDING, 77, RLIM_INFINITY);
	lower(RLIMIT_RTTIME, 1000000, RLIM_INFINITY);
	victim_meet(arrived, 1);
	victim_ready();
	arrive_and_compare("parent");
	victim_reap(pid);
	victim_ok();
	return 0;
}
