/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Timers that come due every few milliseconds, before, during and after a checkpoint: each fires
 * exactly once. POSIX timers whose signal is handled or waits in the queue, timerfds, and interval
 * timers of children.
 */
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>

#include "ticker.h"

enum {
	TIMERS = 120,
	APART = 25 * 1000 * 1000, /* ns */
	CHILDREN = 24,
	END = TIMERS * (APART / 1000000) + 500, /* ms of running time */
};

static volatile int fired[TIMERS];
static volatile sig_atomic_t alarms;

static void count(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	fired[info->si_value.sival_int]++;
}

static void count_alarm(int signal)
{
	(void)signal;
	alarms++;
}

static struct itimerspec in(int64_t ns)
{
	return (struct itimerspec){.it_value = {ns / 1000000000, ns % 1000000000}};
}

static void arm(int signal, int number)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = signal};
	struct itimerspec time = in((number + 1) * (int64_t)APART);
	int id = -1;

	event.sigev_value.sival_int = number;
	must(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
	must(syscall(SYS_timer_settime, id, 0, &time, NULL));
}

/* Until all timers are due that have been set by now, which may have taken long. */
static void wait_for_end(const struct ticker *ticker)
{
	struct timespec pause = {.tv_nsec = 1000000};
	int64_t begun = ticker_read(ticker);

	/* signals end it, and none is lost by that */
	while (ticker->running - begun < END * 1000000LL)
		nanosleep(&pause, NULL);
}

struct child {
	const struct ticker *ticker;
	int number;
};

static void run(void *argument)
{
	const struct child *child = argument;
	int64_t us = (child->number + 1) * (int64_t)APART / 1000 * TIMERS / CHILDREN;
	struct itimerval time = {.it_value = {us / 1000000, us % 1000000}};

	signal(SIGALRM, count_alarm);
	must(setitimer(ITIMER_REAL, &time, NULL));
	wait_for_end(child->ticker);
	check(alarms == 1, "interval timer %d has fired %d times", child->number, alarms);
}

static void check_queue(int signal)
{
	int queued[TIMERS] = {0};
	struct timespec none = {0};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signal);
	while (sigtimedwait(&set, &info, &none) == signal)
		queued[info.si_value.sival_int]++;
	for (int i = 0; i < TIMERS; i++)
		check(queued[i] == 1, "timer %d is %d times in the queue", i, queued[i]);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_sigaction = count, .sa_flags = SA_SIGINFO};
	int handled = SIGRTMIN, blocked = SIGRTMIN + 1, fds[TIMERS];
	struct child children[CHILDREN];
	struct ticker *ticker;
	pid_t pids[CHILDREN];
	sigset_t set;

	victim_init(argc, argv);
	ticker = ticker_start();
	sigaction(handled, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, blocked);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < CHILDREN; i++) {
		children[i] = (struct child){ticker, i};
		pids[i] = victim_child(run, &children[i]);
	}
	for (int i = 0; i < TIMERS; i++) {
		struct itimerspec time = in((i + 1) * (int64_t)APART);

		arm(handled, i);
		arm(blocked, i);
		fds[i] = must(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
		must(timerfd_settime(fds[i], 0, &time, NULL));
	}
	victim_ready();
	wait_for_end(ticker);
	for (int i = 0; i < TIMERS; i++) {
		uint64_t ticks = 0;

		check(fired[i] == 1, "timer %d has fired %d times", i, fired[i]);
		check(read(fds[i], &ticks, sizeof(ticks)) == sizeof(ticks) && ticks == 1,
		      "timerfd %d has fired %lu times", i, (unsigned long)ticks);
	}
	check_queue(blocked);
	for (int i = 0; i < CHILDREN; i++)
		victim_reap(pids[i]);
	ticker_stop(ticker);
	victim_wait();
	victim_ok();
	return 0;
}
