/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Robust futexes: who dies with one in hand is found out, thread or process. */
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "victim.h"

struct shared {
	pthread_mutex_t mutex;
	uint32_t held;
};

static void init(pthread_mutex_t *mutex, int shared)
{
	pthread_mutexattr_t attributes;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setpshared(&attributes, shared);
	check(pthread_mutex_init(mutex, &attributes) == 0, "mutex");
}

static void check_list(void *wanted, const char *who)
{
	void *head = NULL;
	size_t size = 0;

	must(syscall(SYS_get_robust_list, 0, &head, &size));
	check(head == wanted && size == sizeof(struct robust_list_head), "%s: list at %p, was %p",
	      who, head, wanted);
}

static void *list(void)
{
	void *head = NULL;
	size_t size;

	must(syscall(SYS_get_robust_list, 0, &head, &size));
	return head;
}

/* Ends like a crash: no library function gets a chance to unlock. */
static void *die_with_mutex(void *argument)
{
	struct shared *shared = argument;
	void *head = list();

	check(pthread_mutex_lock(&shared->mutex) == 0, "lock");
	victim_arrive(&shared->held);
	victim_wait();
	check_list(head, "thread");
	syscall(SYS_exit, 0);
	return NULL;
}

static void child(void *argument)
{
	struct shared *shared = argument;

	check(pthread_mutex_lock(&shared->mutex) == 0, "lock");
	victim_arrive(&shared->held);
	victim_wait();
	syscall(SYS_exit_group, 0);
}

int main(int argc, char **argv)
{
	static struct shared private;
	struct shared *shared;
	pthread_t thread;
	void *head;
	pid_t pid;
	int error;

	victim_init(argc, argv);
	head = list();
	shared = victim_shared(4096);
	init(&shared->mutex, PTHREAD_PROCESS_SHARED);
	init(&private.mutex, PTHREAD_PROCESS_PRIVATE);
	pid = victim_child(child, shared);
	check(pthread_create(&thread, NULL, die_with_mutex, &private) == 0, "pthread_create");
	victim_meet(&shared->held, 1);
	victim_meet(&private.held, 1);
	victim_ready();
	victim_wait();

	check_list(head, "main thread");
	victim_reap(pid);
	error = pthread_mutex_lock(&shared->mutex);
	check(error == EOWNERDEAD, "process-shared mutex: %s", strerror(error));
	check(pthread_join(thread, NULL) == 0, "join");
	error = pthread_mutex_lock(&private.mutex);
	check(error == EOWNERDEAD, "mutex of a thread: %s", strerror(error));
	victim_ok();
	return 0;
}
