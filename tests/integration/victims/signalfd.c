/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Signalfds: masks, a signal that is pending, and one that belongs to whoever reads. */
#include <signal.h>
#include <sys/signalfd.h>

#include "victim.h"

static int make(int flags, int first, int second)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, first);
	sigaddset(&set, second);
	must(sigprocmask(SIG_BLOCK, &set, NULL));
	return must(signalfd(-1, &set, flags));
}

static struct signalfd_siginfo take(int fd)
{
	struct signalfd_siginfo info;

	check(read(fd, &info, sizeof(info)) == sizeof(info), "read: %s", strerror(errno));
	return info;
}

static void check_nothing(int fd)
{
	struct signalfd_siginfo info;

	check(read(fd, &info, sizeof(info)) < 0 && errno == EAGAIN, "signal %d", info.ssi_signo);
}

static void queue(int signal, int number)
{
	must(sigqueue(getpid(), signal, (union sigval){.sival_int = number}));
}

/* The child reads its own signals through the descriptor that it shares with its parent. */
static void child(void *argument)
{
	int fd = *(int *)argument;

	victim_wait();
	check_nothing(fd);
	queue(SIGUSR1, 5);
	check(take(fd).ssi_int == 5, "the child's signal");
}

int main(int argc, char **argv)
{
	int usual, high, again;
	pid_t pid;

	victim_init(argc, argv);
	usual = make(SFD_NONBLOCK, SIGUSR1, SIGUSR2);
	high = make(SFD_NONBLOCK | SFD_CLOEXEC, SIGRTMAX, SIGRTMIN);
	again = must(dup(high));
	pid = victim_child(child, &usual);
	queue(SIGUSR2, 1);
	queue(SIGRTMAX, 2);
	queue(SIGRTMAX, 3);
	victim_ready();
	victim_wait();
	check(fcntl(high, F_GETFD) & FD_CLOEXEC, "FD_CLOEXEC lost");
	check(take(usual).ssi_signo == SIGUSR2, "the pending signal");
	check_nothing(usual);
	check(take(high).ssi_int == 2 && take(again).ssi_int == 3, "the queue");
	check_nothing(high);
	queue(SIGUSR1, 4);
	check(take(usual).ssi_int == 4, "a new signal");
	victim_reap(pid);
	victim_ok();
	return 0;
}
