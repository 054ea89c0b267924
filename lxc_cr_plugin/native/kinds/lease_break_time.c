/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lease_break_time.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../clock_ns.h"
#include "../steps.h"

/* Of root alone; the journals of the commands lie there too, by default. */
#define LOCK_DIR "/run/lxc-cr"
#define LOCK	 LOCK_DIR "/lease-break-time.lock"
#define NUMBER	 "/proc/sys/fs/lease-break-time"

/* A number as it is read and written. */
struct number {
	char text[16];
};

struct lease_break_time {
	const char *fault;
	int number; /* the sysctl */
	int lock;   /* between restarts on this host */
	struct number old;
	pid_t guard;
	int leash; /* by which the guard is told what to put back; closed, it acts */
};

static const struct number nothing; /* is changed */

static bool put(int number, const char *text)
{
	ssize_t len = (ssize_t)strlen(text);

	return pwrite(number, text, (size_t)len, 0) == len;
}

/*
 * The guard's whole life. It must not be ended by what is sent to the group of the command, and leaves
 * alone what was not changed: somebody else may have done that since.
 */
static void guard(const struct lease_break_time *time, int leash)
{
	struct number old = nothing;
	ssize_t len;

	setsid();
	signal(SIGTERM, SIG_IGN);
	close(time->leash);
	do {
		len = read(leash, &old, sizeof(old));
	} while (len > 0 || (len < 0 && errno == EINTR));
	if (*old.text)
		put(time->number, old.text);
	_exit(0);
}

static struct cr_error *tell_guard(const struct lease_break_time *time, const struct number *old)
{
	if (write(time->leash, old, sizeof(*old)) != (ssize_t)sizeof(*old))
		return error_sys("Failed to tell the guard of lease-break-time");
	return NULL;
}

static struct cr_error *start_guard(struct lease_break_time *time)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_sys("Failed to make a pipe");
	time->leash = ends[1];
	time->guard = fork();
	if (time->guard == 0)
		guard(time, ends[0]);
	close(ends[0]);
	return time->guard < 0 ? error_sys("Failed to make a process") : NULL;
}

/* Nobody else may put his own lock there, or hold ours. */
static struct cr_error *make_directory(void)
{
	struct stat stat;

	if (mkdir(LOCK_DIR, 0700) < 0 && errno != EEXIST)
		return error_sys("Failed to make '%s'", LOCK_DIR);
	if (lstat(LOCK_DIR, &stat) < 0)
		return error_sys("Failed to look at '%s'", LOCK_DIR);
	if (S_ISDIR(stat.st_mode) && stat.st_uid == geteuid() && !(stat.st_mode & 022))
		return NULL;
	return error_remedy(error_new(CR_HOST, "'%s' can be written by others than root", LOCK_DIR),
			    "Remove it, or have it belong to root with mode 0700");
}

static struct cr_error *take_turn(int lock)
{
	enum { PATIENCE_S = 10, PAUSE_MS = 5 };
	uint64_t end = clock_ns(CLOCK_MONOTONIC) + PATIENCE_S * 1000000000ull;
	struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000};

	while (flock(lock, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return error_sys("Failed to lock '%s'", LOCK);
		if (clock_ns(CLOCK_MONOTONIC) > end)
			return error_remedy(
				error_new(CR_HOST,
					  "Another restart has held '%s' for %d seconds, and "
					  "lease-break-time with it",
					  LOCK, PATIENCE_S),
				"Find it with `fuser %s`, and try again when it has ended", LOCK);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static struct cr_error *open_lock(struct lease_break_time *time)
{
	TRY(make_directory());
	time->lock = open(LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (time->lock < 0)
		return error_sys("Failed to open '%s'", LOCK);
	return take_turn(time->lock);
}

static struct cr_error *read_number(struct lease_break_time *time)
{
	struct number *old = &time->old;
	ssize_t len = pread(time->number, old->text, sizeof(old->text) - 1, 0);

	if (len <= 0)
		return error_sys("Failed to read '%s'", NUMBER);
	old->text[len] = '\0';
	return NULL;
}

static struct cr_error *open_number(struct lease_break_time *time)
{
	time->number = open(NUMBER, O_RDWR | O_CLOEXEC);
	if (time->number < 0)
		return error_remedy(error_sys("Failed to open '%s'", NUMBER),
				    "A lease that is being broken needs it; mount /proc writable");
	return read_number(time);
}

static struct cr_error *set_up(struct lease_break_time *time)
{
	TRY(open_lock(time));
	TRY(open_number(time));
	return start_guard(time);
}

struct cr_error *lease_break_time_open(const char *fault, struct lease_break_time **ret)
{
	struct lease_break_time *time = calloc(1, sizeof(*time));
	struct cr_error *error;

	if (!time)
		return error_nomem();
	time->fault = fault;
	time->number = time->lock = time->leash = -1;
	error = set_up(time);
	if (error)
		lease_break_time_close(time);
	else
		*ret = time;
	return error;
}

void lease_break_time_close(struct lease_break_time *time)
{
	if (!time)
		return;
	if (time->leash >= 0)
		close(time->leash);
	if (time->guard > 0)
		waitpid(time->guard, NULL, 0);
	if (time->number >= 0)
		close(time->number);
	if (time->lock >= 0)
		close(time->lock);
	free(time);
}

uint64_t lease_break_time_default(const struct lease_break_time *time)
{
	long seconds = strtol(time->old.text, NULL, 10);

	return seconds > 0 ? (uint64_t)seconds * 1000000000u : 0;
}

/*
 * The kernel multiplies seconds by HZ in an int, which wraps: with HZ = 2^n * odd every multiple of
 * 2^n ticks is the product of HZ with some number of seconds, however large. So the time comes in
 * steps of 2^n ticks, 8 ms where HZ is 250 or 1000. Where there is no such number, it is up to a
 * second too long.
 */
static unsigned int step_shift(uint32_t hz)
{
	return (unsigned int)__builtin_ctz(hz);
}

static uint32_t seconds_for(uint32_t steps, uint32_t hz)
{
	unsigned int shift = step_shift(hz);
	uint32_t odd = hz >> shift, inverse = odd, seconds;

	/* Newton: each round doubles the bits that are right, of which an odd number's own are 3 */
	for (int i = 0; i < 4; i++)
		inverse *= 2 - odd * inverse;
	seconds = steps * inverse;
	if (shift)
		seconds &= UINT32_MAX >> shift;
	return seconds && seconds <= INT32_MAX ? seconds : steps / odd + 1;
}

/* What it is now: somebody else may have changed it since we opened it. */
static struct cr_error *change(struct lease_break_time *time, const char *seconds)
{
	struct cr_error *error;

	TRY(read_number(time));
	TRY(tell_guard(time, &time->old));
	if (put(time->number, seconds))
		return NULL;
	error = error_sys("Failed to write '%s' to lease-break-time", seconds);
	cr_error_free(tell_guard(time, &nothing));
	return error;
}

static struct cr_error *put_back(struct lease_break_time *time)
{
	if (!put(time->number, time->old.text))
		return error_sys("Failed to put lease-break-time back to %s", time->old.text);
	return tell_guard(time, &nothing);
}

/* Opening must not succeed, for then there was no lease. */
static struct cr_error *open_against(struct lease_break_time *time, int fd, int flags,
				     const char *seconds)
{
	_cleanup_close_ int opened = -1;
	struct cr_error *error, *back;
	char path[32];
	int failed;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	TRY(change(time, seconds));
	opened = open(path, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	failed = errno;
	error = step(time->fault, RESTART_LEASE);
	back = put_back(time);
	if (back) {
		cr_error_free(error);
		return back;
	}
	TRY(error);
	if (opened >= 0)
		return error_new(CR_INTERNAL, "A lease was not broken by an open");
	return failed == EWOULDBLOCK ? NULL : error_errno(failed, "Failed to break a lease");
}

struct cr_error *lease_break_at(struct lease_break_time *time, int fd, int flags, uint64_t end)
{
	uint64_t tick = kernel_tick_ns(), last = clock_ns(CLOCK_MONOTONIC_COARSE);
	uint32_t hz = (uint32_t)(1000000000u / tick);
	uint64_t step = tick << step_shift(hz), most = (uint64_t)INT32_MAX >> step_shift(hz);
	uint64_t steps = end > last ? (end - last + step / 2) / step : 0;
	char seconds[16];

	/* 0 would be for ever, and negative numbers are the past */
	if (!steps)
		steps = 1;
	if (steps > most)
		steps = most;
	snprintf(seconds, sizeof(seconds), "%u", seconds_for((uint32_t)steps, hz));
	return open_against(time, fd, flags, seconds);
}
