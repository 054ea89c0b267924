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
	FIELD_END,
};

static struct cr_error *thread_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct thread_identity *identity = state;
	size_t len = strnlen(thread->kernel->comm, 15);

	identity->tid = thread->tid;
	identity->personality = thread->kernel->personality;
	identity->comm.data = (uint8_t *)pool_strndup(dump->image.pool, thread->kernel->comm, len);
	identity->comm.len = len;
	return identity->comm.data ? NULL : error_nomem();
}

static struct cr_error *thread_check(struct dump *dump, struct thread *thread)
{
	pid_t tracer = thread->status.tracer;
	struct cr_error *error;

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
	program_call(restore->program, "set the name", SYS_prctl, PR_SET_NAME,
		     program_bytes(restore->program, &identity->comm));
	return NULL;
}

const struct kind thread_kind = {
	.name = "thread",
	.doc = "Thread: id, name, personality",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct thread_identity),
	.fields = thread_fields,
	.check_thread = thread_check,
	.dump_thread = thread_dump,
	.restore_thread = thread_restore,
};
