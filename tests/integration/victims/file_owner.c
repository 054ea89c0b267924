/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who gets the signals about a file: a group and a process that have outlived whom they are named by,
 * and one thread of several.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#include "victim.h"

struct owned {
	int fd;
	struct f_owner_ex owner;
};

static uint32_t *members, *threads;
static volatile pid_t thread_id;

static void member(void *unused)
{
	(void)unused;
	victim_arrive(members);
	for (;;)
		pause();
}

/* Leads a group, and ends before it. */
static void lead_group(void *unused)
{
	(void)unused;
	must(setpgid(0, 0));
	victim_child(member, NULL);
	victim_meet(members, 1);
}

static void *rest(void *unused)
{
	thread_id = (pid_t)syscall(SYS_gettid);
	victim_arrive(threads);
	for (;;)
		pause();
	return unused;
}

/* The first thread ends, the process goes on. */
static void lead_threads(void *unused)
{
	pthread_t thread;

	(void)unused;
	check(!pthread_create(&thread, NULL, rest, NULL), "pthread_create");
	victim_meet(threads, 1);
	syscall(SYS_exit, 0);
}

static pid_t start_thread(void)
{
	uint32_t before = *threads;
	pthread_t thread;

	check(!pthread_create(&thread, NULL, rest, NULL), "pthread_create");
	victim_meet(threads, before + 1);
	return thread_id;
}

static struct owned own(int type, pid_t pid)
{
	struct owned one = {.owner = {.type = type, .pid = pid}};

	one.fd = must(open(victim_path, O_RDWR | O_CREAT, 0600));
	must(fcntl(one.fd, F_SETOWN_EX, &one.owner));
	return one;
}

static void check_owner(const struct owned *one)
{
	struct f_owner_ex now;

	must(fcntl(one->fd, F_GETOWN_EX, &now));
	check(now.type == one->owner.type && now.pid == one->owner.pid,
	      "owner of type %d is %d (type %d), not %d", one->owner.type, now.pid, now.type,
	      one->owner.pid);
}

int main(int argc, char **argv)
{
	enum { OWNED = 3 };
	struct owned owned[OWNED];
	pid_t group, process;

	victim_init(argc, argv);
	members = victim_shared(sizeof(*members));
	threads = victim_shared(sizeof(*threads));
	group = victim_child(lead_group, NULL);
	victim_reap(group);
	process = victim_child(lead_threads, NULL);
	victim_meet(threads, 1);
	victim_nap(100);
	owned[0] = own(F_OWNER_PGRP, group);
	owned[1] = own(F_OWNER_PID, process);
	owned[2] = own(F_OWNER_TID, start_thread());
	victim_ready();
	victim_wait();
	for (int i = 0; i < OWNED; i++)
		check_owner(&owned[i]);
	must(kill(-group, SIGKILL));
	must(kill(process, SIGKILL));
	must(waitpid(process, NULL, 0));
	victim_ok();
	return 0;
}
