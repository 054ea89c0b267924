/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that wait for a file lock. A stop takes them out of the queue (the kernel has them enter
 * their call again afterwards), so who comes first is decided by who is let go first.
 */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "lock.h"
#include "registers.h"

static const struct field waiter_fields[] = {
	FIELD_UINT(struct lock_waiter, sort, 0, LOCK_SORTS - 1, "0: POSIX, 1: OFD, 2: flock"),
	FIELD_INT(struct lock_waiter, pid, 1, MAX_TASKS, "process"),
	FIELD_INT(struct lock_waiter, tid, 1, MAX_TASKS, "its thread that waits"),
	FIELD_INT(struct lock_waiter, fd, 0, INT32_MAX, "descriptor of the file"),
	FIELD_END,
};

bool lock_wait_of(const struct arch_regs *regs, struct lock_waiter *ret)
{
	uint64_t command = arch_syscall_arg(regs, 1);

	if (arch_result(regs) != -ERESTARTSYS)
		return false;
	ret->fd = (int32_t)arch_syscall_arg(regs, 0);
	if (arch_syscall_nr(regs) == SYS_flock)
		ret->sort = LOCK_FLOCK;
	else if (arch_syscall_nr(regs) == SYS_fcntl && command == F_SETLKW)
		ret->sort = LOCK_POSIX;
	else if (arch_syscall_nr(regs) == SYS_fcntl && command == F_OFD_SETLKW)
		ret->sort = LOCK_OFD;
	else
		return false;
	return true;
}

struct cr_error *lock_waiter_release(pid_t tid)
{
	bool due;

	/* the handler takes it out of the queue, and would run before the others do */
	TRY(task_handler_is_due(tid, &due));
	if (due)
		return NULL;
	TRY(task_detach(tid, 0));
	/* in the queue, before the next one is let go */
	return task_wait_asleep(tid);
}

size_t lock_waiters_count(const struct restore *restore)
{
	size_t count = 0;

	for_each (struct object *, object, &restore->image.objects)
		count += object->kind == &lock_waiter_kind;
	return count;
}

struct cr_error *lock_waiters_restore(struct restore *restore)
{
	for_each (struct object *, object, &restore->image.objects) {
		const struct lock_waiter *waiter = object->state;
		const struct thread *thread;
		struct arch_regs regs;
		struct lock_waiter now;

		if (object->kind != &lock_waiter_kind)
			continue;
		thread = image_thread(&restore->image, waiter->tid);
		if (!thread || thread->process->pid != waiter->pid || !thread->host_tid)
			return error_new(CR_IMAGE, "A thread that waits for a lock is not there");
		TRY(registers_of(thread, &regs));
		/* what does not wait would run before the others do */
		if (!lock_wait_of(&regs, &now))
			return error_new(CR_IMAGE, "Thread %d does not wait for a lock",
					 thread->tid);
		TRY(lock_waiter_release(thread->host_tid));
	}
	return NULL;
}

const struct kind lock_waiter_kind = {
	.name = "lock_waiter",
	.doc = "Thread that waits for a file lock; their order is that of the queue",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct lock_waiter),
	.fields = waiter_fields,
};
