/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rseq.h"

#include <linux/rseq.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "../dump.h"
#include "../restore.h"

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif

struct rseq_state {
	uint64_t address; /* 0: not registered */
	uint32_t size, signature;
};

static const struct field rseq_fields[] = {
	FIELD_UINT(struct rseq_state, address, 0, ARCH_TASK_SIZE,
		   "struct rseq of the thread, 0: none"),
	FIELD_UINT(struct rseq_state, size, 0, 4096, "bytes registered"),
	FIELD_UINT(struct rseq_state, signature, 0, UINT32_MAX, "in front of abort handlers"),
	FIELD_END,
};

/* struct ptrace_rseq_configuration of linux/ptrace.h, which clashes with sys/ptrace.h. */
struct configuration {
	uint64_t address;
	uint32_t size, signature, flags, pad;
};

static struct cr_error *rseq_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct rseq_state *rseq = state;
	struct configuration configuration;

	(void)dump;
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, thread->host_tid, sizeof(configuration),
		   &configuration) < 0)
		return error_sys("Failed to read the rseq registration of thread %d", thread->tid);
	rseq->address = configuration.address;
	rseq->size = configuration.size;
	rseq->signature = configuration.signature;
	return NULL;
}

static struct cr_error *rseq_restore(struct restore *restore, struct thread *thread,
				     const void *state)
{
	const struct rseq_state *rseq = state;

	(void)thread;
	if (rseq->address)
		program_call(restore->program, "register rseq", SYS_rseq, rseq->address, rseq->size,
			     0, rseq->signature);
	return NULL;
}

struct cr_error *rseq_abort(const struct thread *thread, struct arch_regs *regs)
{
	const struct rseq_state *rseq = thread_state(thread, &rseq_kind);
	struct rseq_cs section;
	uint64_t pointer;

	if (!rseq->address)
		return NULL;
	TRY(task_read(thread->host_tid, rseq->address + offsetof(struct rseq, rseq_cs), &pointer,
		      sizeof(pointer)));
	if (!pointer)
		return NULL;
	TRY(task_read(thread->host_tid, pointer, &section, sizeof(section)));
	if (arch_ip(regs) - section.start_ip < section.post_commit_offset)
		arch_set_ip(regs, section.abort_ip);
	return NULL;
}

const struct kind rseq_kind = {
	.name = "rseq",
	.doc = "Restartable sequences: registration",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct rseq_state),
	.fields = rseq_fields,
	.dump_thread = rseq_dump,
	.restore_thread = rseq_restore,
};
