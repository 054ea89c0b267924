/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Subreapers: with orphans of their own session, of a living and of a dead one; one below the other;
 * one that is none any more and keeps whom it has adopted.
 */
#include <signal.h>
#include <sys/prctl.h>

#include "victim.h"

struct shared {
	uint32_t arrived, verified;
	pid_t orphans[16];
	uint32_t count;
};

static struct shared *shared;

/* Whoever runs this has lost its parent to @reaper. */
static void be_adopted(void *reaper)
{
	pid_t parent = *(pid_t *)reaper, session = getsid(0), group = getpgid(0);

	while (getppid() != parent)
		victim_nap(1);
	shared->orphans[__atomic_fetch_add(&shared->count, 1, __ATOMIC_SEQ_CST)] = getpid();
	victim_arrive(&shared->arrived);
	victim_wait();
	check(getppid() == parent, "parent was %d, is %d", parent, getppid());
	check(getsid(0) == session, "session was %d, is %d", session, getsid(0));
	check(getpgid(0) == group, "group was %d, is %d", group, getpgid(0));
	victim_arrive(&shared->verified);
}

static void leave_orphan(void *reaper)
{
	victim_child(be_adopted, reaper);
}

static void leave_session(void *reaper)
{
	must(setsid());
	victim_child(be_adopted, reaper);
	victim_child(be_adopted, reaper);
}

/* A living leader whose grandchild is not its own any more. */
static void stay_in_session(void *reaper)
{
	must(setsid());
	victim_reap(victim_child(leave_orphan, reaper));
	victim_arrive(&shared->arrived);
	victim_wait();
	check(getsid(0) == getpid(), "session %d", getsid(0));
}

static void reap_orphans_of(const pid_t *pids, int count)
{
	for (int i = 0; i < count; i++)
		victim_reap(pids[i]);
}

static int orphans_since(uint32_t before, pid_t *ret)
{
	int count = 0;

	for (uint32_t i = before; i < shared->count; i++)
		ret[count++] = shared->orphans[i];
	return count;
}

static void expect_reaper(int wanted)
{
	int now = -1;

	must(prctl(PR_GET_CHILD_SUBREAPER, &now));
	check(now == wanted, "subreaper: %d, expected %d", now, wanted);
}

/* It adopts a few, and then it is none any more. */
static void reap_for_a_while(void *unused)
{
	pid_t self = getpid(), mine[4];
	uint32_t before = shared->count;
	int count;

	(void)unused;
	must(prctl(PR_SET_CHILD_SUBREAPER, 1));
	victim_reap(victim_child(leave_orphan, &self));
	victim_reap(victim_child(leave_session, &self));
	while (shared->count < before + 3)
		victim_nap(1);
	count = orphans_since(before, mine);
	must(prctl(PR_SET_CHILD_SUBREAPER, 0));
	victim_arrive(&shared->arrived);
	victim_wait();
	expect_reaper(0);
	reap_orphans_of(mine, count);
}

int main(int argc, char **argv)
{
	pid_t self, mine[8], leader, other;
	int count;

	victim_init(argc, argv);
	shared = victim_shared(4096);
	self = getpid();
	must(prctl(PR_SET_CHILD_SUBREAPER, 1));
	victim_reap(victim_child(leave_orphan, &self));
	victim_reap(victim_child(leave_session, &self));
	leader = victim_child(stay_in_session, &self);
	victim_meet(&shared->arrived, 5);
	count = orphans_since(0, mine);
	other = victim_child(reap_for_a_while, NULL);
	victim_meet(&shared->arrived, 9);
	victim_ready();
	victim_wait();

	expect_reaper(1);
	reap_orphans_of(mine, count);
	victim_reap(leader);
	victim_reap(other);
	check(shared->verified == 7, "%u have verified", shared->verified);
	/* it still works */
	count = shared->count;
	victim_reap(victim_child(leave_orphan, &self));
	while (shared->count == (uint32_t)count)
		victim_nap(1);
	victim_reap(shared->orphans[count]);
	victim_ok();
	return 0;
}
