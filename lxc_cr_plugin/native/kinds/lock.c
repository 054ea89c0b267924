/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lock.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include "../sharing.h"

static const struct field lock_fields[] = {
	FIELD_UINT(struct lock, sort, 0, LOCK_SORTS - 1, "0: POSIX, 1: OFD, 2: flock"),
	FIELD_UINT(struct lock, type, F_RDLCK, F_WRLCK, "F_RDLCK (shared), F_WRLCK (exclusive)"),
	FIELD_UINT(struct lock, start, 0, INT64_MAX, "first byte"),
	FIELD_UINT(struct lock, end, 0, INT64_MAX, "last byte; the largest offset: without end"),
	FIELD_INT(struct lock, pid, 1, MAX_TASKS,
		  "process, or thread with descriptors of its own, that owns it or made it"),
	FIELD_INT(struct lock, fd, -1, INT32_MAX,
		  "descriptor of that process; -1: only a mapping or a message keeps it"),
	FIELD_UINT(struct lock, object, 1, UINT32_MAX, "open file description"),
	FIELD_END,
};

enum lock_sort lock_sort_of(const struct kernel_lock *lock)
{
	if (lock->flags & KERNEL_FL_OFDLCK)
		return LOCK_OFD;
	return lock->flags & KERNEL_FL_FLOCK ? LOCK_FLOCK : LOCK_POSIX;
}

static void set_flock(struct program *p, const struct lock *lock, int fd)
{
	int how = lock->type == F_WRLCK ? LOCK_EX : LOCK_SH;

	program_call(p, "take a file lock (flock)", SYS_flock, (uint64_t)fd,
		     (uint64_t)(how | LOCK_NB));
}

static void set_range(struct program *p, const struct lock *lock, int fd)
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
		     (uint64_t)fd, posix ? F_SETLK : F_OFD_SETLK,
		     program_data(p, &range, sizeof(range)));
}

static struct cr_error *explain(struct cr_error *error)
{
	if (!error || (error->errnum != EAGAIN && error->errnum != EACCES))
		return error;
	return error_remedy(error, "Somebody outside the container has locked the file; find it in "
				   "/proc/locks, and restart when the lock is released");
}

static struct cr_error *set(struct restore *restore, const struct lock *lock, int fd)
{
	struct program *p = restore->program;

	if (lock->start > lock->end)
		return error_new(CR_IMAGE, "A file lock ends before it begins");
	TRY(explain(program_reserve(p, 1, sizeof(struct flock))));
	if (lock->sort == LOCK_FLOCK)
		set_flock(p, lock, fd);
	else
		set_range(p, lock, fd);
	return NULL;
}

static struct cr_error *find_owner(const struct restore *restore, const struct lock *lock,
				   struct process **ret)
{
	*ret = sharing_table(&restore->image, lock->pid);
	return *ret ? NULL
		    : error_new(CR_IMAGE, "Process %d, which owns a lock, is not there", lock->pid);
}

static struct cr_error *set_mapped(struct restore *restore, const struct lock *lock)
{
	const struct object *file = image_object(&restore->image, lock->object);
	struct process *owner;
	int fd;

	if (!file || file->fd < 0 || lock->sort == LOCK_POSIX)
		return error_new(CR_IMAGE, "A lock is on object %u, which is no open file",
				 lock->object);
	TRY(find_owner(restore, lock, &owner));
	restore_begin(restore, owner);
	TRY(restore_lend(restore, file->fd, &fd));
	TRY(set(restore, lock, fd));
	program_call(restore->program, "close a passing descriptor", SYS_close, (uint64_t)fd);
	return error_task(explain(program_run(restore->program)), owner->pid, "");
}

struct cr_error *locks_restore_mapped(struct restore *restore)
{
	for_each (struct object *, object, &restore->image.objects) {
		const struct lock *lock = object->state;

		if (object->kind == &lock_kind && lock->fd < 0)
			TRY(set_mapped(restore, lock));
	}
	return NULL;
}

/* What was appended for @owner, if there is one. */
static struct cr_error *run(struct restore *restore, const struct process *owner)
{
	return owner ? error_task(explain(program_run(restore->program)), owner->pid, "") : NULL;
}

struct cr_error *locks_restore(struct restore *restore)
{
	struct process *owner = NULL, *next;

	for_each (struct object *, object, &restore->image.objects) {
		const struct lock *lock = object->state;

		if (object->kind != &lock_kind || lock->fd < 0)
			continue;
		TRY(find_owner(restore, lock, &next));
		if (next != owner) {
			TRY(run(restore, owner));
			owner = next;
			restore_begin(restore, owner);
		}
		TRY(error_task(set(restore, lock, lock->fd), owner->pid, ""));
	}
	return run(restore, owner);
}

const struct kind lock_kind = {
	.name = "lock",
	.doc = "File lock: POSIX, OFD or flock, with its range and owner",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct lock),
	.fields = lock_fields,
	/* made by locks.c, when all files are known */
};
