/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel spends 20 microseconds on the text of one status file. Nearly all of it is in the task
 * iterator's record; what is not, supplementary groups and one bit of the memory's flags, is the
 * same for many threads and read once.
 */
#include "task_status.h"

#include "cleanup.h"

/* A thread whose status file was read, and what others with the same pointer or flags share. */
struct read_status {
	struct list groups;
	uint32_t thp_disabled;
};

/* 0: the group or session is outside of the task's pid namespace. */
static int number_of(const struct kernel_task *task, const struct kernel_id *id)
{
	return id->depth >= task->depth && id->namespace == task->id.namespace ? id->number : 0;
}

static void from_kernel(const struct kernel_task *task, struct proc_status *ret)
{
	*ret = (struct proc_status){
		.umask = task->umask,
		.tgid = task->tgid,
		.tracer = task->ptrace ? task->tracer : 0,
		.ns_tgid = number_of(task, &task->process_id),
		.ns_pid = number_of(task, &task->id),
		.ns_pgid = number_of(task, &task->group_id),
		.ns_sid = number_of(task, &task->session_id),
		.pid_levels = task->depth + 1,
		.uid = {task->uid, task->euid, task->suid, task->fsuid},
		.gid = {task->gid, task->egid, task->sgid, task->fsgid},
		.cap_inheritable = task->cap_inheritable,
		.cap_permitted = task->cap_permitted,
		.cap_effective = task->cap_effective,
		.cap_bounding = task->cap_bounding,
		.cap_ambient = task->cap_ambient,
		.no_new_privs = task->atomic_flags & 1,
		.seccomp = task->seccomp,
		.seccomp_filters = task->seccomp_filters,
		.signals_pending = task->signals_pending,
		.signals_shared_pending = task->signals_shared_pending,
	};
}

enum by { BY_GROUPS, BY_FLAGS };

static struct cr_error *read_status(struct dump *dump, const struct thread *thread,
				    struct proc_status *ret)
{
	const struct kernel_task *kernel = thread->kernel;
	struct hash *known = &dump->read_statuses;
	struct pool *pool = dump->image.pool;
	_cleanup_close_ int proc = -1;
	struct read_status *note;

	TRY(proc_open(thread->process->host_pid, thread->host_tid, &proc));
	TRY(proc_status(proc, pool, ret));
	if (dump->running && hash_find(known, BY_FLAGS, kernel->mm_flags))
		return NULL;
	note = pool_alloc(pool, sizeof(*note));
	if (!note)
		return error_nomem();
	note->groups = ret->groups;
	note->thp_disabled = ret->thp_disabled;
	TRY(hash_add(pool, known, BY_FLAGS, kernel->mm_flags, note));
	/* while tasks run, the kernel may use the same address for other groups later */
	return dump->running ? NULL : hash_add(pool, known, BY_GROUPS, kernel->group_info, note);
}

struct cr_error *task_status(struct dump *dump, struct thread *thread)
{
	const struct kernel_task *kernel = thread->kernel;
	struct proc_status *status = &thread->status;
	const struct read_status *groups, *flags;

	/* while tasks run the record is older than everything else that is looked at */
	if (dump->running)
		return read_status(dump, thread, status);
	from_kernel(kernel, status);
	groups = hash_find(&dump->read_statuses, BY_GROUPS, kernel->group_info);
	flags = hash_find(&dump->read_statuses, BY_FLAGS, kernel->mm_flags);
	if (!flags || (kernel->groups && !groups))
		return read_status(dump, thread, status);
	status->thp_disabled = flags->thp_disabled;
	if (kernel->groups)
		status->groups = groups->groups;
	return NULL;
}
