/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Orphans: adopted by init in a living session, in a dead one, in a group whose leader is dead. */
#include <signal.h>

#include "victim.h"

static uint32_t *arrived;

static void member(void *unused)
{
	pid_t session = getsid(0), group = getpgid(0);

	(void)unused;
	check(session != getpid(), "is the leader");
	while (getppid() != 1 || kill(session, 0) == 0)
		victim_nap(1);
	victim_arrive(arrived);
	victim_wait();
	check(getsid(0) == session, "session was %d, is %d", session, getsid(0));
	check(getpgid(0) == group, "group was %d, is %d", group, getpgid(0));
	victim_arrive(arrived);
}

static void dying_leader(void *unused)
{
	(void)unused;
	must(setsid());
	victim_child(member, NULL);
	victim_child(member, NULL);
}

/* Its session is the victim's, its parent is init. */
static void adopted(void *unused)
{
	pid_t session = getsid(0);

	(void)unused;
	while (getppid() != 1)
		victim_nap(1);
	victim_arrive(arrived);
	victim_wait();
	check(getppid() == 1, "parent is %d", getppid());
	check(getsid(0) == session, "session was %d, is %d", session, getsid(0));
	victim_arrive(arrived);
}

static void dying_parent(void *unused)
{
	(void)unused;
	victim_child(adopted, NULL);
}

static void stay_in_group(void *unused)
{
	pid_t group = getpgid(0);

	(void)unused;
	check(group != getpid(), "is the leader");
	victim_arrive(arrived);
	victim_wait();
	check(getpgid(0) == group, "group was %d, is %d", group, getpgid(0));
	victim_arrive(arrived);
}

int main(int argc, char **argv)
{
	pid_t leader, stays;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	victim_reap(victim_child(dying_leader, NULL));
	victim_reap(victim_child(dying_parent, NULL));

	/* A group in our own session whose leader ends while a second one stays in it. */
	leader = must(fork());
	if (leader == 0) {
		must(setpgid(0, 0));
		victim_nap(100);
		_exit(0);
	}
	if (setpgid(leader, leader) < 0 && errno != EACCES)
		must(-1);
	stays = must(fork());
	if (stays == 0) {
		must(setpgid(0, leader));
		victim_nap(300);
		stay_in_group(NULL);
		_exit(0);
	}
	victim_reap(leader);

	victim_meet(arrived, 4);
	victim_ready();
	victim_wait();
	victim_reap(stays);
	victim_meet(arrived, 8);
	victim_ok();
	return 0;
}
