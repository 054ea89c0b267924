/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The filters that the runtime loads before it starts init are inherited by every task, and the
 * runtime loads them again at restart: nothing to save. Filters of the container's own are refused.
 */
#include "../dump.h"
#include "../restore.h"

struct seccomp {
	uint32_t mode;
	uint32_t filters;
};

static const struct field seccomp_fields[] = {
	FIELD_UINT(struct seccomp, mode, 0, 2, "0 none, 2 filters of the runtime"),
	FIELD_UINT(struct seccomp, filters, 0, UINT32_MAX, "how many"),
	FIELD_END,
};

static struct cr_error *seccomp_check(struct dump *dump, struct thread *thread)
{
	struct cr_error *error;

	if (thread->status.seccomp != 1 &&
	    (thread == dump->init ||
	     thread->kernel->seccomp_filter == dump->init->kernel->seccomp_filter))
		return NULL;
	error = error_new(CR_UNSUPPORTED,
			  "Thread %d of process %d (%s) has seccomp filters of its own",
			  thread->tid, thread->process->pid, thread->process->stat.comm);
	error = error_task(error, thread->process->pid, thread->process->stat.comm);
	return error_remedy(error_object(error, "seccomp"),
			    "Not supported yet; start the program without its sandbox");
}

static struct cr_error *seccomp_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct seccomp *seccomp = state;

	(void)dump;
	seccomp->mode = thread->status.seccomp;
	seccomp->filters = thread->status.seccomp_filters;
	return NULL;
}

static struct cr_error *seccomp_restore(struct restore *restore, struct thread *thread,
					const void *state)
{
	const struct seccomp *seccomp = state;
	const struct proc_status *now = &thread->status;

	TRY(restore_status(restore, thread));
	if (now->seccomp == seccomp->mode && now->seccomp_filters == seccomp->filters)
		return NULL;
	return error_remedy(
		error_new(CR_HOST, "The container had %u seccomp filters and gets %u now",
			  seccomp->filters, now->seccomp_filters),
		"Its lxc.seccomp.profile has changed since the checkpoint; set it back");
}

const struct kind seccomp_kind = {
	.name = "seccomp",
	.doc = "System call filters, as far as the runtime loads them",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct seccomp),
	.fields = seccomp_fields,
	.check_thread = seccomp_check,
	.dump_thread = seccomp_dump,
	.restore_thread = seccomp_restore,
};
