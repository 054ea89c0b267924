/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "waits.h"

#include <linux/btf.h>
#include <string.h>
#include <unistd.h>

#include "../cleanup.h"
#include "bpf.h"
#include "fields.h"

enum {
	WINDOW = 1024, /* the timer lies in the last frames before the scheduler */
	CHUNK = 256,
	TASK_INTERRUPTIBLE = 1, /* the kernel's sched.h; unchanged since 1.0 */
};

struct record {
	uint64_t task; /* its address */
	uint64_t tid;
	uint64_t state;
	uint64_t switches;
	uint64_t top; /* saved stack pointer */
	uint8_t stack[WINDOW];
};

enum {
	HEAD_SIZE = offsetof(struct record, stack),
	SLOT_HEAD = -8 - HEAD_SIZE,
	SLOT_CHUNK = SLOT_HEAD - CHUNK,
};

_Static_assert(SLOT_CHUNK >= -BPF_STACK_SIZE, "the stack is full");

/* Where struct hrtimer_sleeper keeps what tells it from anything else on the stack. */
struct sleeper_layout {
	struct btf_place task, soft_expires, expires, queued, base;
	uint32_t size;
};

/* The same for struct process_timer, by which schedule_timeout() sleeps; not in every kernel's BTF. */
struct timer_layout {
	struct btf_place task, pending, expires, function;
	uint32_t size; /* 0: not known */
};

struct layout {
	struct sleeper_layout sleeper;
	struct timer_layout timer;
};

struct kernel_wait_reader {
	struct layout layout;
	struct bpf_task_iterator iterator;
};

static struct cr_error *find_sleeper(const struct btf *btf, struct sleeper_layout *ret)
{
	uint32_t sleeper = btf_find(btf, BTF_KIND_STRUCT, "hrtimer_sleeper");

	TRY(btf_require(btf, "hrtimer_sleeper", "task", &ret->task));
	TRY(btf_require(btf, "hrtimer_sleeper", "timer._softexpires", &ret->soft_expires));
	TRY(btf_require(btf, "hrtimer_sleeper", "timer.node.expires", &ret->expires));
	TRY(btf_require(btf, "hrtimer_sleeper", "timer.base", &ret->base));
	if (!btf_locate(btf, sleeper, "timer.is_queued", &ret->queued))
		TRY(btf_require(btf, "hrtimer_sleeper", "timer.state", &ret->queued));
	ret->size = btf_struct_size(btf, "hrtimer_sleeper");
	return NULL;
}

static void find_timer(const struct btf *btf, struct timer_layout *ret)
{
	uint32_t timer = btf_find(btf, BTF_KIND_STRUCT, "process_timer");

	if (timer && btf_locate(btf, timer, "task", &ret->task) &&
	    btf_locate(btf, timer, "timer.entry.pprev", &ret->pending) &&
	    btf_locate(btf, timer, "timer.expires", &ret->expires) &&
	    btf_locate(btf, timer, "timer.function", &ret->function))
		ret->size = btf_struct_size(btf, "process_timer");
}

static struct cr_error *assemble(struct bpf_code *code, const struct btf *btf)
{
	static const struct kernel_field members[] = {
		KERNEL_FIELD(struct record, tid, "pid"),
		KERNEL_FIELD(struct record, state, "__state"),
		KERNEL_FIELD(struct record, switches, "nvcsw"),
		KERNEL_FIELD(struct record, top, "thread.sp"),
		/* kernel threads have none; it makes room for the task's own address */
		KERNEL_FIELD(struct record, task, "mm"),
	};
	static const struct kernel_part head = {.end = HEAD_SIZE, .slot = SLOT_HEAD};
	size_t go_on;

	TRY(bpf_begin(code, btf, "bpf_iter__task", "task"));
	bpf_zero(code, SLOT_HEAD, HEAD_SIZE);
	TRY(kernel_fields_read(code, btf, "task_struct", members,
			       sizeof(members) / sizeof(members[0]), &head));
	bpf_load(code, BPF_DW, BPF_REG_1, BPF_REG_10, SLOT_HEAD);
	go_on = bpf_jump_unless_zero(code, BPF_REG_1);
	bpf_end(code);
	bpf_land(code, go_on);
	bpf_store(code, BPF_DW, SLOT_HEAD, BPF_OBJECT);
	bpf_write(code, SLOT_HEAD, HEAD_SIZE);
	bpf_load(code, BPF_DW, BPF_BASE, BPF_REG_10, SLOT_HEAD + (int)offsetof(struct record, top));
	for (size_t at = 0; at < WINDOW; at += CHUNK) {
		bpf_probe(code, SLOT_CHUNK, CHUNK, BPF_BASE, at);
		bpf_write(code, SLOT_CHUNK, CHUNK);
	}
	bpf_end(code);
	return NULL;
}

static void cleanup_reader(struct kernel_wait_reader **reader)
{
	kernel_wait_reader_close(*reader);
}

struct cr_error *kernel_wait_reader_open(const struct btf *btf, struct kernel_wait_reader **ret)
{
	_cleanup_(cleanup_reader) struct kernel_wait_reader *reader = calloc(1, sizeof(*reader));
	_cleanup_free_ struct bpf_code *code = calloc(1, sizeof(*code));

	if (!reader || !code)
		return error_nomem();
	TRY(find_sleeper(btf, &reader->layout.sleeper));
	find_timer(btf, &reader->layout.timer);
	TRY(assemble(code, btf));
	TRY(bpf_task_iterator_open(btf, code, &reader->iterator));
	*ret = steal_pointer(&reader);
	return NULL;
}

void kernel_wait_reader_close(struct kernel_wait_reader *reader)
{
	if (!reader)
		return;
	bpf_task_iterator_close(&reader->iterator);
	free(reader);
}

struct taker {
	const struct layout *layout;
	struct kernel_tick last;
	struct pool *pool;
	struct list list;
};

static uint64_t word(const uint8_t *at, const struct btf_place *place)
{
	uint64_t value;

	memcpy(&value, at + place->offset, sizeof(value));
	return value;
}

static bool is_kernel_address(uint64_t address)
{
	return (int64_t)address < 0;
}

/*
 * 0: no armed timer that wakes this task. What an earlier call has left behind is not armed, and
 * where its frame was written over by chance so that it looks as if it were, its time has passed.
 */
static uint64_t find_sleeper_end(const struct sleeper_layout *layout,
				 const struct kernel_tick *last, const struct record *record)
{
	for (size_t at = 0; at + layout->size <= WINDOW; at += sizeof(uint64_t)) {
		const uint8_t *sleeper = record->stack + at;
		uint64_t soft = word(sleeper, &layout->soft_expires);
		uint64_t hard = word(sleeper, &layout->expires);

		if (word(sleeper, &layout->task) == record->task &&
		    sleeper[layout->queued.offset] == 1 &&
		    is_kernel_address(word(sleeper, &layout->base)) && soft && soft <= hard &&
		    hard >= last->ns && hard <= INT64_MAX)
			return soft;
	}
	return 0;
}

/* The same for a timer of ticks: by its place in a list, its function, and a time that is to come. */
static uint64_t find_timer_end(const struct timer_layout *layout, const struct kernel_tick *last,
			       const struct record *record)
{
	for (size_t at = 0; layout->size && at + layout->size <= WINDOW; at += sizeof(uint64_t)) {
		const uint8_t *timer = record->stack + at;
		uint64_t expires = word(timer, &layout->expires);

		if (word(timer, &layout->task) == record->task &&
		    is_kernel_address(word(timer, &layout->pending)) &&
		    is_kernel_address(word(timer, &layout->function)) &&
		    expires - last->jiffies <= INT32_MAX)
			return kernel_tick_to_ns(last, expires);
	}
	return 0;
}

static uint64_t find_end(const struct taker *taker, const struct record *record)
{
	uint64_t end = find_sleeper_end(&taker->layout->sleeper, &taker->last, record);

	return end ? end : find_timer_end(&taker->layout->timer, &taker->last, record);
}

static struct cr_error *take_wait(void *context, const void *data, bool *done)
{
	struct taker *taker = context;
	const struct record *record = data;
	struct kernel_wait *wait;
	uint64_t deadline;

	(void)done;
	if (!(record->state & TASK_INTERRUPTIBLE))
		return NULL;
	deadline = find_end(taker, record);
	if (!deadline)
		return NULL;
	wait = list_append(taker->pool, &taker->list, sizeof(*wait));
	if (!wait)
		return error_nomem();
	wait->tid = (int32_t)record->tid;
	wait->switches = record->switches;
	wait->deadline = deadline;
	return NULL;
}

static int by_tid(const void *a, const void *b)
{
	int32_t x = ((const struct kernel_wait *)a)->tid, y = ((const struct kernel_wait *)b)->tid;

	return (x > y) - (x < y);
}

struct cr_error *kernel_wait_reader_read(struct kernel_wait_reader *reader,
					 struct kernel_peek *peek, struct pool *pool,
					 struct list *ret)
{
	struct taker taker = {.layout = &reader->layout, .pool = pool};
	struct bpf_records records = {
		.record_size = sizeof(struct record),
		.take = take_wait,
		.context = &taker,
	};

	TRY(kernel_last_tick(peek, &taker.last));
	TRY(bpf_task_iterator_run(&reader->iterator, records));
	if (taker.list.count)
		qsort(taker.list.items, taker.list.count, sizeof(struct kernel_wait), by_tid);
	*ret = taker.list;
	return NULL;
}
