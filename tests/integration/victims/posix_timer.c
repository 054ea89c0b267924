/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * POSIX timers on all clocks that need no hardware, all ways to tell, ids with gaps; timers that
 * have fired, whose signals wait in order among others; overruns. Time away counts for none but
 * those that were set for a moment of the wall clock.
 */
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "ticker.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { SECOND = 1000000000, PERIOD = 20000000, LONG = 3600 };

static struct ticker *ticker;
static volatile pid_t thread_tid;
static uint32_t thread_done;
static int64_t begun; /* running time when the long timers were armed */

/* The C library wraps ids: the kernel's own are looked at. */
static int make(clockid_t clock, int notify, int signal, long value, pid_t tid)
{
	struct sigevent event = {.sigev_notify = notify, .sigev_signo = signal};
	int id = -1;

	event.sigev_value.sival_ptr = (void *)value;
	event.sigev_notify_thread_id = tid;
	must(syscall(SYS_timer_create, clock, &event, &id));
	return id;
}

static struct timespec to_timespec(int64_t ns)
{
	return (struct timespec){ns / SECOND, ns % SECOND};
}

static void arm(int id, int flags, int64_t value, int64_t interval)
{
	struct itimerspec time = {to_timespec(interval), to_timespec(value)};

	must(syscall(SYS_timer_settime, id, flags, &time, NULL));
}

static int64_t left(int id)
{
	struct itimerspec time;

	must(syscall(SYS_timer_gettime, id, &time));
	return time.it_value.tv_sec * (int64_t)SECOND + time.it_value.tv_nsec;
}

static int64_t interval_of(int id)
{
	struct itimerspec time;

	must(syscall(SYS_timer_gettime, id, &time));
	return time.it_interval.tv_sec * (int64_t)SECOND + time.it_interval.tv_nsec;
}

static int64_t now_of(clockid_t clock)
{
	struct timespec now;

	must(clock_gettime(clock, &now));
	return now.tv_sec * (int64_t)SECOND + now.tv_nsec;
}

/* The next pending signal of this number, which must be there. */
static siginfo_t take(int signal)
{
	struct timespec none = {0, 0};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signal);
	check(syscall(SYS_rt_sigtimedwait, &set, &info, &none, 8) == signal,
	      "signal %d is not pending", signal);
	return info;
}

static siginfo_t await(int signal, long seconds)
{
	struct timespec time = {seconds, 0};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signal);
	check(syscall(SYS_rt_sigtimedwait, &set, &info, &time, 8) == signal,
	      "signal %d does not come", signal);
	return info;
}

static void check_none(int signal)
{
	sigset_t pending;

	must(sigpending(&pending));
	check(!sigismember(&pending, signal), "signal %d is pending", signal);
}

static void check_timer_info(const siginfo_t *info, int id, long value)
{
	check(info->si_code == SI_TIMER, "code %d", info->si_code);
	check(info->si_timerid == id, "timer %d, not %d", info->si_timerid, id);
	check((long)info->si_value.sival_ptr == value, "value %lx, not %lx",
	      (long)info->si_value.sival_ptr, value);
}

/* One hour and more to go: only what remains is looked at. */
static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI};
static const char *const clock_names[] = {"CLOCK_REALTIME", "CLOCK_MONOTONIC", "CLOCK_BOOTTIME",
					  "CLOCK_TAI"};
enum { CLOCKS = sizeof(clocks) / sizeof(clocks[0]) };
static int distant[CLOCKS], silent, absolute, wall, disarmed;
static int64_t wall_moment;

static void make_distant(void)
{
	int spare[3];

	for (int i = 0; i < 3; i++)
		spare[i] = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
	begun = ticker_read(ticker);
	for (int i = 0; i < CLOCKS; i++) {
		distant[i] = make(clocks[i], SIGEV_SIGNAL, SIGUSR1, 1000 + i, 0);
		arm(distant[i], 0, LONG * (int64_t)SECOND, 0);
	}
	silent = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
	arm(silent, 0, LONG * (int64_t)SECOND, 7 * (int64_t)SECOND);
	absolute = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGUSR1, 0, 0);
	arm(absolute, TIMER_ABSTIME, now_of(CLOCK_MONOTONIC) + LONG * (int64_t)SECOND, 0);
	wall = make(CLOCK_REALTIME, SIGEV_SIGNAL, SIGUSR1, 0, 0);
	wall_moment = now_of(CLOCK_REALTIME) + LONG * (int64_t)SECOND;
	arm(wall, TIMER_ABSTIME, wall_moment, 5 * (int64_t)SECOND);
	disarmed = make(CLOCK_REALTIME, SIGEV_SIGNAL, SIGUSR2, 0, 0);
	for (int i = 0; i < 3; i++)
		must(syscall(SYS_timer_delete, spare[i]));
}

static void check_distant(void)
{
	int64_t ran = ticker_read(ticker) - begun;

	for (int i = 0; i < CLOCKS; i++)
		ticker_check(ticker, LONG * (int64_t)SECOND - left(distant[i]), ran,
			     clock_names[i]);
	ticker_check(ticker, LONG * (int64_t)SECOND - left(silent), ran, "SIGEV_NONE");
	check(interval_of(silent) == 7 * (int64_t)SECOND, "interval lost");
	ticker_check(ticker, LONG * (int64_t)SECOND - left(absolute), ran, "TIMER_ABSTIME");
	check(llabs(now_of(CLOCK_REALTIME) + left(wall) - wall_moment) < TOLERANCE,
	      "the wall clock timer has moved by %lld ms",
	      (long long)(now_of(CLOCK_REALTIME) + left(wall) - wall_moment) / 1000000);
	check(interval_of(wall) == 5 * (int64_t)SECOND, "interval lost");
	check(left(disarmed) == 0, "a timer was armed");
}

/* Timers whose signals wait: a single one between others, and one that counts what it misses. */
static int single, periodic;
static int64_t periodic_begun;

static void make_due(void)
{
	single = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 1, 0x123456789abc, 0);
	must(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 1}));
	arm(single, 0, 1, 0);
	victim_nap(5);
	must(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 2}));
	periodic = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 2, 2, 0);
	periodic_begun = ticker_read(ticker);
	arm(periodic, 0, PERIOD, PERIOD);
}

static void check_due(void)
{
	siginfo_t info = take(SIGRTMIN + 1);

	check(info.si_code == SI_QUEUE && info.si_int == 1, "first is %d", info.si_int);
	info = take(SIGRTMIN + 1);
	check_timer_info(&info, single, 0x123456789abc);
	info = take(SIGRTMIN + 1);
	check(info.si_code == SI_QUEUE && info.si_int == 2, "third is %d", info.si_int);
	check_none(SIGRTMIN + 1);
	info = take(SIGRTMIN + 2);
	check_timer_info(&info, periodic, 2);
	ticker_check(ticker, (info.si_overrun + 1) * (int64_t)PERIOD,
		     ticker_read(ticker) - periodic_begun, "overruns");
	/* it goes on */
	info = await(SIGRTMIN + 2, 5);
	check_timer_info(&info, periodic, 2);
	arm(periodic, 0, 0, 0);
}

/* A count that stays from the last signal: of an hour's interval, armed in the past. */
static int counted;

static void make_counted(void)
{
	int64_t uptime = now_of(CLOCK_MONOTONIC), interval = uptime / 8;
	siginfo_t info;

	counted = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 3, 3, 0);
	arm(counted, TIMER_ABSTIME, uptime - 3 * interval - interval / 2, interval);
	/* it fires in an interrupt */
	info = await(SIGRTMIN + 3, 5);
	check(info.si_overrun == 3, "%d overruns", info.si_overrun);
}

static void check_counted(void)
{
	check(syscall(SYS_timer_getoverrun, counted) == 3, "%ld overruns",
	      syscall(SYS_timer_getoverrun, counted));
	check_none(SIGRTMIN + 3);
	arm(counted, 0, 0, 0);
}

/* More overruns than an int holds: the kernel tells the largest. */
static int overflown;

static void make_overflown(void)
{
	overflown = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 8, 8, 0);
	arm(overflown, TIMER_ABSTIME, 1, 1);
	check(await(SIGRTMIN + 8, 5).si_overrun == INT32_MAX, "overruns");
}

static void check_overflown(void)
{
	check(await(SIGRTMIN + 8, 5).si_overrun == INT32_MAX, "overruns of the next signal");
	arm(overflown, 0, 0, 0);
}

/* CPU time, of the process and of a thread: what is left, and that it fires. */
static int process_cpu, thread_cpu;
static int64_t process_left, process_used;

static void burn(clockid_t clock, int64_t ns)
{
	int64_t end = now_of(clock) + ns;

	while (now_of(clock) < end)
		for (volatile int i = 0; i < 100000; i++)
			continue;
}

static void make_cpu(void)
{
	process_cpu = make(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGRTMIN + 4, 4, 0);
	burn(CLOCK_PROCESS_CPUTIME_ID, 30000000);
	arm(process_cpu, 0, 60 * (int64_t)SECOND, 0);
	process_left = left(process_cpu);
	process_used = now_of(CLOCK_PROCESS_CPUTIME_ID);
}

static void check_cpu(void)
{
	int64_t now = left(process_cpu);

	check(now > 55 * (int64_t)SECOND && now <= process_left, "%lld ms of CPU time left",
	      (long long)now / 1000000);
	arm(process_cpu, 0, 20000000, 0);
	for (int i = 0; i < 20; i++) {
		sigset_t pending;

		burn(CLOCK_PROCESS_CPUTIME_ID, 10000000);
		victim_nap(1);
		must(sigpending(&pending));
		if (sigismember(&pending, SIGRTMIN + 4))
			return;
	}
	check(false, "the timer on CPU time does not fire");
}

/* A thread has timers of its own: a signal that only it gets, and its CPU time. */
static int directed;

static void *run(void *unused)
{
	siginfo_t info;

	thread_tid = gettid();
	directed = make(CLOCK_MONOTONIC, SIGEV_THREAD_ID, SIGRTMIN + 5, 5, gettid());
	thread_cpu = make(CLOCK_THREAD_CPUTIME_ID, SIGEV_THREAD_ID, SIGRTMIN + 6, 6, gettid());
	arm(directed, 0, PERIOD, PERIOD);
	arm(thread_cpu, 0, 30 * (int64_t)SECOND, 0);
	victim_arrive(&thread_done);
	victim_wait();
	info = take(SIGRTMIN + 5);
	check_timer_info(&info, directed, 5);
	info = await(SIGRTMIN + 5, 5);
	check_timer_info(&info, directed, 5);
	arm(directed, 0, 0, 0);
	check(left(thread_cpu) > 25 * (int64_t)SECOND, "%lld ms of the thread's CPU time left",
	      (long long)left(thread_cpu) / 1000000);
	return unused;
}

static volatile int64_t handled_at, handled;

static void handler(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	handled_at = ticker->running;
	handled += info->si_value.sival_int == 77;
}

/* Armed for three seconds of running time, whatever comes between. */
static int soon;
static int64_t soon_begun;

static void make_soon(void)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};

	must(sigaction(SIGRTMIN + 7, &action, NULL));
	soon = make(CLOCK_BOOTTIME, SIGEV_SIGNAL, SIGRTMIN + 7, 77, 0);
	soon_begun = ticker_read(ticker);
	arm(soon, 0, 3 * (int64_t)SECOND, 0);
}

static void check_soon(void)
{
	/* naps would be interrupted */
	while (!handled) {
		struct timespec time = {0, 10000000};

		nanosleep(&time, NULL);
	}
	check(handled == 1, "fired %d times", (int)handled);
	ticker_check(ticker, handled_at - soon_begun, 3 * (int64_t)SECOND, "a handler");
}

int main(int argc, char **argv)
{
	pthread_t thread;
	sigset_t mask;

	victim_init(argc, argv);
	ticker = ticker_start();
	sigemptyset(&mask);
	for (int i = 1; i <= 8; i++) {
		if (i != 7) /* handled: make_soon() */
			sigaddset(&mask, SIGRTMIN + i);
	}
	pthread_sigmask(SIG_BLOCK, &mask, NULL);
	make_distant();
	make_due();
	make_counted();
	make_overflown();
	make_cpu();
	check(pthread_create(&thread, NULL, run, NULL) == 0, "pthread_create");
	victim_meet(&thread_done, 1);
	make_soon();
	victim_ready();
	check_soon();
	victim_wait();
	check_due();
	check_distant();
	check_counted();
	check_overflown();
	check_cpu();
	check(pthread_join(thread, NULL) == 0, "join");
	ticker_stop(ticker);
	victim_ok();
	return 0;
}
