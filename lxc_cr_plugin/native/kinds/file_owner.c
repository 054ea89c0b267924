/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "file_owner.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../cleanup.h"
#include "process.h"

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

static pid_t group_in_container(const struct image *image, pid_t pgrp)
{
	for_each (struct process *, process, &image->processes) {
		if (process->stat.pgrp == pgrp)
			return process_leader(process)->status.ns_pgid;
	}
	return 0;
}

static pid_t process_in_container(const struct image *image, pid_t tgid)
{
	for_each (struct process *, process, &image->processes) {
		if (process->host_tgid == tgid)
			return process->pid;
	}
	return 0;
}

static pid_t thread_in_container(const struct image *image, pid_t tid)
{
	for_each (struct process *, process, &image->processes) {
		for_each (struct thread *, thread, &process->threads) {
			if (thread->host_tid == tid)
				return thread->tid;
		}
	}
	return 0;
}

struct cr_error *file_resolve_owner(struct dump *dump, struct object *object)
{
	struct file *file = object->state;
	pid_t on_host = file->owner;

	if (!on_host)
		return NULL;
	switch (file->owner_type) {
	case F_OWNER_PGRP: file->owner = group_in_container(&dump->image, on_host); break;
	case F_OWNER_PID: file->owner = process_in_container(&dump->image, on_host); break;
	default: file->owner = thread_in_container(&dump->image, on_host);
	}
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
	for_each (struct process *, process, &restore->image.processes) {
		const struct process_identity *identity = process_state(process, &process_kind);

		if (identity->pgid == pgid)
			return getpgid(process_leader(process)->host_tid);
	}
	return 0;
}

static struct cr_error *process_on_host(struct restore *restore, pid_t pid, pid_t *ret)
{
	struct process *process = image_process(&restore->image, pid);

	if (!process || !process->memory)
		return NULL;
	/* who stands for a dead leader has another number */
	TRY(restore_status(restore, process_leader(process)));
	*ret = process_leader(process)->status.tgid;
	return NULL;
}

static pid_t thread_on_host(const struct restore *restore, pid_t tid)
{
	for_each (struct process *, process, &restore->image.processes) {
		for_each (struct thread *, thread, &process->threads) {
			if (thread->tid == tid)
				return thread->host_tid;
		}
	}
	return 0;
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
