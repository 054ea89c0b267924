/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locks.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "attached.h"
#include "cleanup.h"
#include "kernel/locks.h"
#include "kinds/files.h"
#include "kinds/in_flight.h"
#include "kinds/lease.h"
#include "kinds/lock.h"
#include "kinds/memory.h"
#include "kinds/outside_lock.h"
#include "kinds/registers.h"
#include "locks_noted.h"

/* Where the kernel's type information does not describe locks, what /proc shows must do. */
static struct cr_error *need_kernel(struct dump *dump)
{
	struct cr_error *error;

	if (dump->kernel_locks || dump->locks_by_proc)
		return NULL;
	error = locks_without_members(dump)
			? error_new(CR_HOST, "Left out on purpose")
			: kernel_locks_open(dump->btf, dump->peek, &dump->kernel_locks);
	if (!error || error->code != CR_HOST)
		return error;
	dump->locks_by_proc = true;
	log_say(&dump->log, CR_INFO, "Locks are read from /proc: %s", error->message);
	cr_error_free(error);
	return NULL;
}

void locks_begin(struct dump *dump)
{
	memset(&dump->locked_files, 0, sizeof(dump->locked_files));
	memset(&dump->locked_inodes, 0, sizeof(dump->locked_inodes));
}

static struct cr_error *note(struct dump *dump, const struct descriptor *descriptor,
			     struct object *object, bool waited)
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
		.process = descriptor->process,
		.path = descriptor->path,
		.fd = descriptor->fd,
		.waited = waited,
		.flags = descriptor->flags,
	};
	return NULL;
}

struct cr_error *locks_note(struct dump *dump, const struct descriptor *descriptor,
			    struct object *object)
{
	return note(dump, descriptor, object, false);
}

const char *locks_name(struct dump *dump, const struct noted_file *noted)
{
	struct descriptor descriptor = {
		.process = noted->process, .fd = noted->fd, .path = noted->path};

	if (!noted->link)
		return descriptor_name(dump, &descriptor);
	return image_text(&dump->image, "'%s', which process %d (%s) has mapped", noted->path.data,
			  noted->process->pid, noted->process->stat.comm);
}

/* ---- whose it is ---- */

/* Whom locks may belong to, by the kernel's addresses; process numbers are those of this host. */
struct owners {
	struct hash files;   /* struct noted_file: one that has become an object, if there is one */
	struct hash tables;  /* struct process: by its table, by its number, and by both */
	struct hash mappers; /* the same, by the description that it maps */
};

static struct cr_error *add_file(struct dump *dump, struct owners *owners, struct noted_file *file)
{
	struct pool *pool = dump->image.pool;

	TRY(hash_add(pool, &owners->files, file->file, 0, file));
	if (!file->link)
		return NULL;
	TRY(hash_add(pool, &owners->mappers, file->file, 0, file->process));
	return hash_add(pool, &owners->mappers, file->file, (uint64_t)file->process->host_pid,
			file->process);
}

/* One may be noted again for somebody who waits, or who maps it. */
static struct cr_error *add_files(struct dump *dump, struct owners *owners)
{
	struct noted_file *files = dump->locked_files.items;

	for (size_t i = 0; i < dump->locked_files.count; i++) {
		if (files[i].object)
			TRY(add_file(dump, owners, &files[i]));
	}
	for (size_t i = 0; i < dump->locked_files.count; i++)
		TRY(add_file(dump, owners, &files[i]));
	return NULL;
}

static struct cr_error *find_owners(struct dump *dump, struct owners *ret)
{
	struct pool *pool = dump->image.pool;

	*ret = (struct owners){0};
	for_each (struct process *, process, &dump->image.tables) {
		uint64_t table = process_leader(process)->kernel->files,
			 number = (uint64_t)process->host_pid;

		TRY(hash_add(pool, &ret->tables, table, 0, process));
		TRY(hash_add(pool, &ret->tables, 0, number, process));
		TRY(hash_add(pool, &ret->tables, table, number, process));
	}
	return add_files(dump, ret);
}

/* Of several processes that share one, the one that made the lock: F_GETLK tells its pid. */
static struct process *choose(const struct hash *hash, uint64_t shared, pid_t maker)
{
	struct process *found = hash_find(hash, shared, (uint64_t)maker);

	return found ? found : hash_find(hash, shared, 0);
}

/* The maker, if it still shows the file. */
static struct process *find_holder(struct dump *dump, const struct owners *owners,
				   const struct object *object, pid_t maker)
{
	struct process *process = hash_find(&owners->tables, 0, (uint64_t)maker);

	if (process && files_number(&dump->image, process, object) >= 0)
		return process;
	if (!in_flight_holds(dump, object->holder))
		return object->holder;
	return process ? process : dump->init->process;
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
				  locks_name(dump, file), lock->pid);
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
			  locks_name(dump, file), lock->pid, stat.comm);
	return refuse(
		dump, file, error,
		"Let it release the lock, and try again; --outside-locks ignore leaves it out");
}

static struct cr_error *refuse_delegation(struct dump *dump, const struct noted_file *file)
{
	return refuse(dump, file,
		      error_new(CR_UNSUPPORTED,
				"Cannot save %s: it has a delegation or a layout (F_SETDELEG, NFS)",
				locks_name(dump, file)),
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
	int fd = files_number(&dump->image, owner, file->object);

	if (lock->flags & KERNEL_FL_LEASE)
		return lease_dump(dump, lock, file->object, owner, fd);
	return add_lock(dump, lock, file, owner, fd);
}

/* Who sets it at a restart. */
static const struct process *find_owner(struct dump *dump, const struct owners *owners,
					const struct kernel_lock *lock,
					const struct noted_file *file)
{
	const struct process *holder;

	if (is_posix(lock))
		return choose(&owners->tables, lock->owner, lock->pid);
	if (!file || dump->running)
		return NULL;
	holder = find_holder(dump, owners, file->object, lock->pid);
	return holder ? holder : choose(&owners->mappers, file->file, lock->pid);
}

static struct cr_error *look_at_lock(struct dump *dump, const struct owners *owners,
				     const struct kernel_lock *lock,
				     const struct noted_files *files)
{
	struct noted_file *file = hash_find(&owners->files, lock->file, 0);
	const struct process *owner;

	if (lock->waits)
		return NULL;
	if (lock->flags & (KERNEL_FL_DELEG | KERNEL_FL_LAYOUT))
		return refuse_delegation(dump, files->items);
	if (file && !file->object && !dump->running && !is_posix(lock))
		TRY(locks_dump_mapped(dump, file));
	owner = find_owner(dump, owners, lock, file);
	if (!file || (!owner && (is_posix(lock) || !dump->running)))
		return refuse_stranger(dump, files->items, lock);
	return dump->running ? NULL : save(dump, lock, file, owner);
}

static struct cr_error *read_kernel(struct dump *dump, uint64_t context, struct list *ret)
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

static struct cr_error *read_locks(struct dump *dump, const struct noted_files *files,
				   struct list *ret)
{
	TRY(need_kernel(dump));
	return dump->locks_by_proc ? locks_read_shown(dump, files, ret)
				   : read_kernel(dump, files->items->context, ret);
}

struct cr_error *locks_leased(struct dump *dump, uint64_t context, ino_t inode, bool *ret)
{
	const struct kernel_lock *lock;
	struct list locks = {0};

	TRY(need_kernel(dump));
	if (dump->locks_by_proc)
		return locks_leased_shown(dump, inode, ret);
	TRY(read_kernel(dump, context, &locks));
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

/* Has somebody here locked it? What locks belong to a table goes with its descriptors. */
static bool is_ours(const struct owners *owners, const struct kernel_lock *lock)
{
	const struct noted_file *file = hash_find(&owners->files, lock->file, 0);

	if (!file || lock->waits)
		return false;
	return !is_posix(lock) || hash_find(&owners->tables, lock->owner, 0);
}

/* Locks of others on a file are nothing to us as long as nobody here uses locks on it. */
static struct cr_error *concern_us(struct dump *dump, const struct owners *owners,
				   const struct noted_files *files, const struct list *locks,
				   bool *ret)
{
	const struct kernel_lock *lock = locks->items;

	*ret = false;
	for (size_t i = 0; !*ret && i < files->count; i++)
		*ret = files->items[i].waited;
	for (size_t i = 0; !*ret && i < locks->count; i++)
		*ret = is_ours(owners, &lock[i]);
	for (size_t i = 0; i < files->count; i++)
		files->items[i].concerns = *ret;
	return *ret ? hash_add(dump->image.pool, &dump->locked_inodes, files->items->inode, 0,
			       files->items)
		    : NULL;
}

static struct cr_error *look_at_group(struct dump *dump, const struct owners *owners,
				      const struct noted_files *files)
{
	const struct kernel_lock *lock;
	struct list locks = {0};
	bool concerns;

	TRY(read_locks(dump, files, &locks));
	TRY(concern_us(dump, owners, files, &locks, &concerns));
	lock = locks.items;
	for (size_t n = 0; concerns && n < locks.count; n++)
		TRY(look_at_lock(dump, owners, &lock[n], files));
	return NULL;
}

static struct cr_error *look_at_all(struct dump *dump)
{
	struct owners owners;

	if (!dump->locked_files.count)
		return NULL;
	TRY(need_kernel(dump));
	sort_files(dump);
	TRY(find_owners(dump, &owners));
	for (size_t i = 0; i < dump->locked_files.count;) {
		struct noted_files group = group_at(dump, i);

		/* one may be closed meanwhile, while everything runs */
		TRY(dump_refuse(dump, look_at_group(dump, &owners, &group)));
		i += group.count;
	}
	return NULL;
}

bool locks_noted(const struct dump *dump, ino_t inode)
{
	return hash_find(&dump->locked_inodes, inode, 0);
}

struct cr_error *locks_check(struct dump *dump)
{
	TRY(dump_refuse(dump, look_at_all(dump)));
	return dump_refuse(dump, locks_check_unseen(dump));
}

/* ---- queues ---- */

static struct cr_error *note_lease_waiter(struct dump *dump, uint64_t file, pid_t tid)
{
	struct lease_waiter *slot =
		list_append(dump->image.pool, &dump->lease_waiters, sizeof(*slot));

	if (!slot)
		return error_nomem();
	*slot = (struct lease_waiter){file, tid};
	return NULL;
}

static struct cr_error *queue_at(struct dump *dump, const struct noted_files *files)
{
	struct list locks = {0};
	const struct kernel_lock *lock;
	uint64_t held = 0; /* the last description that holds one */

	TRY(read_locks(dump, files, &locks));
	lock = locks.items;
	for (size_t i = 0; i < locks.count; i++) {
		if (!lock[i].waits)
			held = lock[i].file;
		else if (lock[i].sleeper && lock[i].flags & KERNEL_FL_LEASE)
			TRY(note_lease_waiter(dump, held, lock[i].sleeper));
		else if (lock[i].sleeper)
			TRY(stop_late(&dump->stopped, lock[i].sleeper));
	}
	return NULL;
}

struct cr_error *locks_queue(struct dump *dump)
{
	for (size_t i = 0; i < dump->locked_files.count;) {
		struct noted_files group = group_at(dump, i);
		struct cr_error *error = group.items->concerns ? queue_at(dump, &group) : NULL;

		/* the file may have been closed meanwhile */
		if (error && error->code == CR_MEMORY)
			return error;
		cr_error_free(error);
		i += group.count;
	}
	return NULL;
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
		.place = stop_place(&dump->stopped, thread->host_tid),
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
	return note(dump, &descriptor, NULL, true);
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
