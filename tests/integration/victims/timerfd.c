/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Timerfds on all clocks: what remained, intervals, unread ticks, flags; time away does not count. */
#include <poll.h>
#include <sys/timerfd.h>

#include "ticker.h"

static const int64_t second = 1000000000;
static struct ticker *ticker;

static int make(int clock, int flags, struct timespec value, struct timespec interval)
{
	struct itimerspec time = {interval, value};
	int fd = must(timerfd_create(clock, TFD_NONBLOCK));

	must(timerfd_settime(fd, flags, &time, NULL));
	return fd;
}

static struct timespec in(int clock, long seconds)
{
	struct timespec now;

	must(clock_gettime(clock, &now));
	now.tv_sec += seconds;
	return now;
}

static struct itimerspec look(int fd)
{
	struct itimerspec time;

	must(timerfd_gettime(fd, &time));
	return time;
}

static uint64_t ticks(int fd)
{
	uint64_t count;
	ssize_t got = read(fd, &count, sizeof(count));

	check(got == sizeof(count) || errno == EAGAIN, "read: %s", strerror(errno));
	return got < 0 ? 0 : count;
}

static uint64_t info(int fd, const char *key, int base)
{
	char path[64], text[1024], *line;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	victim_read(path, text, sizeof(text));
	line = strstr(text, key);
	check(line, "no %s in fdinfo", key);
	return strtoull(line + strlen(key), NULL, base);
}

/* A timer of an hour: what remains of it when it has run for as long as the container has. */
static void check_hour(int fd, int64_t begun, const char *name)
{
	struct timespec left = look(fd).it_value;

	ticker_check(ticker, 3600 * second - left.tv_sec * second - left.tv_nsec,
		     ticker_read(ticker) - begun, name);
}

static int clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME, CLOCK_BOOTTIME_ALARM,
		       CLOCK_REALTIME_ALARM};

enum { CLOCKS = sizeof(clocks) / sizeof(clocks[0]) };

/* Only the host's own root may wake the machine up; elsewhere the clocks without an alarm do. */
static void choose_clocks(void)
{
	for (int i = 0; i < CLOCKS; i++) {
		int fd = timerfd_create(clocks[i], 0);

		if (fd < 0 && errno == EPERM)
			clocks[i] =
				clocks[i] == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME : CLOCK_REALTIME;
		else
			must(fd), close(fd);
	}
}

static const struct timespec hour = {3600, 0}, week = {7 * 24 * 3600, 1}, never;

static void check_relative(const int *relative, int64_t begun)
{
	for (int i = 0; i < CLOCKS; i++) {
		check_hour(relative[i], begun, "an hour");
		check(look(relative[i]).it_interval.tv_sec == week.tv_sec &&
			      look(relative[i]).it_interval.tv_nsec == week.tv_nsec,
		      "clock %d: interval", clocks[i]);
		check(info(relative[i], "clockid:", 10) == (uint64_t)clocks[i], "clock %d",
		      clocks[i]);
		check(ticks(relative[i]) == 0, "clock %d: ticks", clocks[i]);
	}
}

/* A date on the wall clock stays where it is, whatever time has passed. */
static void check_date(int fd, struct timespec deadline)
{
	struct timespec left = look(fd).it_value, now = in(CLOCK_REALTIME, 0);
	int64_t off = (now.tv_sec + left.tv_sec - deadline.tv_sec) * second + now.tv_nsec +
		      left.tv_nsec - deadline.tv_nsec;

	check(info(fd, "settime flags:", 8) == (TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET),
	      "flags of a date");
	check(off > -1000000 && off < 1000000, "a date has moved by %ld ns", (long)off);
}

static void wait_for(int fd)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};

	check(poll(&ready, 1, -1) == 1, "poll: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	int relative[CLOCKS], absolute, date, idle, expired, periodic, soon, shared;
	struct timespec deadline;
	int64_t begun, armed, fired;

	victim_init(argc, argv);
	ticker = ticker_start();
	begun = ticker_read(ticker);
	choose_clocks();
	for (int i = 0; i < CLOCKS; i++)
		relative[i] = make(clocks[i], 0, hour, week);
	absolute = make(CLOCK_MONOTONIC, TFD_TIMER_ABSTIME, in(CLOCK_MONOTONIC, 3600), never);
	deadline = in(CLOCK_REALTIME, 3600);
	date = make(CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, deadline, never);
	idle = make(CLOCK_MONOTONIC, 0, never, never);
	expired = make(CLOCK_MONOTONIC, 0, (struct timespec){0, 1}, never);
	periodic = make(CLOCK_MONOTONIC, 0, (struct timespec){0, 1}, hour);
	shared = must(dup(relative[0]));
	wait_for(expired);
	wait_for(periodic);
	armed = ticker_read(ticker);
	soon = make(CLOCK_MONOTONIC, 0, (struct timespec){3, 0}, (struct timespec){0, 250000000});
	victim_ready();

	wait_for(soon);
	fired = ticker_read(ticker);
	ticker_check(ticker, fired - armed, 3 * second, "three seconds");
	victim_wait();
	check_relative(relative, begun);
	check_hour(absolute, begun, "an absolute hour");
	check(info(absolute, "settime flags:", 8) == TFD_TIMER_ABSTIME, "flags of an absolute one");
	check_date(date, deadline);
	check(ticks(idle) == 0 && look(idle).it_value.tv_sec == 0, "an idle timer runs");
	check(ticks(expired) == 1 && ticks(expired) == 0, "an expired timer");
	check(look(expired).it_value.tv_sec == 0, "an expired timer runs");
	check(ticks(periodic) == 1 && ticks(periodic) == 0, "a periodic timer's first tick");
	check(look(periodic).it_value.tv_sec > 3500, "a periodic timer has stopped");
	must(timerfd_settime(shared, 0, &(struct itimerspec){never, week}, NULL));
	check(look(relative[0]).it_value.tv_sec > 6 * 24 * 3600, "a duplicate is another timer");
	check(ticks(soon) >= 1, "the interval");
	ticker_stop(ticker);
	victim_ok();
	return 0;
}
