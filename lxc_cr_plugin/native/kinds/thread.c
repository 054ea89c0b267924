/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../dump.h"
#include "../restore.h"
#include "thread.h"

static const struct field thread_fields[] = {
	FIELD_INT(struct thread_identity, tid, 1, MAX_TASKS, "thread id in the container"),
	FIELD_BYTES(struct thread_identity, comm, 15, "name"),
	FIELD_UINT(struct thread_identity, personality, 0, UINT32_MAX, "personality(2)"),
	FIELD_BOOL(struct thread_identity, no_tsc,
		   "PR_SET_TSC: reading the time stamp counter is a SIGSEGV", .optional = true),
	FIELD_END,
};

static bool is_this_thread(void *context, const struct kernel_task *task)
{
	return task->pid == *(const pid_t *)context;
}

static struct cr_error *own_flags(struct dump *dump, uint64_t *ret)
{
	pid_t tid = gettid();
	struct list list = {0};

	TRY(kernel_reader_tasks(dump->kernel, dump->image.pool, is_this_thread, &tid, &list));
	*ret = list.count ? ((struct kernel_task *)list.items)->thread_flags : 0;
	return NULL;
}

/*
 * Which flag of a thread says that it may not read the time stamp counter? The one that appears when
 * we may not. Others come and go: those that a second look does not show alike are none of it.
 */
static struct cr_error *find_no_tsc(struct dump *dump)
{
	enum { TRIES = 20 };

	for (int i = 0; i < TRIES && !dump->no_tsc; i++) {
		uint64_t may, may_not;
		struct cr_error *error;

		TRY(own_flags(dump, &may));
		/* nothing in between may ask for the time: the vdso reads the counter */
		if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV) < 0)
			return error_sys("Failed to give up the time stamp counter");
		error = own_flags(dump, &may_not);
		prctl(PR_SET_TSC, PR_TSC_ENABLE);
		TRY(error);
		may_not &= ~may;
		if (may_not && !(may_not & (may_not - 1)))
			dump->no_tsc = may_not;
	}
	if (dump->no_tsc)
		return NULL;
	return error_remedy(error_new(CR_HOST, "This kernel does not tell who may read the time "
					       "stamp counter (PR_SET_TSC)"),
			    "Update lxc-cr");
}

static struct cr_error *thread_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct thread_identity *identity = state;
	size_t len = strnlen(thread->kernel->comm, 15);

	identity->tid = thread->tid;
	identity->personality = thread->kernel->personality;
	identity->no_tsc = thread->kernel->thread_flags & dump->no_tsc;
	identity->comm.data = (uint8_t *)pool_strndup(dump->image.pool, thread->kernel->comm, len);
	identity->comm.len = len;
	return identity->comm.data ? NULL : error_nomem();
}

static struct cr_error *thread_check(struct dump *dump, struct thread *thread)
{
	pid_t tracer = thread->status.tracer;
	struct cr_error *error;

	if (!dump->no_tsc)
		TRY(find_no_tsc(dump));
	if (!tracer || tracer == getpid())
		return NULL;
	error = error_new(CR_UNSUPPORTED,
			  "Thread %d of process %d (%s) is being debugged or traced by %s",
			  thread->tid, thread->process->pid, thread->process->stat.comm,
			  proc_name(tracer, dump->image.pool));
	error = error_task(error, thread->process->pid, thread->process->stat.comm);
	return error_remedy(error_object(error, "ptrace"),
			    "Only one tracer can hold a thread: end it, or have it detach");
}

static struct cr_error *thread_restore(struct restore *restore, struct thread *thread,
				       const void *state)
{
	const struct thread_identity *identity = state;

	(void)thread;
	if (identity->personality)
		program_call(restore->program, "set the personality", SYS_personality,
			     identity->personality);
	if (identity->no_tsc)
		program_call(restore->program, "forbid to read the time stamp counter", SYS_prctl,
			     PR_SET_TSC, PR_TSC_SIGSEGV);
	program_call(restore->program, "set the name", SYS_prctl, PR_SET_NAME,
		     program_bytes(restore->program, &identity->comm));
	return NULL;
}

const struct kind thread_kind = {
	.name = "thread",
	.doc = "Thread: id, name, personality, whether it may read the time stamp counter",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct thread_identity),
	.fields = thread_fields,
	.check_thread = thread_check,
	.dump_thread = thread_dump,
	.restore_thread = thread_restore,
};
