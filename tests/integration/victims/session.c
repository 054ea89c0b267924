/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Orphans: adopted by init in a living session, in a dead one, in a group whose leader is dead.
 * Groups whose founder lives, but has gone to another one. A child from before its parent's session,
 * where the parent shares with somebody who has made one, too.
 */
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

#include "stay.h"

static uint32_t *arrived;

static void member(void *unused)
{
	pid_t session = getsid(0);

	(void)unused;
	check(session != getpid(), "is the leader");
	while (getppid() != 1 || kill(session, 0) == 0)
		victim_nap(1);
	stay_a_member(arrived);
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
	(void)unused;
	while (getppid() != 1)
		victim_nap(1);
	stay_a_member(arrived);
	check(getppid() == 1, "parent is %d", getppid());
}

static void dying_parent(void *unused)
{
	(void)unused;
	victim_child(adopted, NULL);
}

static void stay_in_group(void *unused)
{
	(void)unused;
	check(getpgid(0) != getpid(), "is the leader");
	stay_a_member(arrived);
}

/* Leaves a child in it, and goes to the group @number. */
static void found_and_leave(void *number)
{
	pid_t group = *(pid_t *)number, stays;

	must(setpgid(0, 0));
	stays = victim_child(stay_in_group, NULL);
	while (setpgid(0, group) < 0)
		victim_nap(1);
	victim_arrive(arrived);
	victim_wait();
	check(getpgid(0) == group, "group was %d, is %d", group, getpgid(0));
	victim_reap(stays);
}

static void stay_in_session(void *number)
{
	pid_t session = *(pid_t *)number;

	check(getsid(0) == session, "session is %d", getsid(0));
	victim_arrive(arrived);
	victim_wait();
	check(getsid(0) == session, "session was %d, is %d", session, getsid(0));
}

/* Has its directory in common with its parent, until that unshares it, and with the next one. */
static pid_t make_session(int exit_signal, pid_t *leave_behind)
{
	pid_t pid = (pid_t)must(syscall(SYS_clone, CLONE_FS | exit_signal, 0, 0, 0, 0)), stays = 0;

	if (pid)
		return pid;
	if (leave_behind)
		stays = victim_child(stay_in_session, leave_behind);
	must(setsid());
	victim_arrive(arrived);
	victim_wait();
	check(getsid(0) == getpid(), "session is %d", getsid(0));
	if (stays)
		victim_reap(stays);
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t leader, stays, session = getsid(0), founders[2], leaders[2];

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

	/* One goes to the group of the session, the other one to that which the first has left. */
	founders[0] = victim_child(found_and_leave, &session);
	founders[1] = victim_child(found_and_leave, &founders[0]);

	/* With different exit signals: only a helper's child can have the second one's directory. */
	signal(SIGUSR1, SIG_IGN);
	leaders[0] = make_session(SIGUSR1, NULL);
	leaders[1] = make_session(SIGCHLD, &session);
	must(unshare(CLONE_FS));

	victim_meet(arrived, 11);
	victim_ready();
	victim_wait();
	victim_reap(stays);
	victim_reap(founders[0]);
	victim_reap(founders[1]);
	check(waitpid(leaders[0], NULL, __WALL) == leaders[0], "waitpid: %s", strerror(errno));
	victim_reap(leaders[1]);
	victim_meet(arrived, 17);
	victim_ok();
	return 0;
}
