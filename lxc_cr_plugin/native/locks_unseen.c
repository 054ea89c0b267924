/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks that neither a descriptor nor a mapping shows. What belongs to an open file description
 * outlives both where a message on its way keeps the description: only /proc/locks tells. It shows no
 * description, and a pid that may be dead or that it keeps to itself. All of it is rare.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "cleanup.h"
#include "locks.h"

struct unseen {
	pid_t pid; /* -1: it does not say */
	unsigned int major, minor;
	unsigned long inode;
};

/* A line of /proc/locks; false: of no interest. POSIX locks go with a descriptor of their file. */
static bool parse(const char *line, struct unseen *ret)
{
	char sort[12];

	/* who waits has an arrow in its line */
	if (sscanf(line, "%*u: %11s %*s %*s %d %x:%x:%lu", sort, &ret->pid, &ret->major,
		   &ret->minor, &ret->inode) != 5)
		return false;
	return !strcmp(sort, "FLOCK") || !strcmp(sort, "OFDLCK") || !strcmp(sort, "LEASE");
}

static bool is_outside(struct dump *dump, pid_t pid)
{
	return pid > 0 && !dump_kernel_task(dump, pid) && kill(pid, 0) == 0;
}

static bool has_open(struct dump *dump, pid_t pid, const struct unseen *lock)
{
	struct list numbers = {0};
	_cleanup_close_ int proc = -1;
	_cleanup_error_ struct cr_error *error = proc_open(pid, pid, &proc);

	if (!error)
		error = proc_numbers(proc, "fd", dump->image.pool, &numbers);
	for (size_t i = 0; !error && i < numbers.count; i++) {
		char name[32];
		struct stat stat;

		snprintf(name, sizeof(name), "fd/%d", ((int *)numbers.items)[i]);
		if (fstatat(proc, name, &stat, 0) == 0 && stat.st_ino == lock->inode &&
		    major(stat.st_dev) == lock->major && minor(stat.st_dev) == lock->minor)
			return true;
	}
	return false;
}

/*
 * A lock stays when its maker has ended and somebody else has the descriptor; the maker's number may
 * since have become that of a process of the container.
 */
static struct cr_error *is_held_outside(struct dump *dump, const struct unseen *lock, bool *held)
{
	_cleanup_close_ int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct list pids = {0};

	*held = false;
	if (proc < 0)
		return error_sys("Failed to open /proc");
	TRY(proc_numbers(proc, ".", dump->image.pool, &pids));
	for (size_t i = 0; !*held && i < pids.count; i++) {
		pid_t pid = ((int *)pids.items)[i];

		*held = !dump_kernel_task(dump, pid) && has_open(dump, pid, lock);
	}
	return NULL;
}

static struct cr_error *refuse_unseen(struct dump *dump, const struct unseen *lock)
{
	struct cr_error *error = error_new(
		CR_UNSUPPORTED,
		"Process %d of the host has locked a file (inode %lu) that no descriptor shows",
		lock->pid, lock->inode);

	for_each (struct process *, process, &dump->image.processes) {
		if (process->host_tgid == lock->pid)
			error = error_task(error, process->pid, process->stat.comm);
	}
	return error_remedy(error_object(error, "file_lock"),
			    "A message on its way holds it; let it be received");
}

static struct cr_error *judge(struct dump *dump, const struct unseen *lock)
{
	bool held;

	if (!dump_kernel_task(dump, lock->pid))
		return NULL;
	TRY(is_held_outside(dump, lock, &held));
	if (held)
		return NULL;
	return dump_refuse(dump, refuse_unseen(dump, lock));
}

/* Lines of /proc/locks that nothing of the container explains, nor a process outside. */
static struct cr_error *read_unseen(struct dump *dump, struct list *ret)
{
	_cleanup_close_ int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char *text, *rest;

	if (proc < 0)
		return error_sys("Failed to open /proc");
	TRY(proc_read(proc, "locks", dump->image.pool, &text, NULL));
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		struct unseen lock = {0}, *slot;

		if (!parse(line, &lock) || is_outside(dump, lock.pid) ||
		    locks_noted(dump, lock.inode))
			continue;
		slot = list_append(dump->image.pool, ret, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = lock;
	}
	return NULL;
}

struct cr_error *locks_check_unseen(struct dump *dump)
{
	struct list locks = {0};
	const struct unseen *lock;

	TRY(read_unseen(dump, &locks));
	lock = locks.items;
	for (size_t i = 0; i < locks.count; i++)
		TRY(judge(dump, &lock[i]));
	return NULL;
}
