/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From descriptors to open file descriptions, each saved once however many descriptors show it. */
#include "file.h"

#include <fcntl.h>
#include <search.h>
#include <string.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "../known_paths.h"
#include "../locks.h"
#include "../outsiders.h"
#include "file_owner.h"
#include "in_flight.h"

const struct field file_fields[] = {
	FIELD_UINT(struct file, flags, 0, UINT32_MAX, "open(2) flags"),
	FIELD_UINT(struct file, position, 0, INT64_MAX, "file offset, bytes"),
	FIELD_PATH(struct file, path, "from the container's root"),
	FIELD_UINT(struct file, mode, 0, UINT32_MAX, "type and permissions, st_mode"),
	FIELD_UINT(struct file, uid, 0, UINT32_MAX, "owner"),
	FIELD_UINT(struct file, gid, 0, UINT32_MAX, "group"),
	FIELD_UINT(struct file, device, 0, UINT64_MAX, "st_rdev of a device node, else st_dev"),
	FIELD_UINT(struct file, inode, 0, UINT64_MAX, "st_ino"),
	FIELD_UINT(struct file, size, 0, INT64_MAX, "bytes"),
	FIELD_UINT(struct file, mtime, 0, UINT64_MAX, "modification time, ns since 1970"),
	FIELD_INT(struct file, owner, 0, MAX_TASKS,
		  "who gets signals about it, F_SETOWN_EX; 0: nobody"),
	FIELD_UINT(struct file, owner_type, 0, F_OWNER_PGRP,
		   "F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP"),
	FIELD_UINT(struct file, owner_uid, 0, UINT32_MAX, "real user id of who set the owner"),
	FIELD_UINT(struct file, owner_euid, 0, UINT32_MAX, "its effective user id"),
	FIELD_UINT(struct file, signal, 0, KERNEL_SIGNALS, "F_SETSIG; 0: SIGIO"),
	FIELD_END,
};

static bool is_device(mode_t mode)
{
	return S_ISCHR(mode) || S_ISBLK(mode);
}

void file_dump(const struct descriptor *descriptor, struct file *file)
{
	const struct stat *stat = &descriptor->stat;

	file->flags = descriptor->flags & ~(uint64_t)O_CLOEXEC;
	file->position = descriptor->position;
	file->path = descriptor->path;
	file->mode = stat->st_mode;
	file->uid = stat->st_uid;
	file->gid = stat->st_gid;
	file->device = is_device(stat->st_mode) ? stat->st_rdev : stat->st_dev;
	file->inode = stat->st_ino;
	file->size = (uint64_t)stat->st_size;
	file->mtime =
		(uint64_t)stat->st_mtim.tv_sec * 1000000000u + (uint64_t)stat->st_mtim.tv_nsec;
}

const struct file *file_of(const struct object *object)
{
	return object->kind->restore_file ? object->state : NULL;
}

/* ---- looking at a descriptor ---- */

/* Before 6.12 the kernel's iterator told nothing of a thread that is not the first. */
static struct cr_error *check_complete(struct dump *dump, const struct process *process)
{
	struct list numbers = {0};

	if (process->open_files.count || process->host_pid == process->host_tgid)
		return NULL;
	TRY(proc_numbers(process->proc, "fd", dump->image.pool, &numbers));
	if (!numbers.count)
		return NULL;
	return error_remedy(error_new(CR_HOST,
				      "This kernel does not tell the descriptors of thread %d of "
				      "the host, which is not the first of its process",
				      process->host_pid),
			    "Use Linux 6.12 or newer, or end the process");
}

/* What the kernel knows of all descriptors of @process, read once. */
static struct cr_error *read_open_files(struct dump *dump, struct process *process)
{
	if (process->files_known)
		return NULL;
	TRY(kernel_files_read(dump->file_program, process->host_pid, dump->image.pool,
			      &process->open_files));
	TRY(check_complete(dump, process));
	process->files_known = true;
	return NULL;
}

struct cr_error *file_numbers(struct dump *dump, struct process *process, struct list *ret)
{
	const struct kernel_file *files;

	TRY(read_open_files(dump, process));
	files = process->open_files.items;
	for (size_t i = 0; i < process->open_files.count; i++) {
		int *number = list_append(dump->image.pool, ret, sizeof(*number));

		if (!number)
			return error_nomem();
		*number = files[i].fd;
	}
	return NULL;
}

static int by_number(const void *key, const void *item)
{
	int a = *(const int *)key, b = ((const struct kernel_file *)item)->fd;

	return (a > b) - (a < b);
}

static struct cr_error *find_open_file(struct dump *dump, struct process *process, int fd,
				       const struct kernel_file **ret)
{
	TRY(read_open_files(dump, process));
	*ret = process->open_files.count
		       ? bsearch(&fd, process->open_files.items, process->open_files.count,
				 sizeof(**ret), by_number)
		       : NULL;
	return *ret ? NULL : error_new(CR_GONE, "Descriptor %d is gone", fd);
}

static struct cr_error *look(struct dump *dump, struct process *process,
			     const struct kernel_file *file, struct descriptor *ret)
{
	char name[16];

	*ret = (struct descriptor){
		.process = process,
		.fd = file->fd,
		.kernel = file,
		.flags = file->flags | (file->close_on_exec ? O_CLOEXEC : 0),
		.position = file->position,
		.path = file->path,
	};
	if (file->stat && file->path.len) {
		ret->stat = *file->stat;
		return NULL;
	}
	if (process->fds < 0)
		process->fds = openat(process->proc, "fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	snprintf(name, sizeof(name), "%d", file->fd);
	if (fstatat(process->fds, name, &ret->stat, 0) < 0)
		return errno == ENOENT ? error_new(CR_GONE, "Descriptor %d is gone", file->fd)
				       : error_sys("Failed to look at descriptor %d", file->fd);
	return file->path.len ? NULL : proc_link(process->fds, name, dump->image.pool, &ret->path);
}

struct cr_error *descriptor_look(struct dump *dump, struct process *process, int fd,
				 struct descriptor *ret)
{
	const struct kernel_file *file;

	TRY(find_open_file(dump, process, fd, &file));
	return look(dump, process, file, ret);
}

const char *descriptor_name(struct dump *dump, const struct descriptor *descriptor)
{
	if (in_flight_holds(dump, descriptor->process))
		return image_text(&dump->image,
				  "'%s', which is in flight in a unix socket of "
				  "process %d (%s)",
				  descriptor->path.data, descriptor->process->pid,
				  descriptor->process->stat.comm);
	return image_text(&dump->image, "descriptor %d (%s) of process %d (%s)", descriptor->fd,
			  descriptor->path.data, descriptor->process->pid,
			  descriptor->process->stat.comm);
}

struct cr_error *descriptor_get(const struct descriptor *descriptor, int *ret)
{
	*ret = (int)syscall(SYS_pidfd_getfd, descriptor->process->pidfd, descriptor->fd, 0);
	return *ret < 0 ? error_sys("Failed to fetch descriptor %d", descriptor->fd) : NULL;
}

struct cr_error *descriptor_borrow(struct dump *dump, struct process *process, uint64_t locks,
				   int *ret)
{
	const struct kernel_file *files;
	struct cr_error *error;

	TRY(read_open_files(dump, process));
	files = process->open_files.items;
	for (size_t i = 0; i < process->open_files.count; i++) {
		struct descriptor descriptor = {.process = process, .fd = files[i].fd};

		if (files[i].locks == locks && (files[i].flags & O_ACCMODE) != O_WRONLY &&
		    !(files[i].flags & O_PATH))
			return descriptor_get(&descriptor, ret);
	}
	error = error_new(CR_UNSUPPORTED,
			  "it has a lease, and process %d (%s) has it not open for "
			  "reading",
			  process->pid, process->stat.comm);
	return error_remedy(
		error_object(error, "lease"),
		"Its contents cannot be read without breaking the lease: let the process "
		"release it");
}

static struct cr_error *refuse(struct dump *dump, const struct descriptor *descriptor,
			       const char *object, const char *why, const char *remedy)
{
	struct cr_error *error = error_new(CR_UNSUPPORTED, "Cannot save %s: %s",
					   descriptor_name(dump, descriptor), why);

	error = error_task(error, descriptor->process->pid, descriptor->process->stat.comm);
	return error_remedy(error_object(error, object), "%s", remedy);
}

/* What a path that starts with none of our kinds' claims shows. */
static struct cr_error *refuse_unknown(struct dump *dump, const struct descriptor *descriptor)
{
	static const struct {
		const char *prefix, *object, *what;
	} names[] = {
		{"anon_inode:inotify", "inotify", "it is an inotify instance"},
		{"anon_inode:[io_uring]", "io_uring", "it is an io_uring"},
		{"anon_inode:[userfaultfd]", "userfaultfd", "it is a userfaultfd"},
		{"mnt:", "namespace", "it is a namespace"},
		{"net:", "namespace", "it is a namespace"},
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strncmp((char *)descriptor->path.data, names[i].prefix,
			     strlen(names[i].prefix)))
			return refuse(dump, descriptor, names[i].object, names[i].what,
				      "Not supported yet; end the process, or let it close the "
				      "descriptor");
	}
	return refuse(dump, descriptor, "unknown", "it is nothing that is known here",
		      "Not supported yet; end the process, or let it close the descriptor");
}

struct cr_error *file_check_path(struct dump *dump, const struct descriptor *descriptor)
{
	bool leads;

	if (!descriptor->stat.st_nlink)
		return refuse(
			dump, descriptor, "deleted_file", "the file was deleted",
			"Not supported yet; let the process close it, or restart the process");
	TRY(path_leads_to(dump, &descriptor->path, &descriptor->stat, &leads));
	if (leads)
		return NULL;
	return refuse(
		dump, descriptor, "replaced_file",
		"its path does not lead to it (any more), as seen from the container",
		"Not supported yet; restart the process, so that it opens the file that is there "
		"now");
}

static const struct kind *claiming_kind(const struct descriptor *descriptor)
{
	for (unsigned int k = 0; k < kinds_count(); k++) {
		if (kinds[k]->claims && kinds[k]->claims(descriptor))
			return kinds[k];
	}
	return NULL;
}

static struct cr_error *check(struct dump *dump, const struct descriptor *descriptor,
			      const struct kind **ret)
{
	*ret = claiming_kind(descriptor);
	if (!*ret)
		return refuse_unknown(dump, descriptor);
	return (*ret)->check_file ? (*ret)->check_file(dump, descriptor) : NULL;
}

struct cr_error *file_check(struct dump *dump, struct process *process, int fd)
{
	struct descriptor descriptor;
	const struct kind *kind;

	TRY(descriptor_look(dump, process, fd, &descriptor));
	TRY(outsiders_note(dump, &descriptor));
	dump->has_sockets |= S_ISSOCK(descriptor.stat.st_mode);
	TRY(locks_note(dump, &descriptor, NULL));
	return check(dump, &descriptor, &kind);
}

/* ---- identity ---- */

/* A node of the tree: one open file description, and the object that it has become. */
struct seen {
	uint64_t file; /* struct file of the kernel */
	struct object *object;
};

static int compare_seen(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;

	return (x->file > y->file) - (x->file < y->file);
}

static struct cr_error *dump_new(struct dump *dump, const struct descriptor *descriptor,
				 struct object **ret)
{
	const struct kind *kind;
	struct object *object;

	TRY(check(dump, descriptor, &kind));
	object = image_add_object(&dump->image, kind);
	if (!object)
		return error_nomem();
	object->holder = descriptor->process;
	object->holder_fd = descriptor->fd;
	dump->open_files++;
	log_say(&dump->log, CR_DEBUG, "Read the %s behind descriptor %d of process %d", kind->name,
		descriptor->fd, descriptor->process->pid);
	file_dump(descriptor, object->state);
	TRY(file_dump_owner(descriptor, object->state));
	TRY(kind->dump_file(dump, descriptor, object->state));
	TRY(locks_note(dump, descriptor, object));
	*ret = object;
	return NULL;
}

struct object *file_find(const struct dump *dump, uint64_t file)
{
	struct seen key = {.file = file}, **found = tfind(&key, &dump->files, compare_seen);

	return found ? (*found)->object : NULL;
}

struct cr_error *file_add(struct dump *dump, uint64_t file, struct object *object)
{
	struct seen *seen = pool_alloc(dump->image.pool, sizeof(*seen));

	if (!seen)
		return error_nomem();
	*seen = (struct seen){file, object};
	return tsearch(seen, &dump->files, compare_seen) ? NULL : error_nomem();
}

struct cr_error *file_object(struct dump *dump, struct process *process, int fd,
			     struct object **ret, bool *cloexec)
{
	struct descriptor descriptor;
	struct seen *seen = pool_alloc(dump->image.pool, sizeof(*seen)), **found;
	const struct kernel_file *file;

	if (!seen)
		return error_nomem();
	TRY(find_open_file(dump, process, fd, &file));
	*cloexec = file->close_on_exec;
	seen->file = file->file;
	found = tsearch(seen, &dump->files, compare_seen);
	if (!found)
		return error_nomem();
	if (*found == seen) {
		TRY(look(dump, process, file, &descriptor));
		TRY(dump_new(dump, &descriptor, &seen->object));
	}
	*ret = (*found)->object;
	return NULL;
}

struct cr_error *file_adopt(struct dump *dump, struct process *process,
			    const struct kernel_file *file, struct object **ret)
{
	struct descriptor descriptor;

	TRY(look(dump, process, file, &descriptor));
	TRY(dump_new(dump, &descriptor, ret));
	return file_add(dump, file->file, *ret);
}

/* ---- restart ---- */

/* fcntl(F_SETFL) may change these; the rest open(2) has set for good. */
enum { SETTABLE = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME };

struct cr_error *file_set_flags(const struct object *object, const struct file *file)
{
	if (file->flags & O_PATH)
		return NULL;
	if (fcntl(object->fd, F_SETFL, file->flags & SETTABLE) < 0)
		return error_sys("Failed to set the flags of '%s'", file->path.data);
	return NULL;
}

static struct cr_error *check_type(const struct object *object, const struct file *file)
{
	struct stat stat;

	if (fstat(object->fd, &stat) < 0)
		return error_sys("Failed to look at '%s'", file->path.data);
	if ((stat.st_mode & S_IFMT) == (file->mode & S_IFMT) &&
	    (!is_device(stat.st_mode) || S_ISCHR(stat.st_mode) || stat.st_rdev == file->device))
		return NULL;
	return error_remedy(error_new(CR_HOST,
				      "'%s' is not the type of file it was at the checkpoint",
				      file->path.data),
			    "Put the container's files back as they were");
}

static uint64_t flags_to_open(const struct file *file)
{
	uint64_t flags = file->flags & ~(uint64_t)(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC);

	/* a file that was made without a name and was given one later */
	if ((flags & O_TMPFILE) == O_TMPFILE)
		flags &= ~(uint64_t)O_TMPFILE;
	return flags;
}

const struct file *file_reopens(const void *state)
{
	return state;
}

static const struct file *reopened_file(const struct object *object)
{
	return object->kind->reopens && object->fd < 0 ? object->kind->reopens(object->state)
						       : NULL;
}

/* Few enough for the limit on open files of any init. */
enum { MOST_AHEAD = 64 };

/* From the descriptors that the program's task has opened to ours; it closes them in its next run. */
static struct cr_error *fetch_ahead(struct restore *restore, struct object **opened,
				    const int *calls, size_t count)
{
	struct program *p = restore->program;
	int theirs[MOST_AHEAD], ours[MOST_AHEAD];

	for (size_t i = 0; i < count; i++)
		theirs[i] = (int)program_result(p, calls[i]);
	TRY(task_get_fds(p->tid, theirs, ours, count));
	for (size_t i = 0; i < count; i++) {
		opened[i]->fd = ours[i];
		program_call(p, "close a fetched descriptor", SYS_close, (uint64_t)theirs[i]);
	}
	return NULL;
}

struct cr_error *file_open_ahead(struct restore *restore, struct object **at)
{
	struct object **end =
		(struct object **)restore->image.objects.items + restore->image.objects.count;
	struct program *p = restore->program;
	struct object *opened[MOST_AHEAD];
	int calls[MOST_AHEAD];
	const struct file *file = reopened_file(*at);
	size_t count = 0;

	if (!file)
		return NULL;
	TRY(program_reserve(p, 1, file->path.len + 64));
	for (end = end - at < 4 * MOST_AHEAD ? end : at + 4 * MOST_AHEAD;
	     at < end && count < MOST_AHEAD; at++) {
		file = reopened_file(*at);
		if (!file)
			continue;
		if (!program_has_room(p, 1, file->path.len + 64))
			break;
		calls[count] = restore_append_open(restore, &file->path, flags_to_open(file));
		opened[count++] = *at;
	}
	TRY(program_run(p));
	return fetch_ahead(restore, opened, calls, count);
}

struct cr_error *file_reopen(struct restore *restore, struct object *object,
			     const struct file *file)
{
	if (object->fd < 0)
		TRY(restore_open(restore, &file->path, flags_to_open(file), &object->fd));
	TRY(check_type(object, file));
	return file_set_flags(object, file);
}
