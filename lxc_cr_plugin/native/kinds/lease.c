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
#include <unistd.h>

#include "../cleanup.h"
#include "../clock_ns.h"
#include "../sharing.h"
#include "file.h"
#include "file_owner.h"
#include "files.h"
#include "lease_break_time.h"
#include "lease_outside.h"
#include "lock.h"
#include "registers.h"

struct lease {
	uint32_t type; /* before it was broken: F_RDLCK, F_WRLCK */
	int32_t pid, fd;
	uint32_t object;
	bool downgrade, unlock; /* being broken: by who wants to read, to write */
	uint64_t downgrade_remaining, unlock_remaining; /* ns */
	bool guessed; /* nobody told what was left: the whole time was taken */
	bool mapped;  /* only a mapping keeps the description: fd is the number that it had */
	struct list waiters;
};

struct waiter {
	int32_t tid;
};

static const struct field waiter_fields[] = {
	FIELD_INT(struct waiter, tid, 1, MAX_TASKS, "thread"),
	FIELD_END,
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
	FIELD_BOOL(struct lease, guessed,
		   "what was left was not known: lease-break-time was taken, and perhaps the type",
		   .optional = true),
	FIELD_BOOL(struct lease, mapped,
		   "only a mapping or a message keeps the description; fd: the number that it had",
		   .optional = true),
	FIELD_LIST(
		struct lease, waiters, struct waiter, waiter_fields, MAX_TASKS,
		"who waits in open(2) or truncate(2) for its end; for people, a restart finds them "
		"by their registers",
		.optional = true),
	FIELD_END,
};

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

/* In favour of the holder, and said so. */
static struct cr_error *remaining_guessed(struct dump *dump, const struct process *owner,
					  struct lease *lease)
{
	uint64_t whole;
	char *text;

	TRY(proc_read(AT_FDCWD, "/proc/sys/fs/lease-break-time", dump->image.pool, &text, NULL));
	whole = strtoul(text, NULL, 10) * 1000000000u;
	lease->guessed = true;
	if (lease->downgrade)
		lease->downgrade_remaining = whole;
	if (lease->unlock)
		lease->unlock_remaining = whole;
	log_say(&dump->log, CR_WARNING,
		"Somebody breaks the lease that process %d (%s) has by descriptor %d; this host "
		"does "
		"not tell how much time is left: the whole lease-break-time is taken, %lu s",
		owner->pid, owner->stat.comm, lease->fd, whole / 1000000000u);
	return NULL;
}

/* The number that a signal tells, if it still shows the file; @fd: another one, -1: there is none. */
static int32_t number_of(const struct kernel_lock *lock, const struct object *file,
			 const struct process *owner, int fd)
{
	if (lock->fd < 0)
		return fd < 0 ? 0 : fd;
	return fd < 0 || files_show(owner, lock->fd, file) ? lock->fd : fd;
}

static const struct thread *thread_of_host(const struct dump *dump, pid_t tid)
{
	for_each (struct process *, process, &dump->image.processes) {
		for_each (struct thread *, thread, &process->threads) {
			if (thread->host_tid == tid)
				return thread;
		}
	}
	return NULL;
}

/* One may have been let in, or have given up, just before the stop. */
static bool still_waits(const struct thread *thread)
{
	struct arch_regs regs;
	struct cr_error *error = registers_of(thread, &regs);
	bool waits = !error && arch_result(&regs) == -ERESTARTSYS;

	cr_error_free(error);
	return waits;
}

static struct cr_error *add_waiters(struct dump *dump, const struct kernel_lock *lock,
				    struct lease *lease)
{
	const struct lease_waiter *noted = dump->lease_waiters.items;

	for (size_t i = 0; i < dump->lease_waiters.count; i++) {
		const struct thread *thread;
		struct waiter *waiter;

		if (noted[i].file != lock->file)
			continue;
		/* somebody outside may wait too */
		thread = thread_of_host(dump, noted[i].tid);
		if (!thread || !still_waits(thread))
			continue;
		waiter = list_append(dump->image.pool, &lease->waiters, sizeof(*waiter));
		if (!waiter)
			return error_nomem();
		waiter->tid = thread->tid;
	}
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
	*lease = (struct lease){
		.type = lock->type,
		.pid = owner->pid,
		.fd = number_of(lock, file, owner, fd),
		.object = file->id,
		.mapped = fd < 0,
	};
	/* the times stay when the flags are gone */
	lease->downgrade = lock->flags & KERNEL_FL_DOWNGRADE_PENDING;
	lease->unlock = lock->flags & KERNEL_FL_UNLOCK_PENDING;
	TRY(add_waiters(dump, lock, lease));
	if (lock->guessed)
		return remaining_guessed(dump, owner, lease);
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

/* The kernel makes one of a write lease whose time is over, but lets nobody take one. */
static bool is_forced(const struct restore *restore, const struct lease *lease)
{
	const struct object *file = image_object(&restore->image, lease->object);

	return file && file_of(file) && lease->type == F_RDLCK &&
	       (file_of(file)->flags & O_ACCMODE) != O_RDONLY;
}

static struct cr_error *explain(struct cr_error *error)
{
	if (!error || error->errnum != EAGAIN)
		return error;
	return error_remedy(error, "Somebody outside the container has the file open; find them "
				   "with `fuser`, and restart when they have closed it");
}

static struct cr_error *no_file(const struct lease *lease)
{
	return error_new(CR_IMAGE, "A lease is on object %u, which is no open file", lease->object);
}

/*
 * By the task, at its number: both are what a signal tells later. Taking a lease makes an owner where
 * there is none; file_restore_owner() knows the right one.
 */
static struct cr_error *set(struct restore *restore, const struct object *object, int fd,
			    uint32_t type)
{
	program_call(restore->program, "take a lease", SYS_fcntl, (uint64_t)fd, F_SETLEASE, type);
	TRY(explain(program_run(restore->program)));
	if (fcntl(object->fd, F_SETOWN, 0) < 0)
		return error_sys("Failed to silence a lease");
	return file_set_flags(object, file_of(object));
}

/* Before the owner has its descriptors: by one that only passes, under the same number if it is free. */
static struct cr_error *set_passing(struct restore *restore, const struct lease *lease,
				    uint32_t type)
{
	struct process *owner = image_living(&restore->image, lease->pid);
	struct object *object = file_of_lease(restore, lease);
	struct program *p = restore->program;
	int passing, number;

	if (!object || !owner)
		return no_file(lease);
	restore_begin(restore, owner);
	TRY(restore_lend(restore, object->fd, &passing));
	number = program_call(p, "number a leased file", SYS_fcntl, (uint64_t)passing,
			      F_DUPFD_CLOEXEC, (uint64_t)lease->fd);
	TRY(program_run(p));
	number = passing == lease->fd ? passing : (int)program_result(p, number);
	TRY(set(restore, object, number, type));
	program_call(p, "close a passing descriptor", SYS_close_range, (uint64_t)passing,
		     (uint64_t)passing, 0);
	program_call(p, "close a passing descriptor", SYS_close_range, (uint64_t)number,
		     (uint64_t)number, 0);
	return program_run(p);
}

struct cr_error *lease_validate(const struct image *image, const struct lease *lease)
{
	const struct object *object = image_object(image, lease->object);

	if (!object || !file_of(object))
		return no_file(lease);
	if (!sharing_table(image, lease->pid))
		return error_new(CR_IMAGE, "Process %d, which holds a lease, is not there",
				 lease->pid);
	return NULL;
}

static int by_holder(const void *a, const void *b)
{
	const struct object *x = *(struct object *const *)a, *y = *(struct object *const *)b;
	pid_t ours = ((struct lease *)x->state)->pid, theirs = ((struct lease *)y->state)->pid;

	if (ours != theirs)
		return ours < theirs ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

/* The same, where those of one process follow one another. */
static struct cr_error *sort_leases(struct restore *restore)
{
	struct list *all = &restore->leases, *sorted = &restore->leases_by_pid;

	if (!all->count)
		return NULL;
	sorted->items =
		pool_memdup(restore->image.pool, all->items, all->count * sizeof(struct object *));
	if (!sorted->items)
		return error_nomem();
	sorted->count = all->count;
	qsort(sorted->items, sorted->count, sizeof(struct object *), by_holder);
	return NULL;
}

/* Where the leases of @pid begin in the sorted list. */
static size_t first_lease(const struct list *sorted, pid_t pid)
{
	size_t low = 0, high = sorted->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct object *object = ((struct object **)sorted->items)[middle];

		if (((struct lease *)object->state)->pid < pid)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_breaking(const struct object *object)
{
	const struct lease *lease = object->state;

	return lease->downgrade || lease->unlock;
}

static struct cr_error *note_lease(struct restore *restore, struct object *object)
{
	struct object **slot =
		list_append(restore->image.pool, &restore->leases, sizeof(struct object *));

	if (!slot)
		return error_nomem();
	*slot = object;
	if (!is_breaking(object))
		return NULL;
	return hash_add(restore->image.pool, &restore->breaking,
			((struct lease *)object->state)->object, 0, object);
}

struct cr_error *leases_find(struct restore *restore)
{
	const struct cr_restart_options *options = restore->options;

	for_each (struct object *, object, &restore->image.objects) {
		if (object->kind == &lease_kind)
			TRY(note_lease(restore, object));
	}
	for (size_t i = 0; i < options->lease_choices_count; i++)
		TRY(hash_add(restore->image.pool, &restore->lease_choices,
			     options->lease_choices[i].object, 0,
			     (void *)&options->lease_choices[i]));
	return sort_leases(restore);
}

struct cr_error *leases_restore(struct restore *restore, struct process *process)
{
	const struct list *sorted = &restore->leases_by_pid;

	for (size_t i = first_lease(sorted, process->pid); i < sorted->count; i++) {
		const struct lease *lease = ((struct object **)sorted->items)[i]->state;
		struct object *file = file_of_lease(restore, lease);

		if (lease->pid != process->pid)
			break;
		if (!file)
			return no_file(lease);
		if (!lease->mapped && !is_forced(restore, lease))
			TRY(set(restore, file, lease->fd, lease->type));
	}
	return NULL;
}

struct cr_error *leases_restore_mapped(struct restore *restore)
{
	for_each (struct object *, object, &restore->leases) {
		const struct lease *lease = object->state;

		if (lease->mapped && !is_forced(restore, lease))
			TRY(set_passing(restore, lease, lease->type));
	}
	return NULL;
}

/* ---- taken down by force ---- */

/* A write lease that a reader has broken as well, for as short as can be. */
static struct cr_error *force_down(const struct object *file, struct lease_break_time *time)
{
	enum { TRIES = 3000 };
	struct timespec pause = {.tv_nsec = 1000000};
	_cleanup_close_ int reader = -1;
	char link[32];

	TRY(lease_break_at(time, file->fd, O_RDONLY, clock_ns(CLOCK_MONOTONIC)));
	/* somebody must come for the kernel to see that the time is over */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", file->fd);
	for (int i = 0; i < TRIES && reader < 0; i++) {
		nanosleep(&pause, NULL);
		reader = open(link, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	}
	if (reader >= 0)
		return NULL;
	return error_new(CR_INTERNAL, "A lease was not taken down when its time was over");
}

static struct cr_error *restore_forced(struct restore *restore, const struct lease *lease)
{
	struct lease_break_time *time;
	struct object *file = image_object(&restore->image, lease->object);
	struct cr_error *error;

	program_begin(restore->program, restore->init);
	if (file->fd < 0)
		TRY(file->kind->restore_file(restore, file, file->state));
	TRY(set_passing(restore, lease, F_WRLCK));
	TRY(leases_outside_look(restore));
	TRY(lease_break_time_open(restore->options->fault, &time));
	error = force_down(file, time);
	lease_break_time_close(time);
	return error;
}

struct cr_error *leases_restore_forced(struct restore *restore)
{
	for_each (struct object *, object, &restore->leases) {
		if (is_forced(restore, object->state))
			TRY(restore_forced(restore, object->state));
	}
	return NULL;
}

/* ---- being broken ---- */

bool lease_is_breaking(const struct restore *restore, const struct object *file)
{
	return hash_find(&restore->breaking, file->id, 0);
}

/* What the user wants for this lease: by itself, or for all. */
static struct cr_lease_choice choice_for(const struct restore *restore, const struct lease *lease)
{
	const struct cr_restart_options *options = restore->options;
	const struct cr_lease_choice *chosen = hash_find(&restore->lease_choices, lease->object, 0);

	if (chosen)
		return *chosen;
	return (struct cr_lease_choice){lease->object, options->lease_policy, options->lease_extra};
}

/* When @remaining of @lease is over. */
static uint64_t end_of(const struct restore *restore, const struct lease *lease, uint64_t remaining)
{
	uint64_t whole = lease_break_time_default(restore->lease_break_time);
	struct cr_lease_choice choice = choice_for(restore, lease);

	switch (choice.policy) {
	case CR_LEASE_HOLDER: remaining = remaining > whole ? remaining : whole; break;
	case CR_LEASE_BREAKER: remaining = 0; break;
	default: remaining = restore_left_then(restore, remaining) + choice.extra;
	}
	return restore->release + remaining;
}

static struct cr_error *begin(struct restore *restore, const struct lease *lease)
{
	struct lease_break_time *time = restore->lease_break_time;
	struct object *object = file_of_lease(restore, lease);

	if (!object)
		return no_file(lease);
	if (lease->downgrade)
		TRY(lease_break_at(time, object->fd, O_RDONLY,
				   end_of(restore, lease, lease->downgrade_remaining)));
	if (lease->unlock)
		TRY(lease_break_at(time, object->fd, O_WRONLY,
				   end_of(restore, lease, lease->unlock_remaining)));
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
		if (!is_breaking(object))
			continue;
		TRY(leases_outside_look(restore));
		return lease_break_time_open(restore->options->fault, &restore->lease_break_time);
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
