/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locks.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "kernel/locks.h"
#include "kinds/files.h"
#include "kinds/lease.h"
#include "kinds/lock.h"
#include "kinds/registers.h"

/* An open file description of the container that has to do with locks. */
struct noted_file {
	const struct kernel_file *kernel;
	struct object *object; /* NULL before the stop */
	uint64_t flags;	       /* open(2) */
	struct stat stat;
	const char *name;
	pid_t pid;
	const char *comm;
};

static struct cr_error *need_kernel(struct dump *dump)
{
	return dump->kernel_locks ? NULL
				  : kernel_locks_open(dump->btf, dump->peek, &dump->kernel_locks);
}

void locks_begin(struct dump *dump)
{
	memset(&dump->locked_files, 0, sizeof(dump->locked_files));
}

struct cr_error *locks_note(struct dump *dump, const struct descriptor *descriptor,
			    struct object *object)
{
	struct process *process = descriptor->process;
	struct noted_file *noted;

	if (!descriptor->kernel->locks)
		return NULL;
	TRY(need_kernel(dump));
	noted = list_append(dump->image.pool, &dump->locked_files, sizeof(*noted));
	if (!noted)
		return error_nomem();
	noted->kernel = descriptor->kernel;
	noted->object = object;
	noted->flags = descriptor->flags;
	noted->stat = descriptor->stat;
	noted->name = descriptor_name(dump, descriptor);
	noted->pid = process->pid;
	noted->comm = process->stat.comm;
	return NULL;
}

/* ---- whose it is ---- */

static struct noted_file *find_file(struct dump *dump, uint64_t address)
{
	struct noted_file *files = dump->locked_files.items;

	struct noted_file *found = NULL;

	/* one may be noted again for somebody who waits */
	for (size_t i = 0; i < dump->locked_files.count; i++) {
		if (files[i].kernel->file == address && (!found || files[i].object))
			found = &files[i];
	}
	return found;
}

/* Of several processes that share a table, the one that made the lock: F_GETLK tells its pid. */
static struct process *find_table(struct dump *dump, uint64_t files, pid_t maker)
{
	struct process *found = NULL;

	for_each (struct process *, process, &dump->image.processes) {
		if (process_leader(process)->kernel->files == files &&
		    (!found || process->host_pid == maker))
			found = process;
	}
	return found;
}

static struct process *find_holder(struct dump *dump, const struct object *object, pid_t maker)
{
	struct process *found = NULL;

	for_each (struct process *, process, &dump->image.processes) {
		if ((!found || process->host_pid == maker) && files_number(process, object) >= 0)
			found = process;
	}
	return found;
}

static struct cr_error *refuse(struct dump *dump, const struct noted_file *file,
			       struct cr_error *error, const char *remedy)
{
	error = error_task(error_object(error, "file_lock"), file->pid, file->comm);
	return dump_refuse(dump, error_remedy(error, "%s", remedy));
}

/* @file: one of ours that shows the same inode. */
static struct cr_error *refuse_stranger(struct dump *dump, const struct noted_file *file,
					const struct kernel_lock *lock)
{
	struct proc_stat stat = {.comm = "it has ended"};
	_cleanup_close_ int proc = -1;
	struct cr_error *error;

	if (dump_kernel_task(dump, lock->pid)) {
		error = error_new(CR_UNSUPPORTED,
				  "Cannot save %s: process %d of the host has locked the file by "
				  "a description that no descriptor shows any more",
				  file->name, lock->pid);
		return refuse(dump, file, error,
			      "A mapping or a message on its way keeps it; unmap the file, or "
			      "receive the message");
	}
	error = proc_open(lock->pid, lock->pid, &proc);
	if (!error)
		error = proc_stat(proc, &stat);
	cr_error_free(error);
	error = error_new(CR_ISOLATION,
			  "Cannot save %s: process %d of the host (%s), which is outside the "
			  "container, has locked the file",
			  file->name, lock->pid, stat.comm);
	return refuse(dump, file, error, "Let it release the lock, and try again");
}

static struct cr_error *refuse_delegation(struct dump *dump, const struct noted_file *file)
{
	return refuse(dump, file,
		      error_new(CR_UNSUPPORTED,
				"Cannot save %s: it has a delegation or a layout (F_SETDELEG, NFS)",
				file->name),
		      "Not supported yet; let the process or the server return it");
}

/* ---- locks and leases of one inode ---- */

static enum lock_sort sort_of(const struct kernel_lock *lock)
{
	if (lock->flags & KERNEL_FL_OFDLCK)
		return LOCK_OFD;
	return lock->flags & KERNEL_FL_FLOCK ? LOCK_FLOCK : LOCK_POSIX;
}

static struct cr_error *add_lock(struct dump *dump, const struct kernel_lock *kernel,
				 const struct noted_file *file, const struct process *owner, int fd)
{
	struct object *object = image_add_object(&dump->image, &lock_kind);
	struct lock *lock;

	if (!object)
		return error_nomem();
	lock = object->state;
	lock->sort = sort_of(kernel);
	lock->type = kernel->type;
	if (lock->sort != LOCK_FLOCK)
		lock->start = kernel->start;
	lock->end = lock->sort == LOCK_FLOCK ? INT64_MAX : kernel->end;
	lock->pid = owner->pid;
	lock->fd = fd;
	lock->object = file->object->id;
	return NULL;
}

static struct cr_error *save(struct dump *dump, const struct kernel_lock *lock,
			     const struct noted_file *file, const struct process *owner)
{
	int fd = files_number(owner, file->object);

	if (fd < 0)
		return error_new(CR_UNSUPPORTED, "Cannot save %s: no descriptor shows its lock",
				 file->name);
	if (lock->flags & KERNEL_FL_LEASE)
		return lease_dump(dump, lock, file->object, owner, fd);
	return add_lock(dump, lock, file, owner, fd);
}

static struct cr_error *look_at_lock(struct dump *dump, const struct kernel_lock *lock,
				     const struct noted_file *any)
{
	const struct noted_file *file = find_file(dump, lock->file);
	const struct process *owner = NULL;

	if (lock->waits)
		return NULL;
	if (lock->flags & (KERNEL_FL_DELEG | KERNEL_FL_LAYOUT))
		return refuse_delegation(dump, any);
	if (sort_of(lock) == LOCK_POSIX && !(lock->flags & KERNEL_FL_LEASE)) {
		owner = find_table(dump, lock->owner, lock->pid);
		if (!owner)
			file = NULL;
	}
	if (!file)
		return refuse_stranger(dump, any, lock);
	if (lock->flags & KERNEL_FL_LEASE)
		TRY(dump_refuse(dump, error_task(lease_check(lock, file->flags, file->name),
						 file->pid, file->comm)));
	if (dump->running)
		return lock->flags & KERNEL_FL_LEASE && lock->type == F_WRLCK
			       ? locks_check_mapped(dump, &file->stat)
			       : NULL;
	if (!owner)
		owner = find_holder(dump, file->object, lock->pid);
	return owner ? save(dump, lock, file, owner) : refuse_stranger(dump, any, lock);
}

static struct cr_error *read_locks(struct dump *dump, uint64_t context, struct list *ret)
{
	enum { TRIES = 8 };
	struct cr_error *error = NULL;

	for (int i = 0; i < TRIES; i++) {
		cr_error_free(error);
		error = kernel_locks_read(dump->kernel_locks, context, dump->image.pool, ret);
		if (!error)
			return NULL;
	}
	return error;
}

static int by_context(const void *a, const void *b)
{
	const struct noted_file *x = a, *y = b;

	return (x->kernel->locks > y->kernel->locks) - (x->kernel->locks < y->kernel->locks);
}

/* Sorted, so that the descriptions of one inode follow one another. */
static void sort_files(struct dump *dump)
{
	if (dump->locked_files.count)
		qsort(dump->locked_files.items, dump->locked_files.count, sizeof(struct noted_file),
		      by_context);
}

static bool is_first(const struct noted_file *files, size_t i)
{
	return !i || files[i].kernel->locks != files[i - 1].kernel->locks;
}

static struct cr_error *look_at_all(struct dump *dump)
{
	struct noted_file *files = dump->locked_files.items;

	sort_files(dump);
	for (size_t i = 0; i < dump->locked_files.count; i++) {
		struct list locks = {0};
		const struct kernel_lock *lock;

		if (!is_first(files, i))
			continue;
		TRY(read_locks(dump, files[i].kernel->locks, &locks));
		lock = locks.items;
		for (size_t n = 0; n < locks.count; n++)
			TRY(look_at_lock(dump, &lock[n], &files[i]));
	}
	return NULL;
}

bool locks_noted(const struct dump *dump, ino_t inode)
{
	const struct noted_file *files = dump->locked_files.items;

	for (size_t i = 0; i < dump->locked_files.count; i++) {
		if (files[i].stat.st_ino == inode)
			return true;
	}
	return false;
}

struct cr_error *locks_check(struct dump *dump)
{
	TRY(dump_refuse(dump, locks_check_unseen(dump)));
	return dump_refuse(dump, look_at_all(dump));
}

/* ---- queues ---- */

static struct cr_error *queue_at(struct dump *dump, uint64_t context)
{
	struct list locks = {0};
	const struct kernel_lock *lock;

	TRY(read_locks(dump, context, &locks));
	lock = locks.items;
	for (size_t i = 0; i < locks.count; i++) {
		pid_t *slot;

		if (!lock[i].waits || !lock[i].sleeper || lock[i].flags & KERNEL_FL_LEASE)
			continue;
		slot = list_append(dump->image.pool, &dump->stopped.late, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = lock[i].sleeper;
	}
	return NULL;
}

struct cr_error *locks_queue(struct dump *dump)
{
	struct noted_file *files = dump->locked_files.items;

	for (size_t i = 0; i < dump->locked_files.count; i++) {
		struct cr_error *error;

		if (!is_first(files, i))
			continue;
		error = queue_at(dump, files[i].kernel->locks);
		/* the file may have been closed meanwhile */
		if (error && error->code == CR_MEMORY)
			return error;
		cr_error_free(error);
	}
	return NULL;
}

static size_t place_in_queue(const struct dump *dump, pid_t tid)
{
	const pid_t *queue = dump->stopped.late.items;
	size_t i = 0;

	while (i < dump->stopped.late.count && queue[i] != tid)
		i++;
	return i;
}

struct waiting {
	const struct thread *thread;
	struct lock_waiter state;
	size_t place;
};

static int by_place(const void *a, const void *b)
{
	const struct waiting *x = a, *y = b;

	if (x->place != y->place)
		return x->place < y->place ? -1 : 1;
	return (x->thread->tid > y->thread->tid) - (x->thread->tid < y->thread->tid);
}

static struct cr_error *find_waiting(struct dump *dump, struct thread *thread, struct list *ret)
{
	struct lock_waiter state;
	struct waiting *waiting;
	struct arch_regs regs;

	TRY(registers_of(thread, &regs));
	if (!lock_wait_of(&regs, &state))
		return NULL;
	waiting = list_append(dump->image.pool, ret, sizeof(*waiting));
	if (!waiting)
		return error_nomem();
	state.pid = thread->process->pid;
	state.tid = thread->tid;
	*waiting = (struct waiting){
		.thread = thread,
		.state = state,
		.place = place_in_queue(dump, thread->host_tid),
	};
	return NULL;
}

/* What a thread waits for may be locked by somebody of whom no descriptor told. */
static struct cr_error *note_waited_for(struct dump *dump, const struct waiting *waiting)
{
	struct descriptor descriptor;
	struct process *process = waiting->thread->process;
	struct cr_error *error;

	TRY(proc_open(process->host_pid, process->host_pid, &process->proc));
	error = descriptor_look(dump, process, waiting->state.fd, &descriptor);
	close(process->proc);
	process->proc = -1;
	TRY(error);
	return locks_note(dump, &descriptor, NULL);
}

static struct cr_error *add_waiters(struct dump *dump, const struct list *found)
{
	const struct waiting *waiting = found->items;

	for (size_t i = 0; i < found->count; i++) {
		struct object *object = image_add_object(&dump->image, &lock_waiter_kind);

		if (!object)
			return error_nomem();
		*(struct lock_waiter *)object->state = waiting[i].state;
	}
	return NULL;
}

struct cr_error *locks_collect(struct dump *dump)
{
	struct list found = {0};
	struct waiting *waiting;

	for_each (struct process *, process, &dump->image.processes) {
		for_each (struct thread *, thread, &process->threads)
			TRY(find_waiting(dump, thread, &found));
	}
	waiting = found.items;
	for (size_t i = 0; i < found.count; i++)
		TRY(note_waited_for(dump, &waiting[i]));
	TRY(look_at_all(dump));
	if (found.count)
		qsort(waiting, found.count, sizeof(*waiting), by_place);
	return add_waiters(dump, &found);
}

void locks_release(struct dump *dump)
{
	const pid_t *queue = dump->stopped.late.items;

	for (size_t i = 0; i < dump->stopped.late.count; i++) {
		struct lock_waiter waiter;
		struct arch_regs regs;
		struct cr_error *error;

		if (!stop_find(&dump->stopped, queue[i]))
			continue;
		error = task_get_regs(queue[i], &regs);
		/* one that got its lock in time has to wait for the others now */
		if (!error && lock_wait_of(&regs, &waiter))
			error = lock_waiter_release(queue[i]);
		cr_error_free(error);
	}
}
