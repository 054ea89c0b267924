/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locks.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "attached.h"
#include "cleanup.h"
#include "kernel/locks.h"
#include "kinds/files.h"
#include "kinds/lease.h"
#include "kinds/lock.h"
#include "kinds/memory.h"
#include "kinds/outside_lock.h"
#include "kinds/registers.h"
#include "locks_noted.h"

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
	struct noted_file *noted;

	if (!descriptor->kernel->locks)
		return NULL;
	noted = list_append(dump->image.pool, &dump->locked_files, sizeof(*noted));
	if (!noted)
		return error_nomem();
	*noted = (struct noted_file){
		.file = descriptor->kernel->file,
		.context = descriptor->kernel->locks,
		.object = object,
		.inode = descriptor->stat.st_ino,
		.name = descriptor_name(dump, descriptor),
		.process = descriptor->process,
	};
	return noted->name ? NULL : error_nomem();
}

/* ---- whose it is ---- */

/* All descriptions of one inode that were noted. */
struct noted_files {
	struct noted_file *items;
	size_t count;
};

static struct noted_file *find_file(const struct noted_files *files, uint64_t address)
{
	struct noted_file *found = NULL;

	/* one may be noted again for somebody who waits, or who maps it */
	for (size_t i = 0; i < files->count; i++) {
		struct noted_file *file = &files->items[i];

		if (file->file == address && (!found || file->object))
			found = file;
	}
	return found;
}

/* Of several processes that share a table, the one that made the lock: F_GETLK tells its pid. */
static struct process *find_table(struct dump *dump, uint64_t files, pid_t maker)
{
	struct process *found = NULL;

	for_each (struct process *, process, &dump->image.tables) {
		if (process_leader(process)->kernel->files == files &&
		    (!found || process->host_pid == maker))
			found = process;
	}
	return found;
}

/* The maker, if it still shows the file: most often, and then no other table is searched. */
static struct process *find_holder(struct dump *dump, const struct object *object, pid_t maker)
{
	for_each (struct process *, process, &dump->image.tables) {
		if (process->host_pid == maker && files_number(process, object) >= 0)
			return process;
	}
	for_each (struct process *, other, &dump->image.tables) {
		if (files_number(other, object) >= 0)
			return other;
	}
	return NULL;
}

static struct cr_error *refuse(struct dump *dump, const struct noted_file *file,
			       struct cr_error *error, const char *remedy)
{
	error = error_task(error_object(error, "file_lock"), file->process->pid,
			   file->process->stat.comm);
	return dump_refuse(dump, error_remedy(error, "%s", remedy));
}

/* @file: one of ours that shows the same inode. */
static struct cr_error *refuse_stranger(struct dump *dump, const struct noted_file *file,
					const struct kernel_lock *lock)
{
	struct proc_stat stat = {.comm = "it has ended"};
	_cleanup_close_ int proc = -1;
	struct cr_error *error;

	/* as if it had ended */
	if (attached_is_left_out(dump, lock->pid))
		return NULL;
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
	if (dump->options->ignore_outside_locks)
		return outside_lock_note(dump, lock, file, &stat);
	error = error_new(CR_ISOLATION,
			  "Cannot save %s: process %d of the host (%s), which is outside the "
			  "container, has locked the file",
			  file->name, lock->pid, stat.comm);
	return refuse(
		dump, file, error,
		"Let it release the lock, and try again; --outside-locks ignore leaves it out");
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

static bool is_posix(const struct kernel_lock *lock)
{
	return lock_sort_of(lock) == LOCK_POSIX && !(lock->flags & KERNEL_FL_LEASE);
}

static struct cr_error *add_lock(struct dump *dump, const struct kernel_lock *kernel,
				 const struct noted_file *file, const struct process *owner, int fd)
{
	struct object *object = image_add_object(&dump->image, &lock_kind);
	struct lock *lock;

	if (!object)
		return error_nomem();
	lock = object->state;
	lock->sort = lock_sort_of(kernel);
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

	if (lock->flags & KERNEL_FL_LEASE)
		return lease_dump(dump, lock, file->object, owner, fd);
	return add_lock(dump, lock, file, owner, fd);
}

/* Who sets it at a restart. */
static const struct process *find_owner(struct dump *dump, const struct kernel_lock *lock,
					const struct noted_file *file)
{
	const struct process *holder;

	if (is_posix(lock))
		return find_table(dump, lock->owner, lock->pid);
	if (!file || dump->running)
		return NULL;
	holder = find_holder(dump, file->object, lock->pid);
	return holder ? holder : locks_find_mapper(dump, file->file, lock->pid);
}

static struct cr_error *look_at_lock(struct dump *dump, const struct kernel_lock *lock,
				     const struct noted_files *files)
{
	struct noted_file *file = find_file(files, lock->file);
	const struct process *owner;

	if (lock->waits)
		return NULL;
	if (lock->flags & (KERNEL_FL_DELEG | KERNEL_FL_LAYOUT))
		return refuse_delegation(dump, files->items);
	if (file && !file->object && !dump->running && !is_posix(lock))
		TRY(locks_dump_mapped(dump, file));
	owner = find_owner(dump, lock, file);
	if (!file || (!owner && (is_posix(lock) || !dump->running)))
		return refuse_stranger(dump, files->items, lock);
	return dump->running ? NULL : save(dump, lock, file, owner);
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

struct cr_error *locks_leased(struct dump *dump, uint64_t context, bool *ret)
{
	const struct kernel_lock *lock;
	struct list locks = {0};

	TRY(need_kernel(dump));
	TRY(read_locks(dump, context, &locks));
	lock = locks.items;
	*ret = false;
	for (size_t i = 0; i < locks.count; i++)
		*ret |= lock[i].flags & KERNEL_FL_LEASE;
	return NULL;
}

static int by_context(const void *a, const void *b)
{
	const struct noted_file *x = a, *y = b;

	return (x->context > y->context) - (x->context < y->context);
}

/* Sorted, so that the descriptions of one inode follow one another. */
static void sort_files(struct dump *dump)
{
	if (dump->locked_files.count)
		qsort(dump->locked_files.items, dump->locked_files.count, sizeof(struct noted_file),
		      by_context);
}

/* Those of the inode of number @first. */
static struct noted_files group_at(struct dump *dump, size_t first)
{
	struct noted_file *files = dump->locked_files.items;
	struct noted_files group = {files + first, 1};

	while (first + group.count < dump->locked_files.count &&
	       files[first + group.count].context == files[first].context)
		group.count++;
	return group;
}

/* What is mapped concerns us when it has a lock itself, or somebody here has locked the file. */
static bool concern_us(const struct noted_files *files, const struct list *locks)
{
	const struct kernel_lock *lock = locks->items;
	bool concerns = false;

	for (size_t i = 0; !concerns && i < files->count; i++)
		concerns = !files->items[i].link;
	for (size_t i = 0; !concerns && i < locks->count; i++)
		concerns = !is_posix(&lock[i]) && find_file(files, lock[i].file);
	for (size_t i = 0; i < files->count; i++)
		files->items[i].concerns = concerns;
	return concerns;
}

static struct cr_error *look_at_group(struct dump *dump, const struct noted_files *files)
{
	const struct kernel_lock *lock;
	struct list locks = {0};

	TRY(need_kernel(dump));
	TRY(read_locks(dump, files->items->context, &locks));
	if (!concern_us(files, &locks))
		return NULL;
	lock = locks.items;
	for (size_t n = 0; n < locks.count; n++)
		TRY(look_at_lock(dump, &lock[n], files));
	return NULL;
}

static struct cr_error *look_at_all(struct dump *dump)
{
	sort_files(dump);
	for (size_t i = 0; i < dump->locked_files.count;) {
		struct noted_files group = group_at(dump, i);

		TRY(look_at_group(dump, &group));
		i += group.count;
	}
	return NULL;
}

bool locks_noted(const struct dump *dump, ino_t inode)
{
	const struct noted_file *files = dump->locked_files.items;

	for (size_t i = 0; i < dump->locked_files.count; i++) {
		if (files[i].concerns && files[i].inode == inode)
			return true;
	}
	return false;
}

struct cr_error *locks_check(struct dump *dump)
{
	TRY(dump_refuse(dump, look_at_all(dump)));
	return dump_refuse(dump, locks_check_unseen(dump));
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
	for (size_t i = 0; i < dump->locked_files.count;) {
		struct noted_files group = group_at(dump, i);
		struct cr_error *error =
			group.items->concerns ? queue_at(dump, group.items->context) : NULL;

		/* the file may have been closed meanwhile */
		if (error && error->code == CR_MEMORY)
			return error;
		cr_error_free(error);
		i += group.count;
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
	const struct thread *thread = waiting->thread;
	struct process *process = thread->own ? thread->own : thread->process;
	struct cr_error *error;

	TRY(proc_open(process->host_pid, process->host_pid, &process->proc));
	error = descriptor_look(dump, process, waiting->state.fd, &descriptor);
	close(process->proc);
	if (process->fds >= 0)
		close(process->fds);
	process->proc = process->fds = -1;
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
	memory_find_descriptions(dump);
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
