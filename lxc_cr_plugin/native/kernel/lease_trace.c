/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lease_trace.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../proc.h"

#define EVENT	 "events/filelock/time_out_leases/enable"
#define INSTANCE "lxc-cr-%d"

struct lease_trace {
	int instances; /* the directory of all of them */
	int own;
	char name[32];
	bool addresses; /* it shows them as they are, since Linux 5.12 */
};

static struct cr_error *explain(const char *what)
{
	return error_remedy(error_new(CR_HOST, "Failed to %s: %m", what),
			    "Build the kernel with CONFIG_FTRACE and CONFIG_FILE_LOCKING; kernel "
			    "lockdown must not be \"confidentiality\"");
}

/* A mount that is in no mount namespace. */
static struct cr_error *mount_tracefs(int *ret)
{
	_cleanup_close_ int context = (int)syscall(SYS_fsopen, "tracefs", FSOPEN_CLOEXEC);

	if (context < 0 || syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return explain("open tracefs");
	*ret = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC,
			    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	return *ret < 0 ? explain("mount tracefs") : NULL;
}

static bool put(int dir, const char *name, const char *text)
{
	_cleanup_close_ int file = openat(dir, name, O_WRONLY | O_TRUNC | O_CLOEXEC);
	ssize_t len = (ssize_t)strlen(text);

	return file >= 0 && (!len || write(file, text, (size_t)len) == len);
}

/* What engines have left that were killed. */
static void remove_left_over(int instances)
{
	int copy = fcntl(instances, F_DUPFD_CLOEXEC, 0);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	const struct dirent *entry;
	int pid;

	if (!dir && copy >= 0)
		close(copy);
	while (dir && (entry = readdir(dir))) {
		if (sscanf(entry->d_name, INSTANCE, &pid) == 1 && kill(pid, 0) < 0 &&
		    errno == ESRCH)
			unlinkat(instances, entry->d_name, AT_REMOVEDIR);
	}
	if (dir)
		closedir(dir);
}

static struct cr_error *set_up(struct lease_trace *trace)
{
	_cleanup_close_ int root = -1;
	char pid[16];

	TRY(mount_tracefs(&root));
	trace->instances = openat(root, "instances", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (trace->instances < 0)
		return explain("open the instances of tracefs");
	remove_left_over(trace->instances);
	snprintf(trace->name, sizeof(trace->name), INSTANCE, getpid());
	if (mkdirat(trace->instances, trace->name, 0700) < 0 && errno != EEXIST)
		return explain("make an instance in tracefs");
	trace->own = openat(trace->instances, trace->name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (trace->own < 0)
		return explain("open an instance in tracefs");
	snprintf(pid, sizeof(pid), "%d", getpid());
	trace->addresses = put(trace->own, "options/hash-ptr", "0");
	if (!put(trace->own, "set_event_pid", pid) || !put(trace->own, EVENT, "1"))
		return explain("trace leases");
	return NULL;
}

struct cr_error *lease_trace_open(struct lease_trace **ret)
{
	struct lease_trace *trace = calloc(1, sizeof(*trace));
	struct cr_error *error;

	if (!trace)
		return error_nomem();
	trace->instances = trace->own = -1;
	error = set_up(trace);
	if (error)
		lease_trace_close(trace);
	else
		*ret = trace;
	return error;
}

void lease_trace_close(struct lease_trace *trace)
{
	if (!trace)
		return;
	if (trace->own >= 0) {
		put(trace->own, EVENT, "0");
		close(trace->own);
		unlinkat(trace->instances, trace->name, AT_REMOVEDIR);
	}
	if (trace->instances >= 0)
		close(trace->instances);
	free(trace);
}

static uint64_t number_behind(const char *line, const char *key, int base)
{
	const char *found = strstr(line, key);

	return found ? strtoull(found + strlen(key), NULL, base) : 0;
}

static void parse(const char *line, struct kernel_lock *ret)
{
	ret->flags = KERNEL_FL_LEASE;
	if (strstr(line, "FL_DOWNGRADE_PENDING"))
		ret->flags |= KERNEL_FL_DOWNGRADE_PENDING;
	if (strstr(line, "FL_UNLOCK_PENDING"))
		ret->flags |= KERNEL_FL_UNLOCK_PENDING;
	ret->type = strstr(line, "fl_type=F_WRLCK") ? F_WRLCK : F_RDLCK;
	ret->break_time = number_behind(line, "fl_break_time=", 10);
	ret->downgrade_time = number_behind(line, "fl_downgrade_time=", 10);
}

struct cr_error *lease_trace_read(struct lease_trace *trace, int fd, uint64_t file,
				  struct pool *pool, struct kernel_lock *ret)
{
	const char *found = NULL;
	size_t leases = 0;
	char *text, *rest;

	if (!put(trace->own, "trace", ""))
		return error_sys("Failed to clear a trace of leases");
	if (fcntl(fd, F_GETLEASE) < 0)
		return error_sys("Failed to ask for a lease");
	TRY(proc_read(trace->own, "trace", pool, &text, NULL));
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (!strstr(line, " time_out_leases: "))
			continue;
		leases++;
		if (!file || !trace->addresses || number_behind(line, "fl_owner=", 16) == file)
			found = line;
	}
	/* several, of which none is to be told from the others */
	if (!found || (file && !trace->addresses && leases != 1))
		return error_new(CR_GONE, "The trace does not tell a lease");
	parse(found, ret);
	return NULL;
}
