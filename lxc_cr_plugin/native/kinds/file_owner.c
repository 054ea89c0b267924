/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "file_owner.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../cleanup.h"

#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS 17
#endif

/* Few files are, and what nobody ever set reads as zeros. */
static bool is_owned(const struct kernel_file *file)
{
	return file->owner || file->owner_signal || file->owner_uid || file->owner_euid;
}

struct cr_error *file_dump_owner(const struct descriptor *descriptor, struct file *file)
{
	_cleanup_close_ int fd = -1;
	struct f_owner_ex owner;
	uint32_t uids[2];
	int signal;

	if (descriptor->flags & O_PATH || !is_owned(descriptor->kernel))
		return NULL;
	TRY(descriptor_get(descriptor, &fd));
	signal = fcntl(fd, F_GETSIG);
	if (signal < 0 || fcntl(fd, F_GETOWN_EX, &owner) < 0 ||
	    fcntl(fd, F_GETOWNER_UIDS, uids) < 0)
		return error_sys("Failed to read the owner of descriptor %d", descriptor->fd);
	file->signal = (uint32_t)signal;
	file->owner = owner.pid;
	file->owner_type = (uint32_t)owner.type;
	file->owner_uid = uids[0];
	file->owner_euid = uids[1];
	return NULL;
}

/* ---- whom a number means, by type: groups and processes outlive the thread that they are named by ---- */

static pid_t in_container(const struct image *image, uint32_t type, pid_t number)
{
	const struct process *process;
	const struct thread *thread;

	switch (type) {
	case F_OWNER_PGRP:
		process = image_group_member(image, number);
		return process ? process_leader(process)->status.ns_pgid : 0;
	case F_OWNER_PID: process = image_living(image, number); return process ? process->pid : 0;
	default: thread = image_thread(image, number); return thread ? thread->tid : 0;
	}
}

struct cr_error *file_resolve_owner(struct dump *dump, struct object *object)
{
	struct file *file = object->state;
	pid_t on_host = file->owner;

	if (!on_host)
		return NULL;
	file->owner = in_container(&dump->image, file->owner_type, on_host);
	/* an owner that has ended, or lives outside, gets nothing */
	if (!file->owner)
		log_say(&dump->log, CR_WARNING,
			"Signals about '%s' go to %s %d of the host, which has ended or is outside "
			"the container; after a restart they go to nobody",
			file->path.data, file->owner_type == F_OWNER_PGRP ? "group" : "process",
			on_host);
	return NULL;
}

static pid_t group_on_host(const struct restore *restore, pid_t pgid)
{
	const struct process *process = image_group_member(&restore->image, pgid);

	return process ? getpgid(process_leader(process)->host_tid) : 0;
}

static struct cr_error *process_on_host(struct restore *restore, pid_t pid, pid_t *ret)
{
	struct process *process = image_living(&restore->image, pid);

	if (!process)
		return NULL;
	/* who stands for a dead leader has another number */
	TRY(restore_status(restore, process_leader(process)));
	*ret = process_leader(process)->status.tgid;
	return NULL;
}

static pid_t thread_on_host(const struct restore *restore, pid_t tid)
{
	const struct thread *thread = image_thread(&restore->image, tid);

	return thread ? thread->host_tid : 0;
}

static struct cr_error *find_owner(struct restore *restore, const struct file *file, pid_t *ret)
{
	*ret = 0;
	switch (file->owner_type) {
	case F_OWNER_PGRP: *ret = group_on_host(restore, file->owner); break;
	case F_OWNER_PID: TRY(process_on_host(restore, file->owner, ret)); break;
	default: *ret = thread_on_host(restore, file->owner);
	}
	if (*ret > 0)
		return NULL;
	return error_new(CR_IMAGE, "Signals about '%s' are to go to %s %d, which is not there",
			 file->path.data, file->owner_type == F_OWNER_PGRP ? "group" : "process",
			 file->owner);
}

/* The kernel checks signals against the ids of who set the owner: set it under theirs, in this
 * thread only. */
static int set_owner_as(int fd, const struct f_owner_ex *owner, const struct file *file)
{
	int failed;

	if (syscall(SYS_setresuid, file->owner_uid, file->owner_euid, 0) < 0)
		return -1;
	failed = fcntl(fd, F_SETOWN_EX, owner);
	return syscall(SYS_setresuid, 0, 0, 0) < 0 ? -1 : failed;
}

struct cr_error *file_restore_owner(struct restore *restore, struct object *object)
{
	const struct file *file = object->state;
	struct f_owner_ex owner = {.type = (int)file->owner_type};

	if (file->owner)
		TRY(find_owner(restore, file, &owner.pid));
	if (file->owner && set_owner_as(object->fd, &owner, file) < 0)
		return error_sys("Failed to set the owner of '%s'", file->path.data);
	if (file->signal && fcntl(object->fd, F_SETSIG, file->signal) < 0)
		return error_sys("Failed to set the signal of '%s'", file->path.data);
	if (file->flags & O_ASYNC &&
	    fcntl(object->fd, F_SETFL, fcntl(object->fd, F_GETFL) | O_ASYNC) < 0)
		return error_sys("Failed to switch on signals for '%s'", file->path.data);
	return NULL;
}
