/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tasks.h"

#include <linux/btf.h>
#include <string.h>
#include <unistd.h>

#include "../cleanup.h"
#include "bpf.h"
#include "btf.h"
#include "fields.h"

enum {
	BUFFER_SIZE = 64 << 10,
	HEAD_SIZE = offsetof(struct kernel_task, actions),
	CHUNK_SIZE = 128, /* the stack does not hold all actions at once */
	SLOT_OWN = -8,	  /* see bpf_probe_place() */
	SLOT_HEAD = SLOT_OWN - HEAD_SIZE,
	SLOT_CHUNK = -BPF_STACK_SIZE,
};

_Static_assert(HEAD_SIZE % 8 == 0, "the head is zeroed in units of 8 bytes");
_Static_assert(SLOT_CHUNK + CHUNK_SIZE <= SLOT_HEAD, "the stack is full");
_Static_assert(sizeof(struct kernel_task) ==
		       HEAD_SIZE + KERNEL_SIGNALS * sizeof(struct kernel_sigaction),
	       "the record is the struct");
_Static_assert(sizeof(((struct kernel_task *)0)->actions) % CHUNK_SIZE == 0, "only whole chunks");

/* clang-format off */
#define FIELD(member, ...) KERNEL_FIELD(struct kernel_task, member, __VA_ARGS__)

/* From struct task_struct. */
static const struct kernel_field fields[] = {
	FIELD(pid, "pid"),
	FIELD(tgid, "tgid"),
	FIELD(ppid, "real_parent->tgid"),
	FIELD(exit_state, "exit_state"),
	FIELD(flags, "flags"),
	FIELD(exit_code, "exit_code"),
	FIELD(jobctl, "jobctl"),
	FIELD(sas_ss_sp, "sas_ss_sp"),
	FIELD(sas_ss_size, "sas_ss_size"),
	FIELD(sas_ss_flags, "sas_ss_flags"),
	FIELD(pdeath_signal, "pdeath_signal"),
	FIELD(clear_child_tid, "clear_child_tid"),
	FIELD(set_child_tid, "set_child_tid"),
	FIELD(nanosleep.clockid, "restart_block.nanosleep.clockid"),
	FIELD(nanosleep.type, "restart_block.nanosleep.type"),
	FIELD(nanosleep.rmtp, "restart_block.nanosleep.rmtp"),
	FIELD(nanosleep.expires, "restart_block.nanosleep.expires"),
	FIELD(futex.uaddr, "restart_block.futex.uaddr"),
	FIELD(futex.val, "restart_block.futex.val"),
	FIELD(futex.flags, "restart_block.futex.flags"),
	FIELD(futex.bitset, "restart_block.futex.bitset"),
	FIELD(futex.time, "restart_block.futex.time"),
	FIELD(poll.ufds, "restart_block.poll.ufds"),
	FIELD(poll.nfds, "restart_block.poll.nfds"),
	FIELD(poll.has_timeout, "restart_block.poll.has_timeout"),
	FIELD(poll.tv_sec, "restart_block.poll.end_time.tv_sec", "restart_block.poll.tv_sec"),
	FIELD(poll.tv_nsec, "restart_block.poll.end_time.tv_nsec", "restart_block.poll.tv_nsec"),
	FIELD(securebits, "cred->securebits"),
	FIELD(brk, "mm->brk"),
	FIELD(mm_flags, "mm->flags", "mm->_flags"),
	FIELD(mm, "mm"),
	FIELD(files, "files"),
	FIELD(fs, "fs"),
	FIELD(sighand, "sighand"),
	FIELD(seccomp_filter, "seccomp.filter"),
	FIELD(cgroups, "cgroups"),
	FIELD(nsproxy, "nsproxy"),
	FIELD(subreaper, "signal->is_child_subreaper"),
	FIELD(signal_flags, "signal->flags"),
	FIELD(group_exit_code, "signal->group_exit_code"),
	FIELD(group_stop_count, "signal->group_stop_count"),
	FIELD(it_real_incr, "signal->it_real_incr"),
	/* CPUCLOCK_PROF is 0, CPUCLOCK_VIRT 1: the other way round than ITIMER_VIRTUAL and ITIMER_PROF. */
	FIELD(it_prof_expires, "signal->it[0].expires"),
	FIELD(it_prof_incr, "signal->it[0].incr"),
	FIELD(it_virt_expires, "signal->it[1].expires"),
	FIELD(it_virt_incr, "signal->it[1].incr"),
	FIELD(it_real_expires, "signal->real_timer.node.expires"),
	/* an hrtimer that is not armed keeps its last expiry */
	FIELD(it_real_armed, "signal->real_timer.is_queued", "signal->real_timer.state"),
	FIELD(posix_timers, "signal->posix_timers"),
};
/* clang-format on */

static const struct kernel_field actions = {
	HEAD_SIZE, sizeof(((struct kernel_task *)NULL)->actions), {"sighand->action"}};

struct kernel_reader {
	int link; /* keeps the program */
	char *buffer;
};

static struct cr_error *assemble_head(struct bpf_code *code, const struct btf *btf)
{
	bpf_zero(code, SLOT_HEAD, HEAD_SIZE);
	TRY(kernel_fields_read(code, btf, "task_struct", fields, sizeof(fields) / sizeof(fields[0]),
			       SLOT_HEAD));

	bpf_write(code, SLOT_HEAD, HEAD_SIZE);
	return NULL;
}

static struct cr_error *assemble_actions(struct bpf_code *code, const struct btf *btf)
{
	struct btf_place place, chunk, previous;

	TRY(kernel_field_locate(btf, btf_find(btf, BTF_KIND_STRUCT, "task_struct"), &actions,
				&place));
	if (place.size != actions.size)
		return error_new(CR_HOST,
				 "Member %s of struct task_struct has %u bytes, expected %zu",
				 actions.paths[0], place.size, actions.size);
	for (uint32_t at = 0; at < place.size; at += CHUNK_SIZE) {
		chunk = place;
		chunk.offset += at;
		chunk.size = CHUNK_SIZE;
		bpf_probe_place(code, SLOT_CHUNK, &chunk, at ? &previous : NULL);
		bpf_write(code, SLOT_CHUNK, CHUNK_SIZE);
		previous = chunk;
	}
	return NULL;
}

static struct cr_error *load(const struct btf *btf, int *ret)
{
	_cleanup_free_ struct bpf_code *code = calloc(1, sizeof(*code));

	if (!code)
		return error_nomem();
	TRY(bpf_begin(code, btf, "bpf_iter__task", "task"));
	TRY(assemble_head(code, btf));
	TRY(assemble_actions(code, btf));
	bpf_end(code);
	return bpf_load_iterator(btf, "bpf_iter_task", code, ret);
}

static void cleanup_reader(struct kernel_reader **reader)
{
	kernel_reader_close(*reader);
}

struct cr_error *kernel_reader_open(struct kernel_reader **ret)
{
	_cleanup_(cleanup_reader) struct kernel_reader *reader = calloc(1, sizeof(*reader));
	_cleanup_btf_ struct btf *btf = NULL;
	_cleanup_close_ int program = -1;

	if (!reader)
		return error_nomem();
	reader->link = -1;
	reader->buffer = malloc(BUFFER_SIZE);
	if (!reader->buffer)
		return error_nomem();
	/* Page faults now, not while tasks stand still. */
	memset(reader->buffer, 1, BUFFER_SIZE);
	TRY(btf_open(&btf));
	TRY(load(btf, &program));
	TRY(bpf_link_iterator(program, 0, &reader->link));
	*ret = steal_pointer(&reader);
	return NULL;
}

void kernel_reader_close(struct kernel_reader *reader)
{
	if (!reader)
		return;
	if (reader->link >= 0)
		close(reader->link);
	free(reader->buffer);
	free(reader);
}

struct selection {
	bool (*wanted)(void *context, const struct kernel_task *task);
	void *context;
	struct pool *pool;
	struct list *list;
};

static struct cr_error *take_task(void *context, const void *record, bool *done)
{
	struct selection *selection = context;
	const struct kernel_task *task = record;
	struct kernel_task *item;

	(void)done;
	if (selection->wanted && !selection->wanted(selection->context, task))
		return NULL;
	item = list_append(selection->pool, selection->list, sizeof(*item));
	if (!item)
		return error_nomem();
	*item = *task;
	return NULL;
}

struct cr_error *kernel_reader_tasks(struct kernel_reader *reader, struct pool *pool,
				     bool (*wanted)(void *context, const struct kernel_task *task),
				     void *context, struct list *ret)
{
	struct list list = {0};
	struct selection selection = {wanted, context, pool, &list};
	struct bpf_records records = {
		.buffer = reader->buffer,
		.buffer_size = BUFFER_SIZE,
		.record_size = sizeof(struct kernel_task),
		.take = take_task,
		.context = &selection,
	};

	TRY(bpf_run_iterator(reader->link, &records));
	*ret = list;
	return NULL;
}
