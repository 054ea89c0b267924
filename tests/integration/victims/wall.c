/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For a restart with --time wall: the program sees that time has passed. Clocks include the time
 * away; what came due meanwhile fires once, or ends, when it goes on; what did not is not late.
 */
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>

#include "victim.h"

static const int64_t second = 1000000000;
/* shorter than the container is away, and longer */
enum { SHORT = 1, LONG = 6 };
enum { PERIOD = 100 * 1000 * 1000 }; /* ns */

struct shared {
	uint32_t arrived, word;
	volatile int64_t heartbeat;  /* CLOCK_REALTIME, every few milliseconds */
	volatile int64_t left, back; /* around the longest gap in it: when the container was away */
};

static struct shared *shared;

static int64_t now(clockid_t clock)
{
	struct timespec time;

	must(clock_gettime(clock, &time));
	return time.tv_sec * second + time.tv_nsec;
}

static void beat(void *unused)
{
	(void)unused;
	for (;;) {
		int64_t time = now(CLOCK_REALTIME), last = shared->heartbeat;

		if (last && time - last > shared->back - shared->left) {
			shared->left = last;
			shared->back = time;
		}
		shared->heartbeat = time;
		usleep(2000);
	}
}

/* ---- waits ---- */

static void sleep_span(int seconds)
{
	struct timespec time = {seconds, 0};

	check(nanosleep(&time, NULL) == 0, "nanosleep: %s", strerror(errno));
}

static void sleep_absolute(int seconds)
{
	struct timespec time;

	must(clock_gettime(CLOCK_BOOTTIME, &time));
	time.tv_sec += seconds;
	check(clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &time, NULL) == 0, "clock_nanosleep");
}

static void wait_poll(int seconds)
{
	check(poll(NULL, 0, seconds * 1000) == 0, "poll: %s", strerror(errno));
}

static void wait_select(int seconds)
{
	struct timeval time = {seconds, 0};

	check(select(0, NULL, NULL, NULL, &time) == 0, "select: %s", strerror(errno));
}

static void wait_futex(int seconds)
{
	struct timespec time = {seconds, 0};

	check(syscall(SYS_futex, &shared->word, FUTEX_WAIT, 0, &time, NULL, 0) < 0 &&
		      errno == ETIMEDOUT,
	      "futex: %s", strerror(errno));
}

static void wait_epoll(int seconds)
{
	struct epoll_event event;
	int fd = must(epoll_create1(0));

	check(epoll_wait(fd, &event, 1, seconds * 1000) == 0, "epoll_wait: %s", strerror(errno));
}

static void wait_signal(int seconds)
{
	struct timespec time = {seconds, 0};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	check(sigtimedwait(&set, NULL, &time) < 0 && errno == EAGAIN, "sigtimedwait: %s",
	      strerror(errno));
}

static void wait_socket(int seconds)
{
	struct timeval limit = {seconds, 0};
	int pair[2];
	char byte;

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	must(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	check(read(pair[0], &byte, 1) < 0 && errno == EAGAIN, "read: %s", strerror(errno));
}

static void (*const waits[])(int) = {
	sleep_span, sleep_absolute, wait_poll,	 wait_select,
	wait_futex, wait_epoll,	    wait_signal, wait_socket,
};

enum { WAITS = sizeof(waits) / sizeof(waits[0]) };

struct wait {
	int number, seconds;
};

/* It ends when it would have, or when the container comes back if that is later. */
static void run(void *argument)
{
	enum { EARLY = 50, LATE = 700 }; /* ms; a socket's is rounded up, a machine may be busy */
	const struct wait *wait = argument;
	int64_t begun = now(CLOCK_REALTIME), end = begun + wait->seconds * second, ended;

	victim_arrive(&shared->arrived);
	waits[wait->number](wait->seconds);
	ended = now(CLOCK_REALTIME);
	victim_nap(20);
	check(shared->left, "the container was not away");
	if (end > shared->left && end < shared->back)
		end = shared->back;
	check(ended > end - EARLY * 1000000LL && ended < end + LATE * 1000000LL,
	      "wait %d of %d s ended %lld ms after its time", wait->number, wait->seconds,
	      (long long)(ended - end) / 1000000);
}

/* ---- timers ---- */

static int make_timerfd(clockid_t clock, int flags, int64_t value, int64_t interval)
{
	struct itimerspec time = {{interval / second, interval % second},
				  {value / second, value % second}};
	int fd = must(timerfd_create(clock, TFD_NONBLOCK));

	must(timerfd_settime(fd, flags, &time, NULL));
	return fd;
}

static uint64_t ticks(int fd)
{
	uint64_t count = 0;

	check(read(fd, &count, sizeof(count)) == sizeof(count) || errno == EAGAIN, "read: %s",
	      strerror(errno));
	return count;
}

static int make_timer(int signal, int64_t value, int64_t interval)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = signal};
	struct itimerspec time = {{interval / second, interval % second},
				  {value / second, value % second}};
	int id = -1;

	must(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
	must(syscall(SYS_timer_settime, id, 0, &time, NULL));
	return id;
}

/* How often a signal waits, with the overruns that it tells. */
static int64_t signals(int signal)
{
	struct timespec none = {0};
	int64_t count = 0;
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signal);
	while (sigtimedwait(&set, &info, &none) == signal)
		count += 1 + (info.si_code == SI_TIMER ? info.si_overrun : 0);
	return count;
}

static void check_count(int64_t count, int64_t since, const char *name)
{
	int64_t expected = (now(CLOCK_REALTIME) - since) / PERIOD;

	check(count >= expected - 2 && count <= expected + 2, "%s: %lld times, not %lld", name,
	      (long long)count, (long long)expected);
}

/* An interval timer fires in its old rhythm, once at once for what it missed. */
static void keep_rhythm(void *argument)
{
	int64_t begun = now(CLOCK_MONOTONIC), late;
	struct itimerval time = {{1, 0}, {1, 0}};
	sigset_t set;

	(void)argument;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	must(setitimer(ITIMER_REAL, &time, NULL));
	victim_arrive(&shared->arrived);
	victim_wait();
	check(signals(SIGALRM) == 1, "an interval timer that missed some");
	must(sigwaitinfo(&set, NULL));
	late = (now(CLOCK_MONOTONIC) - begun) % second;
	check(late < second / 5, "an interval timer fired %lld ms after its moment",
	      (long long)late / 1000000);
}

int main(int argc, char **argv)
{
	int once, late, date, monotonic_ticks, boottime_ticks, once_signal = SIGRTMIN,
							       period_signal = SIGRTMIN + 1;
	struct itimerval soon = {.it_value = {SHORT, 0}};
	struct wait all[2 * WAITS];
	pid_t pids[2 * WAITS], heart, rhythm;
	int64_t begun, monotonic, boottime, gone;
	sigset_t set;

	victim_init(argc, argv);
	shared = victim_shared(4096);
	heart = victim_child(beat, NULL);
	sigemptyset(&set);
	sigaddset(&set, once_signal);
	sigaddset(&set, period_signal);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	begun = now(CLOCK_REALTIME);
	monotonic = now(CLOCK_MONOTONIC);
	boottime = now(CLOCK_BOOTTIME);
	once = make_timerfd(CLOCK_MONOTONIC, 0, SHORT * second, 0);
	late = make_timerfd(CLOCK_MONOTONIC, 0, 3600 * second, 0);
	date = make_timerfd(CLOCK_REALTIME, TFD_TIMER_ABSTIME, begun + SHORT * second, 0);
	monotonic_ticks = make_timerfd(CLOCK_MONOTONIC, 0, PERIOD, PERIOD);
	boottime_ticks = make_timerfd(CLOCK_BOOTTIME, TFD_TIMER_ABSTIME, boottime + PERIOD, PERIOD);
	make_timer(once_signal, SHORT * second, 0);
	make_timer(period_signal, PERIOD, PERIOD);
	must(setitimer(ITIMER_REAL, &soon, NULL));
	for (int i = 0; i < 2 * WAITS; i++) {
		all[i] = (struct wait){i / 2, i % 2 ? LONG : SHORT};
		pids[i] = victim_child(run, &all[i]);
	}
	rhythm = victim_child(keep_rhythm, NULL);
	victim_meet(&shared->arrived, 2 * WAITS + 1);
	victim_ready();
	victim_wait();

	gone = now(CLOCK_REALTIME) - begun;
	check(llabs(now(CLOCK_MONOTONIC) - monotonic - gone) < second / 10, "CLOCK_MONOTONIC");
	check(llabs(now(CLOCK_BOOTTIME) - boottime - gone) < second / 10, "CLOCK_BOOTTIME");
	check(ticks(once) == 1, "a timerfd that came due");
	check(ticks(date) == 1, "a date that came due");
	check(ticks(late) == 0, "a timerfd that did not");
	check_count((int64_t)ticks(monotonic_ticks), begun, "ticks");
	check_count((int64_t)ticks(boottime_ticks), begun, "absolute ticks");
	check(signals(once_signal) == 1, "a POSIX timer that came due");
	check_count(signals(period_signal), begun, "signals");
	check(signals(SIGALRM) == 1, "an interval timer that came due");
	for (int i = 0; i < 2 * WAITS; i++)
		victim_reap(pids[i]);
	victim_reap(rhythm);
	kill(heart, SIGKILL);
	victim_ok();
	return 0;
}
