/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks as /proc shows them, for kernels whose type information does not describe them. Which
 * description has which lock stands in fdinfo; who else has one, and who waits for whom, in
 * /proc/locks, where the same lines come again behind other numbers. What is shown of a lease that
 * is being broken is half of it: a trace tells the rest, or it is guessed and said so.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "cleanup.h"
#include "locks_noted.h"
#include "shown_lock.h"
#include "steps.h"
#include "target/channel.h"

struct shown_inode {
	unsigned int major, minor;
	unsigned long inode;
};

bool locks_without_members(const struct dump *dump)
{
	return step_is_left_out(dump->options->fault, "lock-members");
}

static struct kernel_lock from_shown(const struct shown_lock *shown)
{
	struct kernel_lock lock = {
		.type = !strcmp(shown->type, "READ") ? F_RDLCK : F_WRLCK,
		.pid = shown->pid,
		.start = shown->start,
		.end = shown->end,
		.fd = -1,
		.waits = shown->waits,
	};

	if (!strcmp(shown->sort, "POSIX"))
		lock.flags = KERNEL_FL_POSIX;
	else if (!strcmp(shown->sort, "OFDLCK"))
		lock.flags = KERNEL_FL_POSIX | KERNEL_FL_OFDLCK;
	else if (!strcmp(shown->sort, "FLOCK"))
		lock.flags = KERNEL_FL_FLOCK;
	else if (!strcmp(shown->sort, "LEASE"))
		lock.flags = KERNEL_FL_LEASE;
	else
		lock.flags = KERNEL_FL_DELEG;
	return lock;
}

static struct cr_error *append(struct dump *dump, struct list *list, const struct kernel_lock *lock)
{
	struct kernel_lock *slot = list_append(dump->image.pool, list, sizeof(*slot));

	if (!slot)
		return error_nomem();
	*slot = *lock;
	return NULL;
}

/* ---- leases that are being broken ---- */

static struct cr_error *open_trace(struct dump *dump)
{
	struct cr_error *error;

	if (dump->lease_trace || dump->lease_trace_tried)
		return NULL;
	dump->lease_trace_tried = true;
	error = step_is_left_out(dump->options->fault, "tracefs")
			? error_new(CR_HOST, "Left out on purpose")
			: lease_trace_open(&dump->lease_trace);
	if (!error)
		return NULL;
	log_say(&dump->log, CR_WARNING,
		"The times of leases that are being broken cannot be read: %s", error->message);
	cr_error_free(error);
	return NULL;
}

/* Nobody else has the file open, as far as the container goes. */
static bool is_alone(const struct dump *dump, const struct noted_file *file)
{
	for_each (struct process *, process, &dump->image.tables) {
		const struct kernel_file *open = process->open_files.items;

		for (size_t i = 0; i < process->open_files.count; i++) {
			if (open[i].locks == file->context && open[i].file != file->file)
				return false;
		}
	}
	return true;
}

/*
 * Only a write lease becomes a read lease. Of one that is to go, the type is not shown: who can only
 * read mostly has a read lease, and with others who have the file open it is none for writing.
 */
static void guess(const struct dump *dump, const struct noted_file *file,
		  const struct shown_lock *shown, struct kernel_lock *lock)
{
	bool downgrade = !strcmp(shown->type, "READ");
	bool writes = (file->flags & O_ACCMODE) != O_RDONLY;

	lock->flags |= downgrade ? KERNEL_FL_DOWNGRADE_PENDING : KERNEL_FL_UNLOCK_PENDING;
	lock->type = downgrade || (writes && is_alone(dump, file)) ? F_WRLCK : F_RDLCK;
	lock->guessed = true;
}

static struct cr_error *look_at_break(struct dump *dump, const struct noted_file *file,
				      const struct shown_lock *shown, struct kernel_lock *lock)
{
	_cleanup_close_ int fd = -1;
	struct cr_error *error;

	TRY(open_trace(dump));
	guess(dump, file, shown, lock);
	if (!dump->lease_trace || dump->running)
		return NULL;
	TRY(task_get_fd(file->process->host_pid, file->fd, &fd));
	error = lease_trace_read(dump->lease_trace, fd, file->file, dump->image.pool, lock);
	lock->guessed = error != NULL;
	if (error && error->code == CR_MEMORY)
		return error;
	cr_error_free(error);
	return NULL;
}

/* ---- held by what a descriptor shows ---- */

/* What belongs to a description is shown by each of its descriptors, a POSIX lock by one table. */
static bool was_seen(const struct noted_files *files, size_t index, bool posix)
{
	const struct noted_file *file = &files->items[index];

	for (size_t i = 0; i < index; i++) {
		const struct noted_file *other = &files->items[i];

		if (other->fd >= 0 && other->file == file->file &&
		    (!posix || process_leader(other->process)->kernel->files ==
				       process_leader(file->process)->kernel->files))
			return true;
	}
	return false;
}

static struct cr_error *take(struct dump *dump, const struct noted_files *files, size_t index,
			     const struct shown_lock *shown, struct list *ret)
{
	const struct noted_file *file = &files->items[index];
	struct kernel_lock lock = from_shown(shown);
	bool posix = lock.flags == KERNEL_FL_POSIX;

	if (was_seen(files, index, posix))
		return NULL;
	lock.file = file->file;
	lock.owner = posix ? process_leader(file->process)->kernel->files : file->file;
	if (lock.flags == KERNEL_FL_LEASE && shown->breaking)
		TRY(look_at_break(dump, file, shown, &lock));
	return append(dump, ret, &lock);
}

static struct cr_error *read_info(struct dump *dump, const struct noted_file *file, char **ret)
{
	_cleanup_close_ int proc = -1;
	char name[32];

	snprintf(name, sizeof(name), "fdinfo/%d", file->fd);
	TRY(proc_open(file->process->host_pid, file->process->host_pid, &proc));
	return proc_read(proc, name, dump->image.pool, ret, NULL);
}

static bool starts(const char *line, const char *key)
{
	return !strncmp(line, key, strlen(key));
}

/* The device that locks show is that of the file system, which stat(2) may tell otherwise. */
static struct cr_error *find_device(struct dump *dump, const struct noted_file *file,
				    unsigned int mount, struct shown_inode *inode)
{
	char *text, *rest;

	TRY(proc_read_of(file->process->host_pid, "mountinfo", dump->image.pool, &text));
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		unsigned int id, major, minor;

		if (sscanf(line, "%u %*u %u:%u", &id, &major, &minor) == 3 && id == mount) {
			inode->major = major;
			inode->minor = minor;
		}
	}
	return NULL;
}

/* *lines: struct shown_lock of what the container holds. */
static struct cr_error *read_held(struct dump *dump, const struct noted_files *files,
				  struct shown_inode *inode, struct list *lines, struct list *ret)
{
	for (size_t i = 0; i < files->count; i++) {
		const struct noted_file *file = &files->items[i];
		unsigned int mount = 0;
		char *text, *rest;

		if (file->fd < 0)
			continue;
		TRY(read_info(dump, file, &text));
		for (char *line = strtok_r(text, "\n", &rest); line;
		     line = strtok_r(NULL, "\n", &rest)) {
			struct shown_lock shown, *slot;

			if (starts(line, "mnt_id:"))
				sscanf(line, "mnt_id: %u", &mount);
			if (starts(line, "ino:"))
				sscanf(line, "ino: %lu", &inode->inode);
			if (!starts(line, "lock:") ||
			    !shown_lock_parse(line + strlen("lock:"), &shown))
				continue;
			slot = list_append(dump->image.pool, lines, sizeof(*slot));
			if (!slot)
				return error_nomem();
			*slot = shown;
			*inode = (struct shown_inode){shown.major, shown.minor, shown.inode};
			TRY(take(dump, files, i, &shown, ret));
		}
		if (!inode->major && !inode->minor)
			TRY(find_device(dump, file, mount, inode));
	}
	return NULL;
}

/* ---- held by somebody else, or waited for ---- */

static bool is_ours(const struct list *lines, const struct shown_lock *shown)
{
	const struct shown_lock *held = lines->items;

	for (size_t i = 0; i < lines->count; i++) {
		if (!strcmp(held[i].text, shown->text))
			return true;
	}
	return false;
}

/* The thread of a process that waits for a lock; 0: none does, or not any more. */
static pid_t find_sleeper(const struct dump *dump, pid_t tgid, const struct list *found)
{
	const struct kernel_task *tasks = dump->kernel_tasks.items;
	const struct kernel_lock *locks = found->items;

	for (size_t i = 0; i < dump->kernel_tasks.count; i++) {
		bool taken = tasks[i].tgid != tgid ||
			     (tasks[i].syscall != SYS_fcntl && tasks[i].syscall != SYS_flock);

		for (size_t n = 0; !taken && n < found->count; n++)
			taken = locks[n].sleeper == tasks[i].pid;
		if (!taken)
			return tasks[i].pid;
	}
	return 0;
}

static struct cr_error *refuse_unordered(struct dump *dump, const struct noted_file *file)
{
	struct cr_error *error =
		error_new(CR_UNSUPPORTED,
			  "Cannot save %s: several wait for locks on it, one of them for one of an "
			  "open file description, and this kernel does not tell in which order",
			  locks_name(dump, file));

	error = error_task(error_object(error, "file_lock"), file->process->pid,
			   file->process->stat.comm);
	return dump_refuse(dump, error_remedy(error, "Let them have their locks, and try again"));
}

static struct cr_error *read_others(struct dump *dump, const struct noted_files *files,
				    const struct shown_inode *inode, const struct list *lines,
				    struct list *ret)
{
	size_t waiting = 0, nameless = 0;
	char *text, *rest;

	TRY(proc_read(AT_FDCWD, "/proc/locks", dump->image.pool, &text, NULL));
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		struct kernel_lock lock;
		struct shown_lock shown;

		if (!shown_lock_parse(line, &shown) || shown.inode != inode->inode ||
		    shown.major != inode->major || shown.minor != inode->minor ||
		    (!shown.waits && is_ours(lines, &shown)))
			continue;
		lock = from_shown(&shown);
		waiting += shown.waits;
		nameless += shown.waits && shown.pid < 0;
		if (shown.waits)
			lock.sleeper = find_sleeper(dump, shown.pid, ret);
		TRY(append(dump, ret, &lock));
	}
	return nameless && waiting > 1 ? refuse_unordered(dump, files->items) : NULL;
}

struct cr_error *locks_read_shown(struct dump *dump, const struct noted_files *files,
				  struct list *ret)
{
	struct shown_inode inode = {0};
	struct list lines = {0};

	ret->count = 0;
	TRY(read_held(dump, files, &inode, &lines, ret));
	/* only mapped: whoever has locked it shows it */
	return inode.inode ? read_others(dump, files, &inode, &lines, ret) : NULL;
}

struct cr_error *locks_leased_shown(struct dump *dump, ino_t inode, bool *ret)
{
	char *text, *rest;

	*ret = false;
	TRY(proc_read(AT_FDCWD, "/proc/locks", dump->image.pool, &text, NULL));
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		struct shown_lock shown;

		/* of whatever device: to read it by another's descriptor is never wrong */
		*ret |= shown_lock_parse(line, &shown) && shown.inode == inode &&
			!strcmp(shown.sort, "LEASE");
	}
	return NULL;
}
