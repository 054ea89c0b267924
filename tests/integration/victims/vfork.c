/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Programs started by vfork and posix_spawn all the time, by processes and by threads, with a moment
 * between the fork and the execution in which the parent cannot be stopped.
 */
#include <pthread.h>
#include <spawn.h>

#include "victim.h"

enum { STATUS = 3 };

static uint32_t *started;
static char *self;

static void check_end(pid_t pid)
{
	int status;

	check(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
	check(WIFEXITED(status) && WEXITSTATUS(status) == STATUS, "status %#x", status);
}

static const struct timespec pause_time = {.tv_nsec = 3000000};

static void start_slowly(void)
{
	char *const arguments[] = {self, "-", "end", NULL};
	pid_t pid = vfork();

	if (pid == 0) {
		nanosleep(&pause_time, NULL);
		execv(self, arguments);
		_exit(99);
	}
	check(pid > 0, "vfork: %s", strerror(errno));
	check_end(pid);
}

/* The child of a vfork starts another one before it executes a program. */
static void start_nested(void)
{
	char *const arguments[] = {self, "-", "end", NULL};
	pid_t pid = vfork();

	if (pid == 0) {
		pid_t inner;

		nanosleep(&pause_time, NULL);
		inner = vfork();
		if (inner == 0) {
			nanosleep(&pause_time, NULL);
			_exit(STATUS);
		}
		check_end(inner);
		execv(self, arguments);
		_exit(99);
	}
	check_end(pid);
}

static void spawn(void)
{
	char *const arguments[] = {self, "-", "end", NULL};
	pid_t pid;

	check(posix_spawn(&pid, self, NULL, NULL, arguments, NULL) == 0, "posix_spawn");
	check_end(pid);
}

static void *start_all(void *unused)
{
	(void)unused;
	while (!victim_told_to_go()) {
		start_slowly();
		spawn();
		start_nested();
		victim_arrive(started);
		victim_nap(1);
	}
	return NULL;
}

static void start_with_threads(void *unused)
{
	pthread_t threads[2];

	(void)unused;
	for (int i = 0; i < 2; i++)
		check(pthread_create(&threads[i], NULL, start_all, NULL) == 0, "create");
	for (int i = 0; i < 2; i++)
		check(pthread_join(threads[i], NULL) == 0, "join");
}

int main(int argc, char **argv)
{
	pid_t single, threaded;
	uint32_t count;

	if (argc == 3)
		return STATUS;
	self = argv[0];
	victim_init(argc, argv);
	started = victim_shared(4096);
	single = victim_child((void (*)(void *))(uintptr_t)start_all, NULL);
	threaded = victim_child(start_with_threads, NULL);
	victim_meet(started, 5);
	victim_ready();
	while (!victim_told_to_go())
		victim_nap(10);
	count = *started;
	check(count >= 5, "%u were started", count);
	victim_reap(single);
	victim_reap(threaded);
	victim_ok();
	return 0;
}
