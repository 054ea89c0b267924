/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "registers.h"

#include <string.h>
#include <sys/syscall.h>

#include "../dump.h"
#include "process.h"
#include "rseq.h"

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

/*
 * Some system calls say EINTR when a task is stopped, without any signal having been delivered: the
 * stop would be visible. They are entered again instead.
 */
static bool is_ours_to_hide(const struct arch_regs *regs)
{
	static const long calls[] = {
		SYS_epoll_wait,	  SYS_epoll_pwait, SYS_epoll_pwait2, SYS_rt_sigtimedwait,
		SYS_io_getevents, SYS_read,	   SYS_write,	     SYS_recvfrom,
		SYS_sendto,	  SYS_recvmsg,	   SYS_sendmsg,	     SYS_accept,
		SYS_accept4,	  SYS_connect,	   SYS_semop,	     SYS_semtimedop,
	};

	if (arch_result(regs) != -EINTR)
		return false;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (arch_syscall_nr(regs) == calls[i])
			return true;
	}
	return false;
}

static struct cr_error *registers_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct registers *registers = state;
	struct arch_regs regs;

	TRY(task_get_regs(thread->host_tid, &regs));
	/* with job control the call has been interrupted before we came */
	if (is_ours_to_hide(&regs) && !process_is_stopped(thread->process)) {
		arch_rewind_syscall(&regs);
		TRY(task_set_regs(thread->host_tid, &regs));
	}
	TRY(rseq_abort(thread->host_tid, &regs));
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
	.dump_thread = registers_dump,
	/* set at the release, after the last program has run: release.c */
};
