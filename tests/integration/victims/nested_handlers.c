/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Signal handlers within signal handlers, three deep when the checkpoint comes: each returns to what
 * it has interrupted, with its mask and on its stack. One thread waits in calls, the other one also in user space.
 */
#include <pthread.h>
#include <signal.h>

#include "victim.h"

enum { STACK = 64 << 10, DEPTH = 3 };

/* The second one runs on the alternate stack, and the third one on top of it. */
static const struct level {
	int signal, flags, blocks;
} levels[DEPTH] = {
	{SIGUSR1, SA_SIGINFO, SIGTERM},
	{SIGUSR2, SA_SIGINFO | SA_ONSTACK, SIGHUP},
	{SIGALRM, SA_SIGINFO | SA_ONSTACK | SA_NODEFER, SIGCHLD},
};

static uint32_t arrived, go;
static __thread int depth;
static __thread bool spins;
static __thread char *alternate;

static bool on_alternate(void)
{
	char *here = __builtin_frame_address(0);

	return here >= alternate && here < alternate + STACK;
}

static bool is_blocked(int signal)
{
	sigset_t mask;

	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	return sigismember(&mask, signal);
}

/* At @level, 0: in no handler. What the levels above block is blocked by all below too. */
static void check_level(int level, const char *when)
{
	check(depth == level, "%s: depth %d, not %d", when, depth, level);
	for (int i = 0; i < DEPTH; i++) {
		bool within = i < level;

		check(is_blocked(levels[i].blocks) == within, "%s: signal %d, level %d", when,
		      levels[i].blocks, level);
		check(is_blocked(levels[i].signal) == (within && !(levels[i].flags & SA_NODEFER)),
		      "%s: signal %d, level %d", when, levels[i].signal, level);
	}
	check(on_alternate() == (level > 1), "%s: on the wrong stack at level %d", when, level);
}

static void wait_there(void)
{
	victim_arrive(&arrived);
	/* a moment in user space, ten asleep: others want the processors too */
	while (spins && !__atomic_load_n(&go, __ATOMIC_SEQ_CST)) {
		for (int i = 0; i < 20000; i++)
			__builtin_ia32_pause();
		victim_nap(10);
	}
	if (!spins)
		victim_wait();
}

static void handle(int signal, siginfo_t *info, void *context)
{
	int level = ++depth;
	double value = 1.5 * level;

	check(signal == levels[level - 1].signal && info->si_signo == signal && context,
	      "signal %d at level %d", signal, level);
	errno = level;
	check_level(level, "before");
	if (level < DEPTH)
		check(pthread_kill(pthread_self(), levels[level].signal) == 0, "pthread_kill");
	else
		wait_there();
	check_level(level, "after");
	check(value == 1.5 * level && info->si_signo == signal, "level %d: changed", level);
	depth--;
}

static void *run(void *argument)
{
	stack_t stack = {.ss_size = STACK};

	spins = argument != NULL;
	alternate = stack.ss_sp = malloc(STACK);
	must(sigaltstack(&stack, NULL));
	check(pthread_kill(pthread_self(), levels[0].signal) == 0, "pthread_kill");
	check_level(0, "at the end");
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[2];

	victim_init(argc, argv);
	for (int i = 0; i < DEPTH; i++) {
		struct sigaction action = {.sa_sigaction = handle, .sa_flags = levels[i].flags};

		sigaddset(&action.sa_mask, levels[i].blocks);
		must(sigaction(levels[i].signal, &action, NULL));
	}
	check(pthread_create(&threads[0], NULL, run, NULL) == 0, "pthread_create");
	check(pthread_create(&threads[1], NULL, run, &go) == 0, "pthread_create");
	victim_meet(&arrived, 2);
	victim_ready();
	victim_wait();
	victim_arrive(&go);
	for (int i = 0; i < 2; i++)
		check(pthread_join(threads[i], NULL) == 0, "join");
	victim_ok();
	return 0;
}
