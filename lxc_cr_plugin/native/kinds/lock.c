/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lock.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>

static const struct field lock_fields[] = {
	FIELD_UINT(struct lock, sort, 0, LOCK_SORTS - 1, "0: POSIX, 1: OFD, 2: flock"),
	FIELD_UINT(struct lock, type, F_RDLCK, F_WRLCK, "F_RDLCK (shared), F_WRLCK (exclusive)"),
	FIELD_UINT(struct lock, start, 0, INT64_MAX, "first byte"),
	FIELD_UINT(struct lock, end, 0, INT64_MAX, "last byte; the largest offset: without end"),
	FIELD_INT(struct lock, pid, 1, MAX_TASKS, "process that owns it or made it"),
	FIELD_INT(struct lock, fd, 0, INT32_MAX, "descriptor of that process"),
	FIELD_UINT(struct lock, object, 1, UINT32_MAX, "open file description"),
	FIELD_END,
};

static void set_flock(struct program *p, const struct lock *lock)
{
	int how = lock->type == F_WRLCK ? LOCK_EX : LOCK_SH;

	program_call(p, "take a file lock (flock)", SYS_flock, (uint64_t)lock->fd,
		     (uint64_t)(how | LOCK_NB));
}

static void set_range(struct program *p, const struct lock *lock)
{
	bool posix = lock->sort == LOCK_POSIX;
	struct flock range = {
		.l_type = (short)lock->type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)lock->start,
		/* 0 is for ever, and so is what ends with the largest offset */
		.l_len = lock->end == INT64_MAX ? 0 : (off_t)(lock->end - lock->start + 1),
	};

	program_call(p, posix ? "take a file lock (POSIX)" : "take a file lock (OFD)", SYS_fcntl,
		     (uint64_t)lock->fd, posix ? F_SETLK : F_OFD_SETLK,
		     program_data(p, &range, sizeof(range)));
}

static struct cr_error *explain(struct cr_error *error)
{
	if (!error || (error->errnum != EAGAIN && error->errnum != EACCES))
		return error;
	return error_remedy(error, "Somebody outside the container has locked the file; find it in "
				   "/proc/locks, and restart when the lock is released");
}

static struct process *process_by_pid(const struct image *image, pid_t pid)
{
	for_each (struct process *, process, &image->processes) {
		if (process->pid == pid)
			return process;
	}
	return NULL;
}

static struct cr_error *set(struct restore *restore, const struct lock *lock)
{
	struct program *p = restore->program;

	if (lock->start > lock->end)
		return error_new(CR_IMAGE, "A file lock ends before it begins");
	TRY(explain(program_reserve(p, 1, sizeof(struct flock))));
	if (lock->sort == LOCK_FLOCK)
		set_flock(p, lock);
	else
		set_range(p, lock);
	return NULL;
}

struct cr_error *locks_restore(struct restore *restore)
{
	struct process *owner = NULL;

	for_each (struct object *, object, &restore->image.objects) {
		const struct lock *lock = object->state;

		if (object->kind != &lock_kind)
			continue;
		if (!owner || owner->pid != lock->pid) {
			if (owner)
				TRY(error_task(explain(program_run(restore->program)), owner->pid,
					       ""));
			owner = process_by_pid(&restore->image, lock->pid);
			if (!owner)
				return error_new(CR_IMAGE,
						 "Process %d, which owns a lock, is not "
						 "there",
						 lock->pid);
			restore_begin(restore, owner);
		}
		TRY(error_task(set(restore, lock), owner->pid, ""));
	}
	return owner ? error_task(explain(program_run(restore->program)), owner->pid, "") : NULL;
}

const struct kind lock_kind = {
	.name = "lock",
	.doc = "File lock: POSIX, OFD or flock, with its range and owner",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct lock),
	.fields = lock_fields,
	/* made by locks.c, when all files are known */
};
