/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "timers.h"

#include <linux/btf.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../cleanup.h"
#include "bpf.h"

enum { COPY_MAX = 400 };

/* What the program writes for each timer. */
struct record {
	uint64_t pid, tgid;
	uint64_t address;    /* of struct k_itimer */
	uint32_t thread;     /* it_pid->numbers[0].nr */
	uint32_t on_cpu;     /* it.cpu.pid->numbers[0].nr, when it is such a timer */
	uint32_t base_clock; /* it.real.timer.base->clockid, when it is such a timer */
	uint32_t reserved;
	uint8_t timer[COPY_MAX]; /* struct k_itimer */
};

enum {
	SLOT_RECORD = -8 - (int)sizeof(struct record), /* above it: bpf_probe_place()'s own */
	BPF_TIMER = BPF_REG_6,
};

_Static_assert(SLOT_RECORD >= -BPF_STACK_SIZE && SLOT_RECORD % 8 == 0, "the stack is full");

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
	struct bpf_task_iterator iterator;
};

static struct cr_error *find_layout(const struct btf *btf, struct layout *ret)
{
	struct btf_place place;

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

static int slot_of(size_t member_of_record)
{
	return SLOT_RECORD + (int)member_of_record;
}

/* Follow a pointer of the timer that was copied, and take 4 bytes from there. */
static void assemble_pointer(struct bpf_code *code, const struct btf_place *pointer,
			     uint32_t offset, size_t member_of_record)
{
	bpf_load(code, BPF_DW, BPF_TIMER, BPF_REG_10,
		 slot_of(offsetof(struct record, timer)) + (int)pointer->offset);
	bpf_probe(code, slot_of(member_of_record), 4, BPF_TIMER, offset);
}

/* BPF_TIMER points to the link of a timer; afterwards to that of the next. */
static void assemble_timer(struct bpf_code *code, const struct layout *layout)
{
	const struct btf_place *members = layout->members;

	bpf_add(code, BPF_TIMER, -(int)members[LIST].offset);
	bpf_store(code, BPF_DW, slot_of(offsetof(struct record, address)), BPF_TIMER);
	bpf_probe(code, slot_of(offsetof(struct record, timer)), layout->size, BPF_TIMER, 0);
	assemble_pointer(code, &members[PID], layout->number, offsetof(struct record, thread));
	assemble_pointer(code, &members[CPU_PID], layout->number, offsetof(struct record, on_cpu));
	assemble_pointer(code, &members[REAL_BASE], layout->base_clock,
			 offsetof(struct record, base_clock));
	bpf_write(code, SLOT_RECORD, sizeof(struct record));
	bpf_load(code, BPF_DW, BPF_TIMER, BPF_REG_10,
		 slot_of(offsetof(struct record, timer)) + (int)members[NEXT].offset);
}

/* The verifier follows a loop through all its rounds: their number must be bounded. */
static struct cr_error *assemble(struct bpf_code *code, const struct btf *btf,
				 const struct layout *layout)
{
	uint32_t task_struct = btf_find(btf, BTF_KIND_STRUCT, "task_struct");
	struct btf_place head, pid, tgid;
	size_t go_on, again;

	if (!btf_locate(btf, task_struct, "signal->posix_timers.first", &head))
		return error_new(CR_HOST, "This kernel lists POSIX timers in an older way");
	TRY(btf_require(btf, "task_struct", "pid", &pid));
	TRY(btf_require(btf, "task_struct", "tgid", &tgid));
	TRY(bpf_begin(code, btf, "bpf_iter__task", "task"));
	bpf_zero(code, SLOT_RECORD, sizeof(struct record));
	bpf_probe_place(code, slot_of(offsetof(struct record, pid)), &pid, NULL);
	bpf_probe_place(code, slot_of(offsetof(struct record, tgid)), &tgid, NULL);
	bpf_probe_place(code, slot_of(offsetof(struct record, address)), &head, NULL);
	bpf_load(code, BPF_DW, BPF_TIMER, BPF_REG_10, slot_of(offsetof(struct record, address)));
	bpf_set(code, BPF_BASE, 0);
	again = code->count;
	go_on = bpf_jump_unless_zero(code, BPF_TIMER);
	bpf_end(code);
	bpf_land(code, go_on);
	assemble_timer(code, layout);
	bpf_add(code, BPF_BASE, 1);
	bpf_jump_back_if_less(code, BPF_BASE, KERNEL_TIMERS_MAX, again);
	bpf_end(code);
	return NULL;
}

static void cleanup_reader(struct kernel_timer_reader **reader)
{
	kernel_timer_reader_close(*reader);
}

struct cr_error *kernel_timer_reader_open(const struct btf *btf, struct kernel_timer_reader **ret)
{
	_cleanup_(cleanup_reader) struct kernel_timer_reader *reader = calloc(1, sizeof(*reader));
	_cleanup_free_ struct bpf_code *code = calloc(1, sizeof(*code));

	if (!reader || !code)
		return error_nomem();
	TRY(find_layout(btf, &reader->layout));
	TRY(assemble(code, btf, &reader->layout));
	TRY(bpf_task_iterator_open(btf, code, &reader->iterator));
	*ret = steal_pointer(&reader);
	return NULL;
}

void kernel_timer_reader_close(struct kernel_timer_reader *reader)
{
	if (!reader)
		return;
	bpf_task_iterator_close(&reader->iterator);
	free(reader);
}

struct taker {
	const struct layout *layout;
	struct pool *pool;
	struct list list;
	int32_t tgid;
	uint32_t count; /* of this process */
};

static int64_t number(const struct taker *taker, const struct record *record, enum member member)
{
	const struct btf_place *place = &taker->layout->members[member];
	int64_t wide = 0;
	int32_t narrow = 0;

	if (place->size == sizeof(wide)) {
		memcpy(&wide, record->timer + place->offset, sizeof(wide));
		return wide;
	}
	memcpy(&narrow, record->timer + place->offset,
	       place->size < sizeof(narrow) ? place->size : sizeof(narrow));
	return narrow;
}

/* Which of the union's members is in use is told by the clock: timer_create(2). */
static void decode_expiry(const struct taker *taker, const struct record *record,
			  struct kernel_timer *timer)
{
	if (timer->clock < 0 || timer->clock == CLOCK_PROCESS_CPUTIME_ID ||
	    timer->clock == CLOCK_THREAD_CPUTIME_ID) {
		timer->on_cpu = (int32_t)record->on_cpu;
		timer->expires = number(taker, record, CPU_EXPIRES);
	} else if (timer->clock == CLOCK_REALTIME_ALARM || timer->clock == CLOCK_BOOTTIME_ALARM) {
		timer->realtime = timer->clock == CLOCK_REALTIME_ALARM;
		timer->expires = number(taker, record, ALARM_EXPIRES);
	} else {
		/* one of CLOCK_REALTIME that was set for a span is among CLOCK_MONOTONIC's */
		timer->realtime = record->base_clock == CLOCK_REALTIME;
		timer->expires = number(taker, record, REAL_EXPIRES);
	}
}

static void decode(const struct taker *taker, const struct record *record,
		   struct kernel_timer *timer)
{
	const struct btf_place *members = taker->layout->members;
	int64_t status = number(taker, record, STATUS);
	siginfo_t info = {0};
	uint64_t link;

	memcpy(&info, record->timer + members[INFO].offset, members[INFO].size);
	memcpy(&link, record->timer + members[QUEUE_LINK].offset, sizeof(link));
	timer->tgid = (int32_t)record->tgid;
	timer->id = (int32_t)number(taker, record, ID);
	timer->clock = (int32_t)number(taker, record, CLOCK);
	timer->notify = (int32_t)number(taker, record, NOTIFY);
	timer->signal = info.si_signo;
	timer->value = (uint64_t)info.si_value.sival_ptr;
	timer->thread = (int32_t)record->thread;
	timer->interval = (uint64_t)number(taker, record, INTERVAL);
	timer->overruns = number(taker, record, OVERRUNS);
	decode_expiry(taker, record, timer);
	timer->queued = link != record->address + members[QUEUE_LINK].offset;
	/* a signal of before the last timer_settime(2) is dropped when it is taken */
	timer->due = status == STATUS_REQUEUE_PENDING ||
		     (timer->queued &&
		      number(taker, record, SEQUENCE) == number(taker, record, QUEUED_SEQUENCE));
	/* nothing is started for SIGEV_NONE: its expiry alone counts */
	timer->armed = status == STATUS_ARMED || (timer->notify == SIGEV_NONE && timer->expires);
}

static struct cr_error *take_timer(void *context, const void *data, bool *done)
{
	struct taker *taker = context;
	const struct record *record = data;
	struct kernel_timer *timer;

	(void)done;
	if (record->pid != record->tgid)
		return NULL;
	if (taker->tgid != (int32_t)record->tgid)
		taker->count = 0;
	taker->tgid = (int32_t)record->tgid;
	if (++taker->count == KERNEL_TIMERS_MAX)
		return error_remedy(error_new(CR_UNSUPPORTED,
					      "Process %d of the host has %d POSIX timers or more",
					      taker->tgid, KERNEL_TIMERS_MAX),
				    "Let the program use fewer");
	timer = list_append(taker->pool, &taker->list, sizeof(*timer));
	if (!timer)
		return error_nomem();
	decode(taker, record, timer);
	return NULL;
}

struct cr_error *kernel_timer_reader_read(struct kernel_timer_reader *reader, struct pool *pool,
					  struct list *ret)
{
	struct taker taker = {.layout = &reader->layout, .pool = pool};
	struct bpf_records records = {
		.record_size = sizeof(struct record),
		.take = take_timer,
		.context = &taker,
	};

	TRY(bpf_task_iterator_run(&reader->iterator, records));
	*ret = taker.list;
	return NULL;
}
