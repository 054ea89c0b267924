/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Alternate signal stacks, one per thread; one thread is on its own while it waits. */
#include <pthread.h>
#include <signal.h>

#include "victim.h"

/* <linux/signal.h> has it but does not go together with <signal.h>. */
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

enum { THREADS = 3, STACK = 64 * 1024 };

static uint32_t arrived;
static __thread stack_t mine;
static __thread volatile uintptr_t handled_at;

static bool is_mine(uintptr_t address)
{
	return address >= (uintptr_t)mine.ss_sp && address < (uintptr_t)mine.ss_sp + mine.ss_size;
}

static void handle(int signal)
{
	handled_at = (uintptr_t)__builtin_frame_address(0);
	if (signal == SIGUSR2) {
		victim_arrive(&arrived);
		victim_wait();
		check(is_mine((uintptr_t)__builtin_frame_address(0)), "handler was moved");
	}
}

static void set(int number, int flags)
{
	mine.ss_size = STACK + 4096 * number;
	mine.ss_sp = malloc(mine.ss_size);
	mine.ss_flags = flags;
	must(sigaltstack(&mine, NULL));
}

static void verify(const char *who, int flags)
{
	stack_t now;

	must(sigaltstack(NULL, &now));
	check(now.ss_sp == mine.ss_sp && now.ss_size == mine.ss_size && now.ss_flags == flags,
	      "%s: stack at %p, %zu bytes, flags %#x", who, now.ss_sp, now.ss_size, now.ss_flags);
	handled_at = 0;
	raise(SIGUSR1);
	check(is_mine(handled_at), "%s: handler ran at %#lx, stack is at %p", who, (long)handled_at,
	      mine.ss_sp);
}

static void *run(void *argument)
{
	int number = *(int *)argument;

	/* The second one disarms its stack whenever a handler runs on it. */
	set(number, number == 1 ? (int)SS_AUTODISARM : 0);
	if (number == 2) {
		raise(SIGUSR2); /* comes back when told to go */
	} else {
		victim_arrive(&arrived);
		victim_wait();
	}
	verify("thread", number == 1 ? (int)SS_AUTODISARM : 0);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
	int numbers[THREADS] = {0, 1, 2};
	pthread_t threads[THREADS];
	stack_t none;

	victim_init(argc, argv);
	must(sigaction(SIGUSR1, &action, NULL));
	must(sigaction(SIGUSR2, &action, NULL));
	for (int i = 0; i < THREADS; i++)
		check(pthread_create(&threads[i], NULL, run, &numbers[i]) == 0, "pthread_create");
	victim_meet(&arrived, THREADS);
	victim_ready();
	victim_wait();
	must(sigaltstack(NULL, &none));
	check(none.ss_flags == SS_DISABLE, "main thread got a stack, flags %#x", none.ss_flags);
	for (int i = 0; i < THREADS; i++)
		check(pthread_join(threads[i], NULL) == 0, "join");
	victim_ok();
	return 0;
}
