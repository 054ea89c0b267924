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
	INTERVAL,
	OVERRUNS,
	PID,
	QUEUE,
	REAL_EXPIRES,
	REAL_BASE,
	CPU_EXPIRES,
	CPU_QUEUE,
	CPU_PID,
	ALARM_EXPIRES,
	/* since Linux 6.13 */
	STATUS,
	SEQUENCE,
	QUEUED_SEQUENCE,
	/* before */
	ACTIVE,
	MEMBERS,
};

static const struct {
	const char *path;
	bool optional;
} member_names[MEMBERS] = {
	[LIST] = {"list", false},
	[NEXT] = {"list.next", false},
	[ID] = {"it_id", false},
	[CLOCK] = {"it_clock", false},
	[NOTIFY] = {"it_sigev_notify", false},
	[INTERVAL] = {"it_interval", false},
	[OVERRUNS] = {"it_overrun_last", false},
	[PID] = {"it_pid", false},
	[QUEUE] = {"sigq", false},
	[REAL_EXPIRES] = {"it.real.timer.node.expires", false},
	[REAL_BASE] = {"it.real.timer.base", false},
	[CPU_EXPIRES] = {"it.cpu.node.expires", false},
	[CPU_QUEUE] = {"it.cpu.head", false},
	[CPU_PID] = {"it.cpu.pid", false},
	[ALARM_EXPIRES] = {"it.alarm.alarmtimer.node.expires", false},
	[STATUS] = {"it_status", true},
	[SEQUENCE] = {"it_signal_seq", true},
	[QUEUED_SEQUENCE] = {"it_sigqueue_seq", true},
	[ACTIVE] = {"it_active", true},
};

/* The kernel's it_status. */
enum { STATUS_ARMED = 1, STATUS_REQUEUE_PENDING = 2 };

struct layout {
	struct btf_place members[MEMBERS]; /* size 0: there is none */
	uint32_t size;			   /* of struct k_itimer */
	bool circle;			   /* the last timer leads to the head, not to NULL */
	uint32_t previous;		   /* in struct list_head */
	bool queue_apart;		   /* a timer points to its struct sigqueue */
	uint32_t queue_size;
	uint32_t link;		  /* offset in struct sigqueue */
	uint32_t info, info_size; /* the same */
	uint32_t number;	  /* offset in struct pid: that of the initial namespace */
	uint32_t base_clock;	  /* offset in struct hrtimer_clock_base */
};

struct kernel_timer_reader {
	struct layout layout;
};

/* A list with two ends until Linux 6.11. */
static struct cr_error *find_list(const struct btf *btf, struct layout *ret)
{
	uint32_t task_struct = btf_find(btf, BTF_KIND_STRUCT, "task_struct");
	struct btf_place place;

	ret->circle = btf_locate(btf, task_struct, "signal->posix_timers.prev", &place);
	if (!ret->circle)
		return NULL;
	TRY(btf_require(btf, "list_head", "prev", &place));
	ret->previous = place.offset;
	return NULL;
}

static struct cr_error *find_queue(const struct btf *btf, struct layout *ret)
{
	struct btf_place link, info;

	TRY(btf_require(btf, "sigqueue", "list", &link));
	TRY(btf_require(btf, "sigqueue", "info", &info));
	ret->link = link.offset;
	ret->info = info.offset;
	ret->info_size = info.size;
	ret->queue_size = btf_struct_size(btf, "sigqueue");
	ret->queue_apart = ret->members[QUEUE].size == sizeof(uint64_t);
	if (info.size > sizeof(siginfo_t) || ret->queue_size > PEEK_MAX)
		return error_new(CR_HOST, "This kernel's struct sigqueue has %u bytes",
				 ret->queue_size);
	return NULL;
}

static struct cr_error *find_layout(const struct btf *btf, struct layout *ret)
{
	uint32_t k_itimer = btf_find(btf, BTF_KIND_STRUCT, "k_itimer");
	struct btf_place place;

	for (int i = 0; i < MEMBERS; i++) {
		if (!member_names[i].optional)
			TRY(btf_require(btf, "k_itimer", member_names[i].path, &ret->members[i]));
		else if (!btf_locate(btf, k_itimer, member_names[i].path, &ret->members[i]))
			ret->members[i].size = 0;
	}
	if (!ret->members[STATUS].size && !ret->members[ACTIVE].size)
		return error_new(CR_HOST, "This kernel does not say which POSIX timers are armed");
	ret->size = btf_struct_size(btf, "k_itimer");
	if (ret->size > COPY_MAX)
		return error_new(CR_HOST, "This kernel's struct k_itimer has %u bytes", ret->size);
	TRY(find_list(btf, ret));
	TRY(find_queue(btf, ret));
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
	uint64_t address, queue_address;
	uint8_t timer[COPY_MAX];
	uint8_t queue[PEEK_MAX]; /* its struct sigqueue */
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

static bool counts_cpu_time(const struct kernel_timer *timer)
{
	return timer->clock < 0 || timer->clock == CLOCK_PROCESS_CPUTIME_ID ||
	       timer->clock == CLOCK_THREAD_CPUTIME_ID;
}

/* Which of the union's members is in use is told by the clock: timer_create(2). */
static struct cr_error *decode_expiry(const struct reading *reading, const struct copy *copy,
				      struct kernel_timer *timer)
{
	int32_t base_clock;

	if (counts_cpu_time(timer)) {
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

static void decode_status(const struct reading *reading, const struct copy *copy,
			  struct kernel_timer *timer)
{
	int64_t status = number(reading, copy, STATUS);

	timer->armed = status == STATUS_ARMED;
	/* a signal of before the last timer_settime(2) is dropped when it is taken */
	timer->due = status == STATUS_REQUEUE_PENDING ||
		     (timer->queued &&
		      number(reading, copy, SEQUENCE) == number(reading, copy, QUEUED_SEQUENCE));
}

/* Before Linux 6.13: a timer that has fired is no longer active, and has a signal or rests for ever. */
static void decode_activity(const struct reading *reading, const struct copy *copy,
			    struct kernel_timer *timer)
{
	timer->armed = counts_cpu_time(timer) ? number(reading, copy, CPU_QUEUE) != 0
					      : number(reading, copy, ACTIVE) != 0;
	timer->due = timer->queued && !timer->armed;
	/* a signal of before the last timer_settime(2) comes all the same */
	timer->stale = timer->queued && timer->armed;
}

static struct cr_error *decode(const struct reading *reading, const struct copy *copy,
			       struct kernel_timer *timer)
{
	const struct layout *layout = reading->layout;
	siginfo_t info = {0};
	uint64_t link;

	memcpy(&info, copy->queue + layout->info, layout->info_size);
	memcpy(&link, copy->queue + layout->link, sizeof(link));
	timer->id = (int32_t)number(reading, copy, ID);
	timer->clock = (int32_t)number(reading, copy, CLOCK);
	timer->notify = (int32_t)number(reading, copy, NOTIFY);
	timer->signal = info.si_signo;
	timer->value = (uint64_t)info.si_value.sival_ptr;
	timer->interval = (uint64_t)number(reading, copy, INTERVAL);
	timer->overruns = number(reading, copy, OVERRUNS);
	timer->queued = link != copy->queue_address + layout->link;
	TRY(follow(reading, copy, PID, layout->number, &timer->thread));
	TRY(decode_expiry(reading, copy, timer));
	if (layout->members[STATUS].size)
		decode_status(reading, copy, timer);
	else
		decode_activity(reading, copy, timer);
	/* nothing is started for SIGEV_NONE: its expiry alone counts */
	timer->armed |= timer->notify == SIGEV_NONE && timer->expires;
	return NULL;
}

static struct cr_error *copy_queue(const struct reading *reading, struct copy *copy)
{
	const struct layout *layout = reading->layout;
	uint32_t offset = layout->members[QUEUE].offset;

	if (layout->queue_apart) {
		copy->queue_address = (uint64_t)number(reading, copy, QUEUE);
		return kernel_peek(reading->peek, copy->queue_address, copy->queue,
				   layout->queue_size);
	}
	copy->queue_address = copy->address + offset;
	memcpy(copy->queue, copy->timer + offset, layout->queue_size);
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
	return copy_queue(reading, ret);
}

struct cr_error *kernel_timer_reader_read(const struct kernel_timer_reader *reader,
					  struct kernel_peek *peek, uint64_t first,
					  struct pool *pool, struct list *ret)
{
	const struct reading reading = {.layout = &reader->layout, .peek = peek};
	uint64_t offset = reader->layout.members[LIST].offset, end = 0;
	struct copy copy;

	/* before the first one of a circle comes the head */
	if (reader->layout.circle)
		TRY(kernel_peek(peek, first + reader->layout.previous, &end, sizeof(end)));
	for (uint64_t link = first; link != end; link = (uint64_t)number(&reading, &copy, NEXT)) {
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
