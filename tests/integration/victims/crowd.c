/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many: a thousand processes, some zombies among them, and a thousand threads of one process, or as
 * many as the arguments say. All of them sleep until they are told to go on: so many that poll would
 * leave no time to others.
 */
#include <pthread.h>
#include <sys/syscall.h>

#include "victim.h"

enum { MOST = 4000, MANY = 1000, STACK = 64 << 10 };

static int processes = MANY, threads = MANY;

static uint32_t *arrived;
static int go[2];
static pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;

/* Until the other end is closed. */
static void sleep_on(void)
{
	char byte;

	close(go[1]);
	check(read(go[0], &byte, 1) == 0, "read: %s", strerror(errno));
}

static void be_one_of_many(void *number)
{
	pid_t pid = getpid(), parent = getppid();
	uint64_t own[32];

	victim_fill(own, sizeof(own), (uintptr_t)number);
	victim_arrive(arrived);
	sleep_on();
	check(getpid() == pid && getppid() == parent, "pid %d, parent %d", getpid(), getppid());
	check(victim_differs(own, sizeof(own), (uintptr_t)number) < 0, "memory has changed");
	_exit((uintptr_t)number % 100);
}

static void end_soon(void *number)
{
	_exit((uintptr_t)number % 100);
}

static void *be_a_thread(void *number)
{
	pid_t tid = gettid();
	uint64_t own[32];

	victim_fill(own, sizeof(own), (uintptr_t)number);
	victim_arrive(arrived);
	check(pthread_rwlock_rdlock(&gate) == 0, "lock");
	pthread_rwlock_unlock(&gate);
	check(syscall(SYS_gettid) == tid, "thread was %d, is %ld", tid, syscall(SYS_gettid));
	check(victim_differs(own, sizeof(own), (uintptr_t)number) < 0, "memory has changed");
	return number;
}

static void have_threads(void *unused)
{
	static pthread_t handles[MOST];
	pthread_attr_t attributes;
	void *result;

	(void)unused;
	pthread_attr_init(&attributes);
	check(pthread_attr_setstacksize(&attributes, STACK) == 0, "stack size");
	pthread_rwlock_wrlock(&gate);
	for (uintptr_t i = 0; i < (uintptr_t)threads; i++)
		check(pthread_create(&handles[i], &attributes, be_a_thread, (void *)i) == 0,
		      "create %zu", i);
	sleep_on();
	pthread_rwlock_unlock(&gate);
	for (uintptr_t i = 0; i < (uintptr_t)threads; i++) {
		check(pthread_join(handles[i], &result) == 0, "join of thread %zu", i);
		check(result == (void *)i, "result of thread %zu", i);
	}
}

int main(int argc, char **argv)
{
	static pid_t pids[MOST];
	pid_t threaded;
	int status, zombies;

	victim_init(argc, argv);
	if (argc == 4) {
		processes = atoi(argv[2]);
		threads = atoi(argv[3]);
	}
	check(processes <= MOST && threads <= MOST, "too many");
	zombies = processes / 20;
	arrived = victim_shared(4096);
	must(pipe2(go, O_CLOEXEC));
	threaded = victim_child(have_threads, NULL);
	for (uintptr_t i = 0; i < (uintptr_t)processes; i++)
		pids[i] =
			victim_child(i < (uintptr_t)zombies ? end_soon : be_one_of_many, (void *)i);
	victim_meet(arrived, processes - zombies + threads);
	victim_ready();
	victim_wait();
	close(go[1]);
	for (uintptr_t i = 0; i < (uintptr_t)processes; i++) {
		check(waitpid(pids[i], &status, 0) == pids[i], "waitpid(%d)", pids[i]);
		check(WIFEXITED(status) && WEXITSTATUS(status) == (int)(i % 100), "status %#x",
		      status);
	}
	victim_reap(threaded);
	victim_ok();
	return 0;
}
