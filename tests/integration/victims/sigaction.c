/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Signal dispositions as the kernel holds them: handler, flags, restorer, mask. */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#include "victim.h"

struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};

enum { SIGNALS = 64 };

static struct kernel_sigaction before[SIGNALS], now[SIGNALS];
static volatile int caught, caught_value;

static void catch (int signal)
{
	caught = signal;
}

static void catch_info(int signal, siginfo_t *info, void *context)
{
	(void)context;
	caught = signal;
	caught_value = info->si_value.sival_int;
}

static void look(struct kernel_sigaction *actions)
{
	for (int signal = 1; signal <= SIGNALS; signal++)
		must(syscall(SYS_rt_sigaction, signal, NULL, &actions[signal - 1], 8));
}

static void set(int signal, int flags, int masked)
{
	struct sigaction action = {.sa_flags = flags};

	if (flags & SA_SIGINFO)
		action.sa_sigaction = catch_info;
	else
		action.sa_handler = catch;
	sigemptyset(&action.sa_mask);
	if (masked)
		sigaddset(&action.sa_mask, masked);
	must(sigaction(signal, &action, NULL));
}

static void compare(const char *who)
{
	look(now);
	for (int i = 0; i < SIGNALS; i++)
		check(memcmp(&before[i], &now[i], sizeof(now[i])) == 0,
		      "%s: signal %d was %#lx %#lx %#lx %#lx, is %#lx %#lx %#lx %#lx", who, i + 1,
		      before[i].handler, before[i].flags, before[i].restorer, before[i].mask,
		      now[i].handler, now[i].flags, now[i].restorer, now[i].mask);
}

static void use(void)
{
	must(kill(getpid(), SIGUSR1));
	check(caught == SIGUSR1, "SIGUSR1 was not handled");
	must(sigqueue(getpid(), SIGRTMIN + 4, (union sigval){.sival_int = 99}));
	check(caught == SIGRTMIN + 4 && caught_value == 99, "queued value %d", caught_value);
	must(kill(getpid(), SIGHUP)); /* ignored */
	/* SA_RESETHAND worked once, the default is back. */
	must(kill(getpid(), SIGCHLD));
	look(now);
	check(now[SIGCHLD - 1].handler == 0, "SA_RESETHAND did not reset");
}

static uint32_t *arrived;

/* Another process, other dispositions. */
static void child(void *unused)
{
	(void)unused;
	signal(SIGUSR1, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	set(SIGUSR2, SA_RESTART | SA_NODEFER, SIGALRM);
	look(before);
	victim_arrive(arrived);
	victim_wait();
	compare("child");
	/* The parent counts its SIGCHLD. */
	victim_meet(arrived, 2);
}

int main(int argc, char **argv)
{
	pid_t pid;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	pid = victim_child(child, NULL);
	set(SIGUSR1, 0, SIGUSR2);
	set(SIGUSR2, SA_RESTART | SA_ONSTACK, 0);
	set(SIGINT, SA_NODEFER | SA_SIGINFO, SIGTERM);
	set(SIGCHLD, SA_RESETHAND | SA_NOCLDSTOP, 0);
	set(SIGRTMIN + 4, SA_SIGINFO, SIGRTMAX);
	set(SIGRTMAX, SA_RESTART, 0);
	set(SIGSEGV, SA_SIGINFO | SA_ONSTACK, 0);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	look(before);
	victim_meet(arrived, 1);
	victim_ready();
	victim_wait();
	compare("parent");
	use();
	victim_arrive(arrived);
	victim_reap(pid);
	victim_ok();
	return 0;
}
