/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "file_owner.h"

#include <fcntl.h>
#include <sys/syscall.h>

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

/* The thread that @host is, its process's leader for F_OWNER_PID and F_OWNER_PGRP. */
static const struct thread *find_thread(const struct image *image, pid_t tid, bool on_host)
{
	for_each (struct process *, process, &image->processes) {
		for_each (struct thread *, thread, &process->threads) {
			if ((on_host ? thread->host_tid : thread->tid) == tid)
				return thread;
		}
	}
	return NULL;
}

struct cr_error *file_resolve_owner(struct dump *dump, struct object *object)
{
	struct file *file = object->state;
	const struct thread *owner;

	if (!file->owner)
		return NULL;
	owner = find_thread(&dump->image, file->owner, true);
	/* an owner that has ended, or lives outside, gets nothing */
	file->owner = owner ? owner->tid : 0;
	return NULL;
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
	const struct thread *thread =
		file->owner ? find_thread(&restore->image, file->owner, false) : NULL;
	struct f_owner_ex owner = {.type = (int)file->owner_type};

	if (thread)
		owner.pid = thread->host_tid;
	if (thread && set_owner_as(object->fd, &owner, file) < 0)
		return error_sys("Failed to set the owner of '%s'", file->path.data);
	if (file->signal && fcntl(object->fd, F_SETSIG, file->signal) < 0)
		return error_sys("Failed to set the signal of '%s'", file->path.data);
	if (file->flags & O_ASYNC &&
	    fcntl(object->fd, F_SETFL, fcntl(object->fd, F_GETFL) | O_ASYNC) < 0)
		return error_sys("Failed to switch on signals for '%s'", file->path.data);
	return NULL;
}
