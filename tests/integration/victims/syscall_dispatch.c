/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Syscall user dispatch: while a byte says so, a call raises SIGSYS. Each thread has its own byte. */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "victim.h"

/* Newer than the headers: linux/prctl.h */
enum { SET_DISPATCH = 59, DISPATCH_ON = 1, ALLOW = 0, BLOCK = 1 };

static __thread volatile char selector;
static __thread volatile long dispatched; /* number of the call */
static uint32_t arrived;

static void handler(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	selector = ALLOW; /* sigreturn(2) is a call too */
	dispatched = info->si_syscall;
}

static void try(const char *who)
{
	dispatched = -1;
	selector = BLOCK;
	syscall(SYS_getppid);
	selector = ALLOW;
	check(dispatched == SYS_getppid, "%s: call %ld was dispatched", who, dispatched);
}

static void on(void)
{
	must(prctl(SET_DISPATCH, DISPATCH_ON, 0, 0, &selector));
}

static void *run(void *unused)
{
	on();
	try("thread, before");
	victim_arrive(&arrived);
	victim_wait();
	try("thread");
	return unused;
}

/* It has none. */
static void *run_without(void *unused)
{
	victim_arrive(&arrived);
	victim_wait();
	dispatched = -1;
	selector = BLOCK;
	syscall(SYS_getppid);
	check(dispatched == -1, "a thread without dispatch has one");
	return unused;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	pthread_t threads[2];

	victim_init(argc, argv);
	must(sigaction(SIGSYS, &action, NULL));
	check(pthread_create(&threads[0], NULL, run, NULL) == 0, "pthread_create");
	check(pthread_create(&threads[1], NULL, run_without, NULL) == 0, "pthread_create");
	on();
	try("main thread, before");
	victim_meet(&arrived, 2);
	victim_ready();
	victim_wait();
	try("main thread");
	for (int i = 0; i < 2; i++)
		check(pthread_join(threads[i], NULL) == 0, "join");
	victim_ok();
	return 0;
}
