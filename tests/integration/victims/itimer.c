/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Interval timers: what remained and the interval; time away does not count. */
#include <sys/time.h>

#include "ticker.h"

static struct ticker *ticker;
static volatile sig_atomic_t fired;
static volatile int64_t first, third; /* when it fired */

static void catch (int signal)
{
	(void)signal;
	if (++fired == 1)
		first = ticker->running;
	else if (fired == 3)
		third = ticker->running;
}

static int64_t remaining(int which)
{
	struct itimerval timer;

	must(getitimer(which, &timer));
	return timer.it_value.tv_sec * 1000000000LL + timer.it_value.tv_usec * 1000;
}

static void arm(int which, long seconds, long interval)
{
	struct itimerval timer = {{interval, 250000}, {seconds, 0}};

	must(setitimer(which, &timer, NULL));
}

static void check_interval(int which, long seconds)
{
	struct itimerval timer;

	must(getitimer(which, &timer));
	check(timer.it_interval.tv_sec == seconds && timer.it_interval.tv_usec == 250000,
	      "timer %d: interval is %ld.%06ld", which, timer.it_interval.tv_sec,
	      timer.it_interval.tv_usec);
}

static uint32_t *arrived;

/* One hour and more away: only what remains is looked at. */
static void long_timers(void *unused)
{
	int64_t begun, left;

	(void)unused;
	arm(ITIMER_REAL, 3600, 7);
	begun = ticker_read(ticker);
	victim_arrive(arrived);
	victim_wait();
	left = remaining(ITIMER_REAL);
	ticker_check(ticker, 3600000000000LL - left, ticker_read(ticker) - begun, "ITIMER_REAL");
	check_interval(ITIMER_REAL, 7);
}

/* Timers on CPU time, of which little passes. */
static void cpu_timers(void *unused)
{
	static const int all[] = {ITIMER_VIRTUAL, ITIMER_PROF};

	(void)unused;
	arm(ITIMER_VIRTUAL, 60, 8);
	arm(ITIMER_PROF, 60, 9);
	victim_arrive(arrived);
	victim_wait();
	for (int i = 0; i < 2; i++) {
		int64_t left = remaining(all[i]);

		check(left > 58000000000LL && left <= 60010000000LL, "timer %d: %lld ms left",
		      all[i], (long long)left / 1000000);
		check_interval(all[i], 8 + i);
	}
}

/* A signal that is blocked holds its timer up: it goes on when the signal is taken. */
static void resting_timer(void *unused)
{
	struct itimerval timer = {{0, 100000}, {0, 100000}};
	struct timespec patience = {1, 0};
	siginfo_t info;
	sigset_t set;

	(void)unused;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	must(setitimer(ITIMER_REAL, &timer, NULL));
	victim_nap(250);
	victim_arrive(arrived);
	victim_wait();
	for (int i = 0; i < 3; i++)
		check(sigtimedwait(&set, &info, &patience) == SIGALRM, "signal %d: %s", i,
		      strerror(errno));
}

int main(int argc, char **argv)
{
	int64_t begun;
	pid_t pids[3];

	victim_init(argc, argv);
	ticker = ticker_start();
	arrived = victim_shared(4096);
	pids[0] = victim_child(long_timers, NULL);
	pids[1] = victim_child(cpu_timers, NULL);
	pids[2] = victim_child(resting_timer, NULL);
	signal(SIGALRM, catch);
	begun = ticker_read(ticker);
	arm(ITIMER_REAL, 3, 0);
	victim_meet(arrived, 3);
	victim_ready();
	while (fired < 3)
		pause();
	ticker_check(ticker, first - begun, 3000000000LL, "SIGALRM");
	ticker_check(ticker, third - first, 500000000LL, "two intervals");
	arm(ITIMER_REAL, 0, 0);
	victim_wait();
	for (int i = 0; i < 3; i++)
		victim_reap(pids[i]);
	ticker_stop(ticker);
	victim_ok();
	return 0;
}
