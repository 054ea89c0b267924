/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../clock_ns.h"
#include "fdinfo.h"
#include "file.h"

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

enum {
	SETTIME_FLAGS = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET,
};

struct timerfd {
	struct file file;
	uint32_t clock, settime_flags;
	uint64_t remaining, deadline, interval, ticks;
};

static const struct field timerfd_fields[] = {
	FIELD_FILE(struct timerfd),
	FIELD_UINT(struct timerfd, clock, 0, CLOCK_BOOTTIME_ALARM, "CLOCK_..."),
	FIELD_UINT(struct timerfd, settime_flags, 0, SETTIME_FLAGS, "TFD_TIMER_..."),
	FIELD_UINT(struct timerfd, remaining, 0, INT64_MAX,
		   "ns left at the checkpoint, 0: not armed"),
	FIELD_UINT(struct timerfd, deadline, 0, INT64_MAX,
		   "of an absolute timer on the wall clock, ns since 1970"),
	FIELD_UINT(struct timerfd, interval, 0, INT64_MAX, "ns, 0: fires once"),
	FIELD_UINT(struct timerfd, ticks, 0, UINT64_MAX, "expirations that nobody has read"),
	FIELD_END,
};

static bool timerfd_claims(const struct descriptor *descriptor)
{
	return !strcmp((char *)descriptor->path.data, "anon_inode:[timerfd]");
}

static uint64_t to_ns(const struct timespec *time)
{
	return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
				 .tv_nsec = (long)(ns % 1000000000u)};
}

/* An alarm counts by the same clock as its namesake. */
static clockid_t clock_of(const struct timerfd *saved)
{
	switch (saved->clock) {
	case CLOCK_REALTIME_ALARM: return CLOCK_REALTIME;
	case CLOCK_BOOTTIME_ALARM: return CLOCK_BOOTTIME;
	default: return (clockid_t)saved->clock;
	}
}

static uint64_t now_of(const struct timerfd *saved)
{
	return clock_ns(clock_of(saved));
}

/* A wall clock time that the program chose: it means the same after the restart. */
static bool is_date(const struct timerfd *saved)
{
	return clock_of(saved) == CLOCK_REALTIME && saved->settime_flags & TFD_TIMER_ABSTIME;
}

static struct cr_error *read_info(const struct descriptor *descriptor, struct timerfd *ret)
{
	uint64_t clock, flags;
	struct fdinfo info;

	TRY(fdinfo_read(descriptor, &info));
	TRY(fdinfo_number(&info, "clockid", 10, &clock));
	TRY(fdinfo_number(&info, "ticks", 10, &ret->ticks));
	TRY(fdinfo_number(&info, "settime flags", 8, &flags));
	ret->clock = (uint32_t)clock;
	ret->settime_flags = (uint32_t)flags;
	return NULL;
}

/*
 * Ticks and time left that belong together: no expiration in between. timerfd_gettime(2) also has
 * the kernel count what a periodic timer has missed since nobody read it.
 */
static struct cr_error *read_timer(struct dump *dump, const struct descriptor *descriptor, int fd,
				   struct timerfd *ret, struct itimerspec *time)
{
	enum { TRIES = 5 };
	uint64_t before;

	for (int i = 0; i < TRIES; i++) {
		if (timerfd_gettime(fd, time) < 0)
			return error_sys("Failed to read %s", descriptor_name(dump, descriptor));
		TRY(read_info(descriptor, ret));
		before = ret->ticks;
		if (timerfd_gettime(fd, time) < 0)
			return error_sys("Failed to read %s", descriptor_name(dump, descriptor));
		TRY(read_info(descriptor, ret));
		if (ret->ticks == before)
			break;
	}
	return NULL;
}

/*
 * A timer whose time has come fires when its processor runs again: on a virtual machine that can take
 * milliseconds. Until then it shows neither time nor ticks, like one that is not armed.
 */
static struct cr_error *is_overdue(struct dump *dump, const struct descriptor *descriptor,
				   const struct timerfd *saved, bool *ret)
{
	*ret = false;
	if (saved->ticks || clock_of(saved) != (clockid_t)saved->clock)
		return NULL;
	if (!dump->kernel_open_files)
		TRY(kernel_open_files_open(dump->btf, dump->peek, &dump->kernel_open_files));
	return kernel_timerfd_is_queued(dump->kernel_open_files, descriptor->kernel->file, ret);
}

static struct cr_error *timerfd_dump(struct dump *dump, const struct descriptor *descriptor,
				     void *state)
{
	struct timerfd *saved = state;
	struct itimerspec time;
	_cleanup_close_ int fd = -1;
	uint64_t left, now;

	TRY(descriptor_get(descriptor, &fd));
	TRY(read_timer(dump, descriptor, fd, saved, &time));
	now = clock_ns(CLOCK_MONOTONIC);
	left = to_ns(&time.it_value);
	if (!left) {
		bool overdue;

		TRY(is_overdue(dump, descriptor, saved, &overdue));
		left = overdue;
	}
	saved->interval = to_ns(&time.it_interval);
	saved->remaining = left ? left + now - dump->clocks.monotonic : 0;
	if (left && is_date(saved))
		saved->deadline = now_of(saved) + left;
	return NULL;
}

static struct cr_error *timerfd_check(struct dump *dump, const struct descriptor *descriptor)
{
	struct timerfd scrap = {0};

	(void)dump;
	return error_object(read_info(descriptor, &scrap), "timerfd");
}

static struct cr_error *timerfd_restore(struct restore *restore, struct object *object,
					const void *state)
{
	const struct timerfd *saved = state;

	(void)restore;
	object->fd = timerfd_create((clockid_t)saved->clock, TFD_CLOEXEC);
	if (object->fd < 0)
		return error_sys("Failed to make timerfd %u", object->id);
	return file_set_flags(object, &saved->file);
}

/*
 * What is left of it; *ticks grows by what came due while the container was away. A date comes due
 * by itself, by the wall clock.
 */
static uint64_t left_of(const struct restore *restore, const struct timerfd *saved, uint64_t *ticks)
{
	int64_t span = restore_span(restore, saved->remaining);
	uint64_t over;

	if (!saved->remaining || span > 0 || is_date(saved))
		return saved->remaining ? (uint64_t)span : 0;
	over = (uint64_t)-span;
	++*ticks;
	if (!saved->interval)
		return 0;
	*ticks += over / saved->interval;
	return saved->interval - over % saved->interval;
}

/* What is armed absolutely stays so: the flags are the program's, and so is cancelling by a change
 * of the clock. The clock is that of this process, which is in no time namespace. */
static uint64_t expiry(const struct timerfd *saved, uint64_t left)
{
	if (left && is_date(saved))
		return saved->deadline;
	return left && saved->settime_flags & TFD_TIMER_ABSTIME ? now_of(saved) + left : left;
}

static struct cr_error *timerfd_release(struct restore *restore, struct object *object,
					const void *state)
{
	const struct timerfd *saved = state;
	uint64_t ticks = saved->ticks, left = left_of(restore, saved, &ticks);
	struct itimerspec time = {
		.it_value = to_timespec(expiry(saved, left)),
		.it_interval = to_timespec(saved->interval),
	};

	if (timerfd_settime(object->fd, (int)saved->settime_flags, &time, NULL) < 0)
		return error_sys("Failed to arm timerfd %u", object->id);
	if (ticks && ioctl(object->fd, TFD_IOC_SET_TICKS, &ticks) < 0)
		return error_remedy(
			error_sys("Failed to set the expirations of timerfd %u", object->id),
			"The kernel needs CONFIG_CHECKPOINT_RESTORE");
	return NULL;
}

const struct kind timerfd_kind = {
	.name = "timerfd",
	.doc = "Timerfd: clock, time left, interval, unread expirations",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct timerfd),
	.fields = timerfd_fields,
	.claims = timerfd_claims,
	.check_file = timerfd_check,
	.dump_file = timerfd_dump,
	.restore_file = timerfd_restore,
	.release_file = timerfd_release,
};
