/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "timers.h"

#include <linux/btf.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../cleanup.h"
#include "bpf.h"

enum { COPY_MAX = 512 };

/* Members of struct k_itimer. */
enum member {
	LIST,
	NEXT,
	ID,
	CLOCK,
	NOTIFY,
	STATUS,
	SEQUENCE,
	QUEUED_SEQUENCE,
	INTERVAL,
	OVERRUNS,
	PID,
	QUEUE_LINK,
	INFO,
	REAL_EXPIRES,
	REAL_BASE,
	CPU_EXPIRES,
	CPU_PID,
	ALARM_EXPIRES,
	MEMBERS,
};

static const char *const member_names[MEMBERS] = {
	[LIST] = "list",
	[NEXT] = "list.next",
	[ID] = "it_id",
	[CLOCK] = "it_clock",
	[NOTIFY] = "it_sigev_notify",
	[STATUS] = "it_status",
	[SEQUENCE] = "it_signal_seq",
	[QUEUED_SEQUENCE] = "it_sigqueue_seq",
	[INTERVAL] = "it_interval",
	[OVERRUNS] = "it_overrun_last",
	[PID] = "it_pid",
	[QUEUE_LINK] = "sigq.list",
	[INFO] = "sigq.info",
	[REAL_EXPIRES] = "it.real.timer.node.expires",
	[REAL_BASE] = "it.real.timer.base",
	[CPU_EXPIRES] = "it.cpu.node.expires",
	[CPU_PID] = "it.cpu.pid",
	[ALARM_EXPIRES] = "it.alarm.alarmtimer.node.expires",
};

/* The kernel's it_status. */
enum { STATUS_ARMED = 1, STATUS_REQUEUE_PENDING = 2 };

struct layout {
	struct btf_place members[MEMBERS];
	uint32_t size;	     /* of struct k_itimer */
	uint32_t number;     /* offset in struct pid: that of the initial namespace */
	uint32_t base_clock; /* offset in struct hrtimer_clock_base */
};

struct kernel_timer_reader {
	struct layout layout;
};

static struct cr_error *find_layout(const struct btf *btf, struct layout *ret)
{
	uint32_t task_struct = btf_find(btf, BTF_KIND_STRUCT, "task_struct");
	struct btf_place place;

	if (!btf_locate(btf, task_struct, "signal->posix_timers.first", &place))
		return error_new(CR_HOST, "This kernel lists POSIX timers in an older way");
	for (int i = 0; i < MEMBERS; i++)
		TRY(btf_require(btf, "k_itimer", member_names[i], &ret->members[i]));
	ret->size = btf_struct_size(btf, "k_itimer");
	if (ret->size > COPY_MAX || ret->members[INFO].size > sizeof(siginfo_t))
		return error_new(CR_HOST, "This kernel's struct k_itimer has %u bytes", ret->size);
	ret->number = btf_pid_numbers(btf);
	TRY(btf_require(btf, "hrtimer_clock_base", "clockid", &place));
	ret->base_clock = place.offset;
	return NULL;
}

struct cr_error *kernel_timer_reader_open(const struct btf *btf, struct kernel_timer_reader **ret)
{
	_cleanup_free_ struct kernel_timer_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return error_nomem();
	TRY(find_layout(btf, &reader->layout));
	*ret = steal_pointer(&reader);
	return NULL;
}

void kernel_timer_reader_close(struct kernel_timer_reader *reader)
{
	free(reader);
}

/* A struct k_itimer as it was copied. */
struct copy {
	uint64_t address;
	uint8_t timer[COPY_MAX];
};

/* What reading takes. */
struct reading {
	const struct layout *layout;
	struct kernel_peek *peek;
};

static int64_t number(const struct reading *reading, const struct copy *copy, enum member member)
{
	const struct btf_place *place = &reading->layout->members[member];
	int64_t wide = 0;
	int32_t narrow = 0;

	if (place->size == sizeof(wide)) {
		memcpy(&wide, copy->timer + place->offset, sizeof(wide));
		return wide;
	}
	memcpy(&narrow, copy->timer + place->offset,
	       place->size < sizeof(narrow) ? place->size : sizeof(narrow));
	return narrow;
}

/* 4 bytes where a pointer of the timer points to; 0: it is NULL. */
static struct cr_error *follow(const struct reading *reading, const struct copy *copy,
			       enum member pointer, uint32_t offset, int32_t *ret)
{
	uint64_t address = (uint64_t)number(reading, copy, pointer);

	*ret = 0;
	return address ? kernel_peek(reading->peek, address + offset, ret, sizeof(*ret)) : NULL;
}

/* Which of the union's members is in use is told by the clock: timer_create(2). */
static struct cr_error *decode_expiry(const struct reading *reading, const struct copy *copy,
				      struct kernel_timer *timer)
{
	int32_t base_clock;

	if (timer->clock < 0 || timer->clock == CLOCK_PROCESS_CPUTIME_ID ||
	    timer->clock == CLOCK_THREAD_CPUTIME_ID) {
		timer->expires = number(reading, copy, CPU_EXPIRES);
		return follow(reading, copy, CPU_PID, reading->layout->number, &timer->on_cpu);
	}
	if (timer->clock == CLOCK_REALTIME_ALARM || timer->clock == CLOCK_BOOTTIME_ALARM) {
		timer->realtime = timer->clock == CLOCK_REALTIME_ALARM;
		timer->expires = number(reading, copy, ALARM_EXPIRES);
		return NULL;
	}
	TRY(follow(reading, copy, REAL_BASE, reading->layout->base_clock, &base_clock));
	/* one of CLOCK_REALTIME that was set for a span is among CLOCK_MONOTONIC's */
	timer->realtime = base_clock == CLOCK_REALTIME;
	timer->expires = number(reading, copy, REAL_EXPIRES);
	return NULL;
}

static struct cr_error *decode(const struct reading *reading, const struct copy *copy,
			       struct kernel_timer *timer)
{
	const struct btf_place *members = reading->layout->members;
	int64_t status = number(reading, copy, STATUS);
	siginfo_t info = {0};
	uint64_t link;

	memcpy(&info, copy->timer + members[INFO].offset, members[INFO].size);
	memcpy(&link, copy->timer + members[QUEUE_LINK].offset, sizeof(link));
	timer->id = (int32_t)number(reading, copy, ID);
	timer->clock = (int32_t)number(reading, copy, CLOCK);
	timer->notify = (int32_t)number(reading, copy, NOTIFY);
	timer->signal = info.si_signo;
	timer->value = (uint64_t)info.si_value.sival_ptr;
	timer->interval = (uint64_t)number(reading, copy, INTERVAL);
	timer->overruns = number(reading, copy, OVERRUNS);
	timer->queued = link != copy->address + members[QUEUE_LINK].offset;
	/* a signal of before the last timer_settime(2) is dropped when it is taken */
	timer->due = status == STATUS_REQUEUE_PENDING ||
		     (timer->queued &&
		      number(reading, copy, SEQUENCE) == number(reading, copy, QUEUED_SEQUENCE));
	TRY(follow(reading, copy, PID, reading->layout->number, &timer->thread));
	TRY(decode_expiry(reading, copy, timer));
	/* nothing is started for SIGEV_NONE: its expiry alone counts */
	timer->armed = status == STATUS_ARMED || (timer->notify == SIGEV_NONE && timer->expires);
	return NULL;
}

static struct cr_error *copy_timer(const struct reading *reading, uint64_t address,
				   struct copy *ret)
{
	ret->address = address;
	for (uint32_t at = 0; at < reading->layout->size; at += PEEK_MAX) {
		uint32_t left = reading->layout->size - at;

		TRY(kernel_peek(reading->peek, address + at, ret->timer + at,
				left < PEEK_MAX ? left : PEEK_MAX));
	}
	return NULL;
}

struct cr_error *kernel_timer_reader_read(const struct kernel_timer_reader *reader,
					  struct kernel_peek *peek, uint64_t first,
					  struct pool *pool, struct list *ret)
{
	const struct reading reading = {.layout = &reader->layout, .peek = peek};
	uint64_t offset = reader->layout.members[LIST].offset;
	struct copy copy;

	for (uint64_t link = first; link; link = (uint64_t)number(&reading, &copy, NEXT)) {
		struct kernel_timer *timer;

		if (ret->count == KERNEL_TIMERS_MAX)
			return error_remedy(error_new(CR_UNSUPPORTED,
						      "A process has more than %d POSIX timers",
						      KERNEL_TIMERS_MAX),
					    "Let the program use fewer");
		TRY(copy_timer(&reading, link - offset, &copy));
		timer = list_append(pool, ret, sizeof(*timer));
		if (!timer)
			return error_nomem();
		TRY(decode(&reading, &copy, timer));
	}
	return NULL;
}
