/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rare settings of prctl(2): huge pages only where they are asked for, speculation control and I/O flushers where this machine lets
 * us have them; and the nice value of a session.
 */
#include <linux/prctl.h>
#include <sys/prctl.h>

#include "victim.h"

enum { EXCEPT_ADVISED = 2 }; /* Linux 6.18 */

struct settings {
	int thp, store_bypass, indirect_branch, io_flusher;
	char autogroup[64];
};

static uint32_t *arrived;

static struct settings look(void)
{
	struct settings settings = {0};
	char *nice;

	settings.thp = must(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
	settings.store_bypass = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
	settings.indirect_branch = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, 0, 0, 0);
	settings.io_flusher = prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0);
	if (access("/proc/self/autogroup", R_OK) == 0) {
		victim_read("/proc/self/autogroup", settings.autogroup, sizeof(settings.autogroup));
		/* "/autogroup-17 nice 5": the number is the kernel's */
		nice = strchr(settings.autogroup, ' ');
		check(nice, "autogroup: %s", settings.autogroup);
		memmove(settings.autogroup, nice, strlen(nice) + 1);
	}
	return settings;
}

static void arrive_and_compare(const char *who)
{
	struct settings was = look(), is;

	victim_arrive(arrived);
	victim_wait();
	is = look();
	check(is.thp == was.thp, "%s: THP %d, was %d", who, is.thp, was.thp);
	check(is.store_bypass == was.store_bypass, "%s: store bypass %d, was %d", who,
	      is.store_bypass, was.store_bypass);
	check(is.indirect_branch == was.indirect_branch, "%s: indirect branch %d, was %d", who,
	      is.indirect_branch, was.indirect_branch);
	check(is.io_flusher == was.io_flusher, "%s: I/O flusher %d, was %d", who, is.io_flusher,
	      was.io_flusher);
	check(strcmp(is.autogroup, was.autogroup) == 0, "%s: autogroup%s, was%s", who, is.autogroup,
	      was.autogroup);
}

static void set_autogroup(const char *nice)
{
	int fd = open("/proc/self/autogroup", O_WRONLY);

	if (fd < 0)
		return;
	must(write(fd, nice, strlen(nice)));
	must(close(fd));
}

static void session(void *unused)
{
	(void)unused;
	must(setsid());
	set_autogroup("7");
	prctl(PR_SET_THP_DISABLE, 1, EXCEPT_ADVISED, 0, 0);
	/* not everywhere */
	prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0);
	prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_FORCE_DISABLE, 0, 0);
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	arrive_and_compare("session");
}

int main(int argc, char **argv)
{
	pid_t pid;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	pid = victim_child(session, NULL);
	victim_meet(arrived, 1);
	victim_ready();
	arrive_and_compare("first");
	victim_reap(pid);
	victim_ok();
	return 0;
}
