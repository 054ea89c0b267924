/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "outsiders.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"

/* A pipe or socket of the container and the first descriptor that shows it. */
struct noted_pipe {
	ino_t inode;
	const char *name;
	pid_t pid;
	const char *comm;
	bool socket;
};

static bool may_be_shared(mode_t mode)
{
	return S_ISFIFO(mode) || S_ISSOCK(mode);
}

static int by_inode(const void *a, const void *b)
{
	const struct noted_pipe *x = a, *y = b;

	return (x->inode > y->inode) - (x->inode < y->inode);
}

struct cr_error *outsiders_note(struct dump *dump, const struct descriptor *descriptor)
{
	struct noted_pipe *noted;

	if (!may_be_shared(descriptor->stat.st_mode) || descriptor->path.data[0] == '/')
		return NULL;
	noted = list_append(dump->image.pool, &dump->pipes, sizeof(*noted));
	if (!noted)
		return error_nomem();
	noted->inode = descriptor->stat.st_ino;
	noted->name = descriptor_name(dump, descriptor);
	noted->pid = descriptor->process->pid;
	noted->comm = descriptor->process->stat.comm;
	noted->socket = S_ISSOCK(descriptor->stat.st_mode);
	return NULL;
}

static struct cr_error *refuse(struct dump *dump, const struct noted_pipe *pipe, pid_t outsider)
{
	const char *what = pipe->socket ? "socket" : "pipe";
	struct proc_stat stat = {.comm = "?"};
	_cleanup_close_ int proc = -1;
	struct cr_error *error = proc_open(outsider, outsider, &proc);

	if (!error)
		error = proc_stat(proc, &stat);
	cr_error_free(error);
	error = error_new(CR_ISOLATION,
			  "Cannot save %s: process %d of the host (%s), which is outside the "
			  "container, holds the %s too",
			  pipe->name, outsider, stat.comm, what);
	error = error_task(error_object(error, what), pipe->pid, pipe->comm);
	return dump_refuse(dump, error_remedy(error,
					      "Start the program without a %s to the "
					      "outside: with its output in a file, or on a "
					      "terminal of the container",
					      what));
}

/* One descriptor of a process outside. */
static struct cr_error *check_descriptor(struct dump *dump, int proc, int fd, pid_t pid)
{
	struct noted_pipe key = {0};
	const struct noted_pipe *found;
	char name[32];
	struct stat stat;

	snprintf(name, sizeof(name), "fd/%d", fd);
	if (fstatat(proc, name, &stat, 0) < 0 || !may_be_shared(stat.st_mode))
		return NULL;
	key.inode = stat.st_ino;
	found = bsearch(&key, dump->pipes.items, dump->pipes.count, sizeof(key), by_inode);
	return found ? refuse(dump, found, pid) : NULL;
}

/* A child of the container that was born after we listed its tasks; the stop will meet it. */
static bool is_newborn(const struct dump *dump, int proc)
{
	struct stat stat;

	return fstatat(proc, "ns/pid", &stat, 0) == 0 && stat.st_ino == dump->namespaces[0];
}

static struct cr_error *check_process(struct dump *dump, pid_t pid)
{
	struct list numbers = {0};
	_cleanup_close_ int proc = -1;
	struct cr_error *error = proc_open(pid, pid, &proc);

	if (!error && is_newborn(dump, proc))
		return NULL;
	if (!error)
		error = proc_numbers(proc, "fd", dump->image.pool, &numbers);
	if (error) {
		/* it has ended, or is the kernel's */
		cr_error_free(error);
		return NULL;
	}
	for (size_t i = 0; i < numbers.count; i++)
		TRY(check_descriptor(dump, proc, ((int *)numbers.items)[i], pid));
	return NULL;
}

struct cr_error *outsiders_check(struct dump *dump)
{
	_cleanup_close_ int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct list pids = {0};

	if (!dump->pipes.count)
		return NULL;
	qsort(dump->pipes.items, dump->pipes.count, sizeof(struct noted_pipe), by_inode);
	if (proc < 0)
		return error_sys("Failed to open /proc");
	TRY(proc_numbers(proc, ".", dump->image.pool, &pids));
	for (size_t i = 0; i < pids.count; i++) {
		pid_t pid = ((int *)pids.items)[i];

		if (!dump_kernel_task(dump, pid) && pid != getpid())
			TRY(check_process(dump, pid));
	}
	return NULL;
}
