/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Syscall user dispatch: calls from outside a range raise SIGSYS while a byte of the program says so. */
#include "syscall_dispatch.h"

#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "../dump.h"
#include "../restore.h"

#ifndef PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG
#define PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG 0x4210
#define PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG 0x4211
#endif

/* struct ptrace_sud_config of linux/ptrace.h, which clashes with sys/ptrace.h. */
struct syscall_dispatch {
	uint64_t mode, selector, offset, len;
};

static const struct field syscall_dispatch_fields[] = {
	FIELD_UINT(struct syscall_dispatch, mode, 0, 2, "PR_SYS_DISPATCH_..., 0: off"),
	FIELD_UINT(struct syscall_dispatch, selector, 0, ARCH_TASK_SIZE, "address of the byte"),
	FIELD_UINT(struct syscall_dispatch, offset, 0, UINT64_MAX, "start of the range"),
	FIELD_UINT(struct syscall_dispatch, len, 0, UINT64_MAX, "bytes of the range"),
	FIELD_END,
};

/* Since Linux 6.4 a tracer can read and set it; before, the thread's own call sets it. */
static bool can_trace(pid_t tid)
{
	struct syscall_dispatch scrap;

	return ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, sizeof(scrap), &scrap) == 0 ||
	       errno != EIO;
}

static struct cr_error *syscall_dispatch_dump(struct dump *dump, struct thread *thread, void *state)
{
	const struct kernel_task *kernel = thread->kernel;

	(void)dump;
	if (!kernel->dispatch_selector && !kernel->dispatch_offset && !kernel->dispatch_len)
		return NULL;
	if (!can_trace(thread->host_tid)) {
		*(struct syscall_dispatch *)state = (struct syscall_dispatch){
			.mode = PR_SYS_DISPATCH_ON,
			.selector = kernel->dispatch_selector,
			.offset = kernel->dispatch_offset,
			.len = kernel->dispatch_len,
		};
		return NULL;
	}
	if (ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, thread->host_tid,
		   sizeof(struct syscall_dispatch), state) < 0)
		return error_sys("Failed to read the syscall user dispatch of thread %d",
				 thread->tid);
	return NULL;
}

struct cr_error *syscall_dispatch_call(const struct thread *thread, uint64_t insn)
{
	const struct syscall_dispatch *dispatch = thread_state(thread, &syscall_dispatch_kind);
	int64_t result = 0;

	if (!dispatch || !dispatch->mode || can_trace(thread->host_tid))
		return NULL;
	TRY(task_syscall(thread->host_tid, insn, SYS_prctl,
			 (const uint64_t[6]){PR_SET_SYSCALL_USER_DISPATCH, dispatch->mode,
					     dispatch->offset, dispatch->len, dispatch->selector},
			 &result));
	return result < 0 ? error_errno((int)result,
					"Failed to set the syscall user dispatch of thread %d",
					thread->tid)
			  : NULL;
}

struct cr_error *syscall_dispatch_set(const struct thread *thread)
{
	const struct syscall_dispatch *dispatch = thread_state(thread, &syscall_dispatch_kind);

	if (!dispatch || !dispatch->mode || !can_trace(thread->host_tid))
		return NULL;
	if (ptrace(PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, thread->host_tid, sizeof(*dispatch),
		   dispatch) < 0)
		return error_sys("Failed to set the syscall user dispatch of thread %d",
				 thread->tid);
	return NULL;
}

const struct kind syscall_dispatch_kind = {
	.name = "syscall_dispatch",
	.doc = "Syscall user dispatch of a thread",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct syscall_dispatch),
	.fields = syscall_dispatch_fields,
	.dump_thread = syscall_dispatch_dump,
	/* set at the release, after the last program has run: release.c */
};
