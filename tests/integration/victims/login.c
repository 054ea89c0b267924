/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The login user id for the audit log: nobody's, somebody's, and inherited by threads and children. */
#include <pthread.h>

#include "victim.h"

static uint32_t *arrived;

static void read_login(char *text, size_t size)
{
	victim_read("/proc/thread-self/loginuid", text, size);
}

static void arrive_and_compare(const char *who)
{
	char was[32], is[32];

	read_login(was, sizeof(was));
	victim_arrive(arrived);
	victim_wait();
	read_login(is, sizeof(is));
	check(strcmp(is, was) == 0, "%s: login user id %s, was %s", who, is, was);
}

static void *thread(void *unused)
{
	arrive_and_compare("thread");
	return unused;
}

static void log_in(void *user)
{
	int fd = must(open("/proc/self/loginuid", O_WRONLY));
	pthread_t other;
	pid_t child;

	must(write(fd, user, strlen(user)));
	must(close(fd));
	check(pthread_create(&other, NULL, thread, NULL) == 0, "pthread_create");
	child = must(fork());
	arrive_and_compare(child ? user : "child");
	if (child == 0)
		_exit(0);
	check(pthread_join(other, NULL) == 0, "join");
	victim_reap(child);
}

int main(int argc, char **argv)
{
	pid_t pids[2];

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	pids[0] = victim_child(log_in, "1000");
	pids[1] = victim_child(log_in, "1001");
	victim_meet(arrived, 6);
	victim_ready();
	arrive_and_compare("first");
	victim_reap(pids[0]);
	victim_reap(pids[1]);
	victim_ok();
	return 0;
}
