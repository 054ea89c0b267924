/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leases. One that is being broken is set as it was before, its owner taken away so that nobody is
 * signalled a second time, and broken again with the time that was left. Whoever waits for its end
 * enters open(2) or truncate(2) once more and joins.
 */
#include "lease.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "file.h"
#include "file_owner.h"
#include "files.h"
#include "lease_break_time.h"

struct lease {
	uint32_t type; /* before it was broken: F_RDLCK, F_WRLCK */
	int32_t pid, fd;
	uint32_t object;
	bool downgrade, unlock; /* being broken: by who wants to read, to write */
	uint64_t downgrade_remaining, unlock_remaining; /* ns */
};

static const struct field lease_fields[] = {
	FIELD_UINT(struct lease, type, F_RDLCK, F_WRLCK,
		   "F_RDLCK or F_WRLCK, before it was broken"),
	FIELD_INT(struct lease, pid, 1, MAX_TASKS, "process that holds it"),
	FIELD_INT(struct lease, fd, 0, INT32_MAX, "descriptor of that process"),
	FIELD_UINT(struct lease, object, 1, UINT32_MAX, "open file description"),
	FIELD_BOOL(struct lease, downgrade, "somebody wants to read: it is to become F_RDLCK"),
	FIELD_BOOL(struct lease, unlock, "somebody wants to write: it is to go"),
	FIELD_UINT(struct lease, downgrade_remaining, 0, INT64_MAX / 4,
		   "ns at the checkpoint until it is taken down by force"),
	FIELD_UINT(struct lease, unlock_remaining, 0, INT64_MAX / 4,
		   "ns at the checkpoint until it is taken away by force"),
	FIELD_END,
};

struct cr_error *lease_check(const struct kernel_lock *lock, uint64_t flags, const char *name)
{
	struct cr_error *error;

	/* the kernel makes one by force of a lease whose time has come, but sets none so */
	if (lock->type != F_RDLCK || (flags & O_ACCMODE) == O_RDONLY)
		return NULL;
	error = error_new(CR_UNSUPPORTED,
			  "Cannot save %s: it has a read lease, and is open for writing", name);
	return error_remedy(error_object(error, "lease"),
			    "Not supported yet; the lease was taken down because its holder did "
			    "not answer in time: let the process release it");
}

/* A deadline in ticks, as ns from T0 on. */
static struct cr_error *remaining_of(struct dump *dump, uint64_t deadline, uint64_t *ret)
{
	struct kernel_tick last;
	uint64_t end;

	TRY(kernel_last_tick(dump->peek, &last));
	end = kernel_tick_to_ns(&last, deadline);
	*ret = end > dump->clocks.monotonic ? end - dump->clocks.monotonic : 0;
	return NULL;
}

struct cr_error *lease_dump(struct dump *dump, const struct kernel_lock *lock,
			    const struct object *file, const struct process *owner, int fd)
{
	struct object *object = image_add_object(&dump->image, &lease_kind);
	struct lease *lease;

	if (!object)
		return error_nomem();
	lease = object->state;
	*lease =
		(struct lease){.type = lock->type, .pid = owner->pid, .fd = fd, .object = file->id};
	/* the times stay when the flags are gone */
	lease->downgrade = lock->flags & KERNEL_FL_DOWNGRADE_PENDING;
	lease->unlock = lock->flags & KERNEL_FL_UNLOCK_PENDING;
	if (lease->downgrade)
		TRY(remaining_of(dump, lock->downgrade_time, &lease->downgrade_remaining));
	if (lease->unlock)
		TRY(remaining_of(dump, lock->break_time, &lease->unlock_remaining));
	return NULL;
}

/* ---- restart ---- */

static struct object *file_of_lease(const struct restore *restore, const struct lease *lease)
{
	struct object *object = image_object(&restore->image, lease->object);

	return object && file_of(object) && object->fd >= 0 ? object : NULL;
}

static struct cr_error *explain(struct cr_error *error)
{
	if (!error || error->errnum != EAGAIN)
		return error;
	return error_remedy(error, "Somebody outside the container has the file open; find them "
				   "with `fuser`, and restart when they have closed it");
}

static struct cr_error *set(struct restore *restore, const struct lease *lease)
{
	struct object *object = file_of_lease(restore, lease);

	if (!object)
		return error_new(CR_IMAGE, "A lease is on object %u, which is no open file",
				 lease->object);
	/* by the task, at its number: both are what a signal tells later */
	program_call(restore->program, "take a lease", SYS_fcntl, (uint64_t)lease->fd, F_SETLEASE,
		     lease->type);
	TRY(explain(program_run(restore->program)));
	/* taking a lease makes an owner where there is none; file_restore_owner() knows the right one */
	if (fcntl(object->fd, F_SETOWN, 0) < 0)
		return error_sys("Failed to silence a lease");
	return file_set_flags(object, file_of(object));
}

struct cr_error *leases_find(struct restore *restore)
{
	for_each (struct object *, object, &restore->image.objects) {
		struct object **slot;

		if (object->kind != &lease_kind)
			continue;
		slot = list_append(restore->image.pool, &restore->leases, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = object;
	}
	return NULL;
}

struct cr_error *leases_restore(struct restore *restore, struct process *process)
{
	for_each (struct object *, object, &restore->leases) {
		const struct lease *lease = object->state;

		if (lease->pid == process->pid)
			TRY(set(restore, lease));
	}
	return NULL;
}

static bool is_breaking(const struct object *object)
{
	const struct lease *lease = object->state;

	return lease->downgrade || lease->unlock;
}

bool lease_is_breaking(const struct restore *restore, const struct object *file)
{
	for_each (struct object *, object, &restore->leases) {
		if (((struct lease *)object->state)->object == file->id && is_breaking(object))
			return true;
	}
	return false;
}

/* What the user wants to be left of @remaining at the release. */
static uint64_t chosen(const struct restore *restore, const struct lease_break_time *time,
		       uint64_t remaining)
{
	const struct cr_restart_options *options = restore->options;
	uint64_t whole = lease_break_time_default(time);

	switch (options->lease_policy) {
	case CR_LEASE_HOLDER: return remaining > whole ? remaining : whole;
	case CR_LEASE_BREAKER: return 0;
	default: return restore_left_then(restore, remaining) + options->lease_extra;
	}
}

static struct cr_error *begin(struct restore *restore, const struct lease *lease)
{
	struct lease_break_time *time = restore->lease_break_time;
	struct object *object = file_of_lease(restore, lease);

	if (!object)
		return error_new(CR_IMAGE, "A lease is on object %u, which is no open file",
				 lease->object);
	if (lease->downgrade)
		TRY(lease_break_at(time, object->fd, O_RDONLY,
				   restore->release +
					   chosen(restore, time, lease->downgrade_remaining)));
	if (lease->unlock)
		TRY(lease_break_at(time, object->fd, O_WRONLY,
				   restore->release +
					   chosen(restore, time, lease->unlock_remaining)));
	return file_restore_owner(restore, object);
}

uint64_t leases_prepare_ns(const struct restore *restore)
{
	enum { EACH = 200000 };

	return EACH * restore->leases.count;
}

struct cr_error *leases_prepare(struct restore *restore)
{
	for_each (struct object *, object, &restore->leases) {
		if (is_breaking(object))
			return lease_break_time_open(&restore->lease_break_time);
	}
	return NULL;
}

struct cr_error *leases_break(struct restore *restore)
{
	for_each (struct object *, object, &restore->leases) {
		if (is_breaking(object))
			TRY(begin(restore, object->state));
	}
	lease_break_time_close(restore->lease_break_time);
	restore->lease_break_time = NULL;
	return NULL;
}

const struct kind lease_kind = {
	.name = "lease",
	.doc = "File lease, whole or being broken, with the time that is left",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct lease),
	.fields = lease_fields,
};
