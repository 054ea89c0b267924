/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dumpable as fs.suid_dumpable says, which must be 2: of root and of another user. */
#include <sys/fsuid.h>
#include <sys/prctl.h>

#include "victim.h"

static uint32_t *arrived;

static void stay(const char *who)
{
	check(prctl(PR_GET_DUMPABLE) == 2, "%s: dumpable is %d", who, prctl(PR_GET_DUMPABLE));
	victim_arrive(arrived);
	victim_wait();
	check(prctl(PR_GET_DUMPABLE) == 2, "%s: dumpable is %d now", who, prctl(PR_GET_DUMPABLE));
}

static void be_root(void *unused)
{
	(void)unused;
	setfsuid(1);
	setfsuid(0);
	stay("root");
}

static void be_somebody(void *unused)
{
	(void)unused;
	must(setresuid(1000, 1000, 1000));
	stay("another user");
}

int main(int argc, char **argv)
{
	pid_t pids[2];

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	pids[0] = victim_child(be_root, NULL);
	pids[1] = victim_child(be_somebody, NULL);
	victim_meet(arrived, 2);
	victim_ready();
	victim_wait();
	victim_reap(pids[0]);
	victim_reap(pids[1]);
	victim_ok();
	return 0;
}
