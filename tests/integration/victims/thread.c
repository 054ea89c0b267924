/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads: ids, names, thread-local storage, masks, the right to read the time stamp counter, the
 * smallest stacks there may be; each goes on counting where it was.
 */
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "victim.h"

enum { THREADS = 12 };

static __thread uint64_t local[64];
static uint32_t arrived;

struct thread {
	pthread_t handle;
	int number;
	volatile uint64_t count;
};

/* Some threads spin in user space between their naps: a checkpoint meets both. */
static void count(struct thread *self)
{
	double sum = 0;

	for (uint64_t i = 1; !victim_told_to_go(); i++) {
		check(self->count == i - 1, "thread %d lost count", self->number);
		self->count = i;
		sum += i;
		check(sum == (double)i * (i + 1) / 2, "thread %d lost its sum", self->number);
		if (self->number % 6 == 1)
			for (volatile int spin = 0; spin < 1000000; spin++)
				;
		victim_nap(5);
	}
}

static void *run(void *argument)
{
	struct thread *self = argument;
	char name[16], now[16];
	sigset_t mask, current;
	pid_t tid = gettid();
	int tsc;

	snprintf(name, sizeof(name), "worker-%d", self->number);
	must(prctl(PR_SET_NAME, name));
	victim_fill(local, sizeof(local), self->number);
	sigemptyset(&mask);
	sigaddset(&mask, SIGRTMIN + self->number);
	check(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0, "pthread_sigmask");
	if (self->number % 4 == 2)
		must(prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
	victim_arrive(&arrived);

	count(self);

	check(syscall(SYS_gettid) == tid, "thread %d was %d, is now %ld", self->number, tid,
	      syscall(SYS_gettid));
	must(prctl(PR_GET_NAME, now));
	check(strcmp(now, name) == 0, "%s is called %s now", name, now);
	must(prctl(PR_GET_TSC, &tsc));
	check(tsc == (self->number % 4 == 2 ? PR_TSC_SIGSEGV : PR_TSC_ENABLE),
	      "%s: the time stamp counter: %d", name, tsc);
	check(victim_differs(local, sizeof(local), self->number) < 0, "%s lost its TLS", name);
	pthread_sigmask(SIG_SETMASK, NULL, &current);
	check(memcmp(&current, &mask, 8) == 0, "%s has another signal mask", name);
	return self;
}

int main(int argc, char **argv)
{
	static struct thread threads[THREADS];
	pthread_attr_t smallest;
	pid_t pid = getpid();

	victim_init(argc, argv);
	pthread_attr_init(&smallest);
	check(pthread_attr_setstacksize(&smallest, PTHREAD_STACK_MIN) == 0, "stack size");
	for (int i = 0; i < THREADS; i++) {
		threads[i].number = i;
		check(pthread_create(&threads[i].handle, i % 3 ? NULL : &smallest, run,
				     &threads[i]) == 0,
		      "create");
	}
	victim_meet(&arrived, THREADS);
	victim_ready();
	victim_wait();

	for (int i = 0; i < THREADS; i++) {
		void *result;

		check(pthread_join(threads[i].handle, &result) == 0, "join of thread %d", i);
		check(result == &threads[i], "result of thread %d", i);
	}
	check(getpid() == pid, "pid was %d, is %d", pid, getpid());
	/* The restored group can still grow. */
	check(pthread_create(&threads[0].handle, NULL, run, &threads[0]) == 0, "create again");
	check(pthread_join(threads[0].handle, NULL) == 0, "join again");
	victim_ok();
	return 0;
}
