/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The process tree: pids, parents, sessions, process groups, names. */
#include <signal.h>
#include <sys/prctl.h>

#include "victim.h"

struct identity {
	pid_t pid, parent, session, group;
	char name[16];
};

static uint32_t *arrived;

static struct identity look(void)
{
	struct identity self = {getpid(), getppid(), getsid(0), getpgid(0), ""};

	must(prctl(PR_GET_NAME, self.name));
	return self;
}

static void arrive_and_compare(void)
{
	struct identity before = look(), now;

	victim_arrive(arrived);
	victim_wait();
	now = look();
	check(now.pid == before.pid, "%s: pid was %d, is %d", before.name, before.pid, now.pid);
	check(now.parent == before.parent, "%s: parent was %d, is %d", before.name, before.parent,
	      now.parent);
	check(now.session == before.session, "%s: session was %d, is %d", before.name,
	      before.session, now.session);
	check(now.group == before.group, "%s: group was %d, is %d", before.name, before.group,
	      now.group);
	check(strcmp(now.name, before.name) == 0, "%s is called %s", before.name, now.name);
}

static void leaf(void *name)
{
	must(prctl(PR_SET_NAME, name));
	arrive_and_compare();
}

static void group_leader(void *name)
{
	must(prctl(PR_SET_NAME, name));
	must(setpgid(0, 0));
	pid_t child = victim_child(leaf, "in (group) x");

	arrive_and_compare();
	victim_reap(child);
}

static void session_leader(void *name)
{
	pid_t children[2];

	must(prctl(PR_SET_NAME, name));
	must(setsid());
	children[0] = victim_child(group_leader, "group");
	children[1] = victim_child(leaf, "in session");
	arrive_and_compare();
	victim_reap(children[0]);
	victim_reap(children[1]);
}

/* Moves into the group of an older brother. */
static void joiner(void *leader)
{
	must(setpgid(0, *(pid_t *)leader));
	must(prctl(PR_SET_NAME, "joiner"));
	arrive_and_compare();
}

/* The tree still works as one: a signal to a group reaches who is in it, waitpid() knows groups. */
static void use_groups(pid_t group)
{
	int status;

	must(kill(-group, SIGTERM));
	check(waitpid(-group, &status, 0) > 0, "nobody left in group %d", group);
	check(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "status %#x", status);
	check(waitpid(-group, &status, 0) < 0 && errno == ECHILD, "two were in group %d", group);
}

static void sleeper(void *unused)
{
	(void)unused;
	must(setpgid(0, 0));
	victim_arrive(arrived);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	pid_t session, brother, join, sleeping;
	/* sleeper; session, its group of two, one more; brother, his child; joiner */
	const uint32_t expected = 1 + 4 + 2 + 1;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	sleeping = victim_child(sleeper, NULL);
	session = victim_child(session_leader, "session");
	brother = victim_child(group_leader, "brother");
	must(setpgid(brother, brother));
	join = victim_child(joiner, &brother);
	must(prctl(PR_SET_NAME, "root"));
	victim_meet(arrived, expected);
	victim_ready();
	arrive_and_compare();

	victim_reap(session);
	victim_reap(join);
	victim_reap(brother);
	use_groups(sleeping);
	victim_ok();
	return 0;
}
