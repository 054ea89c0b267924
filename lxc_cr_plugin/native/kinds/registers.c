/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "registers.h"

#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../dump.h"
#include "rseq.h"
#include "wait.h"

struct registers {
	struct bytes general;  /* struct user_regs_struct */
	struct bytes extended; /* XSAVE area */
};

static const struct field registers_fields[] = {
	FIELD_BYTES(struct registers, general, sizeof(struct arch_regs),
		    "general registers, NT_PRSTATUS"),
	FIELD_BYTES(struct registers, extended, ARCH_XSTATE_MAX,
		    "floating point and vectors, as XSAVE"),
	FIELD_END,
};

/* The survey: what its registers would say too, if it stood. */
static struct cr_error *registers_check(struct dump *dump, struct thread *thread)
{
	const struct process *process = thread->process;
	_cleanup_close_ int program = -1;
	uint8_t magic[EI_NIDENT];
	struct cr_error *error;

	if (!dump->running || !thread_is_leader(thread))
		return NULL;
	program = openat(process->proc, "exe", O_RDONLY | O_CLOEXEC);
	if (program < 0 || pread(program, magic, sizeof(magic), 0) != sizeof(magic) ||
	    memcmp(magic, ELFMAG, SELFMAG) != 0 || magic[EI_CLASS] != ELFCLASS32)
		return NULL;
	error = error_new(CR_UNSUPPORTED, "Process %d (%s) is a program for 32 bits", process->pid,
			  process->stat.comm);
	error = error_task(error_object(error, "registers"), process->pid, process->stat.comm);
	return error_remedy(error, "Not supported: end it, or use the same program for 64 bits");
}

static struct cr_error *registers_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct registers *registers = state;
	struct arch_regs regs;

	TRY(task_get_regs(thread->host_tid, &regs));
	if (wait_is_ours_to_hide(thread, &regs)) {
		wait_hide(&regs);
		TRY(task_set_regs(thread->host_tid, &regs));
	}
	TRY(rseq_abort(thread, &regs));
	registers->general.data = pool_memdup(dump->image.pool, &regs, sizeof(regs));
	registers->general.len = sizeof(regs);
	if (!registers->general.data)
		return error_nomem();
	return task_get_xstate(thread->host_tid, dump->image.pool, &registers->extended);
}

struct cr_error *registers_of(const struct thread *thread, struct arch_regs *ret)
{
	const struct registers *registers = thread_state(thread, &registers_kind);

	if (registers->general.len != sizeof(*ret))
		return error_new(CR_IMAGE, "Thread %d has registers of another machine",
				 thread->tid);
	memcpy(ret, registers->general.data, sizeof(*ret));
	if (!arch_regs_sane(ret))
		return error_new(CR_IMAGE, "Thread %d has registers that no program can have",
				 thread->tid);
	return NULL;
}

struct cr_error *registers_set(const struct thread *thread, const struct arch_regs *regs)
{
	const struct registers *registers = thread_state(thread, &registers_kind);
	struct cr_error *error = task_set_xstate(thread->host_tid, &registers->extended);

	if (error)
		return error_remedy(
			error_wrap(error, "Failed to restore thread %d", thread->tid),
			"The image comes from a processor with other extensions; restart it "
			"on one that has them");
	return task_set_regs(thread->host_tid, regs);
}

const struct kind registers_kind = {
	.name = "registers",
	.doc = "Processor state of a thread",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct registers),
	.fields = registers_fields,
	.check_thread = registers_check,
	.dump_thread = registers_dump,
	/* set at the release, after the last program has run: release.c */
};
