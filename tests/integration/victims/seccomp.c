/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Seccomp: the filter that the runtime has loaded before init, inherited by all. */
#include <sched.h>
#include <sys/prctl.h>

#include "victim.h"

/* What the profile of the test gives for sched_rr_get_interval(2). */
enum { TELLTALE = 42 };

static int filters(void)
{
	char text[4096], *line;
	int count = -1;

	victim_read("/proc/self/status", text, sizeof(text));
	line = strstr(text, "\nSeccomp_filters:");
	check(line && sscanf(line, "\nSeccomp_filters: %d", &count) == 1, "no count of filters");
	return count;
}

static void look(int expected)
{
	struct timespec time;

	check(prctl(PR_GET_SECCOMP) == 2, "mode %d", prctl(PR_GET_SECCOMP));
	check(filters() == expected, "%d filters, %d before", filters(), expected);
	check(sched_rr_get_interval(0, &time) < 0 && errno == TELLTALE, "the filter is gone");
}

int main(int argc, char **argv)
{
	int before;

	victim_init(argc, argv);
	before = filters();
	look(before);
	victim_ready();
	victim_wait();
	look(before);
	victim_ok();
	return 0;
}
