/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pidfds: of processes and threads of the container, and of those that have been waited for. */
#include "pidfd.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "../cleanup.h"
#include "fdinfo.h"
#include "file.h"
#include "zombie.h"

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

/* linux/pidfd.h, as of Linux 6.15: what is known of a task that has been waited for. */
struct exit_info {
	uint64_t mask, cgroup;
	uint32_t pid, tgid, ppid, ids[8];
	int32_t exit_code;
};

enum { EXIT_INFO_MASK = 1 << 3 };
#define GET_EXIT_INFO _IOWR(0xFF, 11, struct exit_info)

struct pidfd {
	struct file file;
	int32_t pid;
	uint32_t exit_status;
};

static const struct field pidfd_fields[] = {
	FIELD_FILE(struct pidfd),
	FIELD_INT(
		struct pidfd, pid, 0, MAX_TASKS,
		"in the container; of a thread when flags has PIDFD_THREAD; 0: it has been waited "
		"for"),
	FIELD_UINT(struct pidfd, exit_status, 0, UINT16_MAX,
		   "of who has been waited for, as wait(2) gives it, 0: also when it is not known"),
	FIELD_END,
};

static bool pidfd_claims(const struct descriptor *descriptor)
{
	return !strcmp((char *)descriptor->path.data, "anon_inode:[pidfd]");
}

static struct cr_error *refuse_outsider(struct dump *dump, const struct descriptor *descriptor)
{
	struct cr_error *error = error_new(CR_ISOLATION,
					   "Cannot save %s: it stands for a process outside the "
					   "container",
					   descriptor_name(dump, descriptor));

	error = error_task(error, descriptor->process->pid, descriptor->process->stat.comm);
	return error_remedy(error_object(error, "pidfd"), "Let the process close the descriptor");
}

/* The number that our /proc shows comes first, then that of the next pid namespace: the container's. */
static struct cr_error *read_pid(struct dump *dump, const struct descriptor *descriptor,
				 int32_t *ret)
{
	const char *numbers;
	struct fdinfo info;
	char *end;
	long pid;

	*ret = 0;
	TRY(fdinfo_read(descriptor, &info));
	numbers = fdinfo_value(&info, "NSpid");
	if (!numbers)
		return error_new(CR_HOST, "This kernel does not tell the process of %s",
				 descriptor_name(dump, descriptor));
	pid = strtol(numbers, &end, 10);
	if (pid < 0)
		return NULL;
	*ret = (int32_t)strtol(end, NULL, 10);
	if (*end != '\t' || !dump_kernel_task(dump, (pid_t)pid))
		return refuse_outsider(dump, descriptor);
	return NULL;
}

static struct cr_error *pidfd_check(struct dump *dump, const struct descriptor *descriptor)
{
	int32_t pid;

	return read_pid(dump, descriptor, &pid);
}

static struct cr_error *pidfd_dump(struct dump *dump, const struct descriptor *descriptor,
				   void *state)
{
	struct pidfd *saved = state;
	struct exit_info info = {.mask = EXIT_INFO_MASK};
	_cleanup_close_ int fd = -1;

	TRY(read_pid(dump, descriptor, &saved->pid));
	if (saved->pid)
		return NULL;
	TRY(descriptor_get(descriptor, &fd));
	if (ioctl(fd, GET_EXIT_INFO, &info) == 0 && info.mask & EXIT_INFO_MASK)
		saved->exit_status = (uint32_t)info.exit_code & UINT16_MAX;
	return NULL;
}

/* ---- restart ---- */

/* A process that ends when all pidfds are open that showed the same dead one. */
struct departed {
	uint32_t status;
	pid_t pid, host_pid;
};

/* A child of init's, so that the container may ask about it. */
static struct cr_error *clone_departed(struct restore *restore, struct departed *departed)
{
	struct program *p = restore->program;
	struct clone_args args = {0};
	int call;

	TRY(program_reserve(p, 1, sizeof(args) + 64));
	call = program_call(p, "clone a process that ends", SYS_clone3,
			    program_data(p, &args, sizeof(args)), sizeof(args));
	TRY(program_run(p));
	if (p->children.count != 1)
		return error_new(CR_INTERNAL, "Lost sight of a process");
	departed->pid = (pid_t)program_result(p, call);
	departed->host_pid = *(pid_t *)p->children.items;
	return NULL;
}

static struct cr_error *depart(struct restore *restore, const struct pidfd *saved, pid_t *ret)
{
	const uint64_t inode = saved->file.inode;
	struct departed *departed = hash_find(&restore->departed_by_inode, inode, 0), **slot;

	if (departed) {
		*ret = departed->host_pid;
		return NULL;
	}
	departed = pool_alloc(restore->image.pool, sizeof(*departed));
	slot = list_append(restore->image.pool, &restore->departed, sizeof(*slot));
	if (!departed || !slot)
		return error_nomem();
	*slot = departed;
	TRY(hash_add(restore->image.pool, &restore->departed_by_inode, inode, 0, departed));
	departed->status = saved->exit_status;
	TRY(clone_departed(restore, departed));
	*ret = departed->host_pid;
	return NULL;
}

static struct cr_error *end_departed(struct restore *restore, const struct departed *departed)
{
	struct program *p = restore->program;
	struct rlimit none = {0};
	bool core;

	program_begin(p, departed->host_pid);
	program_call(p, "forbid a core dump", SYS_prlimit64, 0, RLIMIT_CORE,
		     program_data(p, &none, sizeof(none)), 0);
	TRY(program_run(p));
	TRY(zombie_end_as(restore, departed->host_pid, departed->status, &core));
	program_begin(p, restore->init);
	program_call(p, "wait for a process", SYS_wait4, (uint64_t)departed->pid, 0, __WALL, 0);
	return program_run(p);
}

struct cr_error *pidfd_finish(struct restore *restore)
{
	for_each (struct departed *, departed, &restore->departed)
		TRY(end_departed(restore, departed));
	return NULL;
}

/* Of a zombie, or of a process whose first thread has ended: any task of it tells. */
static struct cr_error *find_leader(struct restore *restore, const struct process *process,
				    pid_t *ret)
{
	pid_t tid = process_leader(process)->host_tid;
	_cleanup_close_ int proc = -1;
	struct proc_status status;

	TRY(proc_open(tid, tid, &proc));
	TRY(proc_status(proc, restore->image.pool, &status));
	*ret = status.tgid;
	return NULL;
}

static struct cr_error *find_task(struct restore *restore, const struct pidfd *saved, pid_t *ret)
{
	const struct thread *thread = image_thread(&restore->image, saved->pid);
	const struct process *process = image_process(&restore->image, saved->pid);

	if (thread) {
		*ret = thread->host_tid;
		return NULL;
	}
	if (process)
		return find_leader(restore, process, ret);
	return error_new(CR_IMAGE, "A pidfd stands for task %d, which is not in the image",
			 saved->pid);
}

static struct cr_error *pidfd_restore(struct restore *restore, struct object *object,
				      const void *state)
{
	const struct pidfd *saved = state;
	pid_t pid = 0;

	if (saved->pid)
		TRY(find_task(restore, saved, &pid));
	else
		TRY(depart(restore, saved, &pid));
	object->fd =
		(int)syscall(SYS_pidfd_open, pid, saved->file.flags & (PIDFD_THREAD | O_NONBLOCK));
	if (object->fd < 0)
		return error_sys("Failed to open pidfd %u of task %d", object->id, saved->pid);
	return NULL;
}

const struct kind pidfd_kind = {
	.name = "pidfd",
	.doc = "Pidfd: of a task of the container, or of one that has been waited for",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct pidfd),
	.fields = pidfd_fields,
	.claims = pidfd_claims,
	.check_file = pidfd_check,
	.dump_file = pidfd_dump,
	.restore_file = pidfd_restore,
};
