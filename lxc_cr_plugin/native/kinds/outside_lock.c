/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks and leases of processes outside the container on files that it has locked too. A restart
 * does nothing about them: who holds them holds them still, or does not, and a lock of the container's
 * that one of them excludes by then is an error as any other.
 */
#include "outside_lock.h"

#include <fcntl.h>
#include <string.h>

#include "lock.h"

struct outside_lock {
	uint32_t sort, type;
	uint64_t start, end;
	bool lease;
	int32_t host_pid;
	struct bytes comm, what;
};

static const struct field outside_lock_fields[] = {
	FIELD_UINT(struct outside_lock, sort, 0, LOCK_SORTS - 1, "0: POSIX, 1: OFD, 2: flock"),
	FIELD_UINT(struct outside_lock, type, F_RDLCK, F_WRLCK,
		   "F_RDLCK (shared), F_WRLCK (exclusive)"),
	FIELD_UINT(struct outside_lock, start, 0, INT64_MAX, "first byte"),
	FIELD_UINT(struct outside_lock, end, 0, INT64_MAX, "last byte"),
	FIELD_BOOL(struct outside_lock, lease, "a lease"),
	FIELD_INT(struct outside_lock, host_pid, -1, MAX_TASKS, "who took it, on the host"),
	FIELD_TEXT(struct outside_lock, comm, 16, "its name"),
	FIELD_TEXT(struct outside_lock, what, 4096, "by which file of the container it was met"),
	FIELD_END,
};

static struct cr_error *copy_text(struct dump *dump, const char *text, struct bytes *ret)
{
	ret->len = strlen(text);
	ret->data = pool_memdup(dump->image.pool, text, ret->len + 1);
	return ret->data ? NULL : error_nomem();
}

struct cr_error *outside_lock_note(struct dump *dump, const struct kernel_lock *lock,
				   const struct noted_file *file, const struct proc_stat *stat)
{
	const char *name = locks_name(dump, file);
	struct outside_lock *note;
	struct object *object;

	if (dump->running)
		return NULL;
	log_say(&dump->log, CR_WARNING,
		"Process %d of the host (%s), which is outside the container, has locked %s",
		lock->pid, stat->comm, name);
	object = image_add_object(&dump->image, &outside_lock_kind);
	if (!object)
		return error_nomem();
	note = object->state;
	note->sort = lock_sort_of(lock);
	note->type = lock->type;
	note->lease = lock->flags & KERNEL_FL_LEASE;
	if (!note->lease) {
		note->start = lock->start;
		note->end = lock->end;
	}
	note->host_pid = lock->pid;
	TRY(copy_text(dump, stat->comm, &note->comm));
	return copy_text(dump, name, &note->what);
}

const struct kind outside_lock_kind = {
	.name = "outside_lock",
	.doc = "Lock of a process outside that the checkpoint was told to ignore",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct outside_lock),
	.fields = outside_lock_fields,
};
