/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From descriptors to open file descriptions, each saved once however many descriptors show it. */
#include "file.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <search.h>
#include <string.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "../known_paths.h"
#include "../locks.h"
#include "../outsiders.h"
#include "file_owner.h"

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

static struct cr_error *read_fdinfo(int proc, int fd, struct descriptor *ret)
{
	char name[32], text[4096];
	_cleanup_close_ int info = -1;
	ssize_t len;
	char *line;

	snprintf(name, sizeof(name), "fdinfo/%d", fd);
	info = openat(proc, name, O_RDONLY | O_CLOEXEC);
	len = info < 0 ? -1 : read(info, text, sizeof(text) - 1);
	if (len <= 0)
		return errno == ENOENT ? error_new(CR_GONE, "Descriptor %d is gone", fd)
				       : error_sys("Failed to read /proc/PID/%s", name);
	text[len] = '\0';
	if (strncmp(text, "pos:", 4))
		return error_new(CR_INTERNAL, "Failed to parse /proc/PID/%s", name);
	ret->position = strtoull(text + 4, NULL, 10);
	line = strstr(text, "\nflags:");
	if (!line)
		return error_new(CR_INTERNAL, "Failed to parse /proc/PID/%s", name);
	ret->flags = strtoull(line + 7, NULL, 8);
	ret->locked = strstr(text, "\nlock:") != NULL;
	return NULL;
}

struct cr_error *descriptor_look(struct dump *dump, struct process *process, int fd,
				 struct descriptor *ret)
{
	char name[32];

	*ret = (struct descriptor){.process = process, .fd = fd};
	TRY(read_fdinfo(process->proc, fd, ret));
	snprintf(name, sizeof(name), "fd/%d", fd);
	if (fstatat(process->proc, name, &ret->stat, 0) < 0)
		return errno == ENOENT ? error_new(CR_GONE, "Descriptor %d is gone", fd)
				       : error_sys("Failed to look at descriptor %d", fd);
	return proc_link(process->proc, name, dump->image.pool, &ret->path);
}

const char *descriptor_name(struct dump *dump, const struct descriptor *descriptor)
{
	return image_text(&dump->image, "descriptor %d (%s) of process %d (%s)", descriptor->fd,
			  descriptor->path.data, descriptor->process->pid,
			  descriptor->process->stat.comm);
}

struct cr_error *descriptor_get(const struct descriptor *descriptor, int *ret)
{
	*ret = (int)syscall(SYS_pidfd_getfd, descriptor->process->pidfd, descriptor->fd, 0);
	return *ret < 0 ? error_sys("Failed to fetch descriptor %d", descriptor->fd) : NULL;
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
		{"socket:", "socket", "it is a socket"},
		{"anon_inode:[eventpoll]", "epoll", "it is an epoll instance"},
		{"anon_inode:[eventfd]", "eventfd", "it is an eventfd"},
		{"anon_inode:[timerfd]", "timerfd", "it is a timerfd"},
		{"anon_inode:[signalfd]", "signalfd", "it is a signalfd"},
		{"anon_inode:inotify", "inotify", "it is an inotify instance"},
		{"anon_inode:[pidfd]", "pidfd", "it is a pidfd"},
		{"anon_inode:[io_uring]", "io_uring", "it is an io_uring"},
		{"anon_inode:[userfaultfd]", "userfaultfd", "it is a userfaultfd"},
		{"/memfd:", "memfd", "it is a memfd"},
		{"pidfd:", "pidfd", "it is a pidfd"},
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
	if (descriptor.locked)
		TRY(locks_note(dump, &descriptor, NULL));
	return check(dump, &descriptor, &kind);
}

/* ---- identity ---- */

/* A node of the tree: one open file description and where it can be seen. */
struct seen {
	dev_t device;
	ino_t inode;
	pid_t pid;
	int fd;
	struct object *object;
};

static int three_way(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

/* The kernel gives open file descriptions an order, which makes finding one cheap: kcmp(2),
 * "EXAMPLES". */
static int compare_seen(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;
	int order = three_way(x->device, y->device);
	long compared;

	if (!order)
		order = three_way(x->inode, y->inode);
	if (order)
		return order;
	if (x->pid == y->pid && x->fd == y->fd)
		return 0;
	compared = syscall(SYS_kcmp, x->pid, y->pid, KCMP_FILE, x->fd, y->fd);
	return compared == 1 ? -1 : compared == 0 ? 0 : 1;
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
	file_dump(descriptor, object->state);
	TRY(file_dump_owner(descriptor, object->state));
	TRY(kind->dump_file(dump, descriptor, object->state));
	if (descriptor->locked)
		TRY(locks_note(dump, descriptor, object));
	*ret = object;
	return NULL;
}

struct cr_error *file_object(struct dump *dump, struct process *process, int fd,
			     struct object **ret, bool *cloexec)
{
	struct descriptor descriptor;
	struct seen *seen = pool_alloc(dump->image.pool, sizeof(*seen)), **found;

	if (!seen)
		return error_nomem();
	TRY(descriptor_look(dump, process, fd, &descriptor));
	*cloexec = descriptor.flags & O_CLOEXEC;
	seen->device = descriptor.stat.st_dev;
	seen->inode = descriptor.stat.st_ino;
	seen->pid = process->host_pid;
	seen->fd = fd;
	found = tsearch(seen, &dump->files, compare_seen);
	if (!found)
		return error_nomem();
	if (*found == seen)
		TRY(dump_new(dump, &descriptor, &seen->object));
	*ret = (*found)->object;
	return NULL;
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

struct cr_error *file_reopen(struct restore *restore, struct object *object,
			     const struct file *file)
{
	uint64_t flags = file->flags & ~(uint64_t)(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC);

	TRY(restore_open(restore, &file->path, flags, &object->fd));
	TRY(check_type(object, file));
	return file_set_flags(object, file);
}
