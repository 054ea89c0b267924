/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lease_outside.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cleanup.h"
#include "../clock_ns.h"
#include "../kernel/lease_trace.h"
#include "../shown_lock.h"

enum { SECOND = 1000000000 };

/* *ret: list of struct shown_lock: leases on this host that are being broken. */
static struct cr_error *read_breaking(struct restore *restore, struct list *ret)
{
	char *text, *rest;

	TRY(proc_read(AT_FDCWD, "/proc/locks", restore->image.pool, &text, NULL));
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		struct shown_lock lease, *slot;

		if (!shown_lock_parse(line, &lease) || !lease.breaking || lease.waits)
			continue;
		slot = list_append(restore->image.pool, ret, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = lease;
	}
	return NULL;
}

struct cr_error *leases_outside_look(struct restore *restore)
{
	if (restore->leases_outside_since)
		return NULL;
	restore->leases_outside_since = clock_ns(CLOCK_MONOTONIC);
	return read_breaking(restore, &restore->leases_outside);
}

static bool is_old(const struct restore *restore, const struct shown_lock *lease)
{
	const struct shown_lock *old = restore->leases_outside.items;

	for (size_t i = 0; i < restore->leases_outside.count; i++) {
		if (!strcmp(old[i].text, lease->text))
			return true;
	}
	return false;
}

static bool is_ours(const struct restore *restore, const struct shown_lock *lease)
{
	for_each (struct process *, process, &restore->image.processes) {
		if (process_leader(process)->host_tid == lease->pid)
			return true;
	}
	return false;
}

/* The descriptor by which a process holds the lease; -1: another process does, or none any more. */
static int find_descriptor(struct restore *restore, const struct shown_lock *lease, int proc)
{
	_cleanup_error_ struct cr_error *error = NULL;
	struct list numbers = {0};

	error = proc_numbers(proc, "fd", restore->image.pool, &numbers);
	for (size_t i = 0; !error && i < numbers.count; i++) {
		int fd = ((int *)numbers.items)[i];
		char name[32], *info;

		snprintf(name, sizeof(name), "fdinfo/%d", fd);
		error = proc_read(proc, name, restore->image.pool, &info, NULL);
		if (!error && strstr(info, lease->text))
			return fd;
		cr_error_free(error);
		error = NULL;
	}
	return -1;
}

/* What is left of the lease behind @fd, ns from now. */
static struct cr_error *read_left(struct restore *restore, int fd, uint64_t *ret)
{
	struct lease_trace *trace = NULL;
	struct kernel_peek *peek = NULL;
	struct kernel_lock lease = {0};
	struct kernel_tick last;
	struct cr_error *error = kernel_peek_open(NULL, &peek);

	if (!error)
		error = lease_trace_open(&trace);
	/* whichever description holds it: all leases on a file are broken together */
	if (!error)
		error = lease_trace_read(trace, fd, 0, restore->image.pool, &lease);
	if (!error)
		error = kernel_last_tick(peek, &last);
	if (!error) {
		bool down = lease.flags & KERNEL_FL_DOWNGRADE_PENDING;
		uint64_t end =
			kernel_tick_to_ns(&last, down ? lease.downgrade_time : lease.break_time);

		*ret = end > last.ns ? end - last.ns : 0;
	}
	lease_trace_close(trace);
	kernel_peek_close(peek);
	return error;
}

static struct cr_error *read_whole(struct restore *restore, uint64_t *ret)
{
	char *text;

	TRY(proc_read(AT_FDCWD, "/proc/sys/fs/lease-break-time", restore->image.pool, &text, NULL));
	*ret = strtoul(text, NULL, 10) * SECOND;
	return NULL;
}

/* @fd: ours, of the same open file. */
static struct cr_error *judge(struct restore *restore, const struct shown_lock *lease,
			      const char *who, const char *path, int fd)
{
	enum { SLACK = SECOND / 10 };
	uint64_t left = 0, whole,
		 passed = clock_ns(CLOCK_MONOTONIC) - restore->leases_outside_since;
	struct cr_error *error = read_left(restore, fd, &left);

	TRY(read_whole(restore, &whole));
	if (error)
		log_say(&restore->log, CR_WARNING,
			"Somebody has begun to break the lease of %s on '%s' meanwhile; it may "
			"have "
			"got a time that was meant for the container: %s",
			who, path, error->message);
	else if (left > whole + SLACK || left + passed + SLACK < whole)
		log_say(&restore->log, CR_WARNING,
			"Somebody broke the lease of %s on '%s' (inode %lu) just when "
			"lease-break-time was the container's: it has %lu.%03lu s left, of %lu s",
			who, path, lease->inode, left / SECOND, left % SECOND / 1000000,
			whole / SECOND);
	cr_error_free(error);
	return NULL;
}

static struct cr_error *tell(struct restore *restore, const struct shown_lock *lease)
{
	const char *who = proc_name(lease->pid, restore->image.pool);
	_cleanup_close_ int proc = -1, fd = -1;
	struct bytes path;
	char name[32];
	int number;

	TRY(proc_open(lease->pid, lease->pid, &proc));
	number = find_descriptor(restore, lease, proc);
	if (number < 0)
		return NULL; /* it is over already */
	snprintf(name, sizeof(name), "fd/%d", number);
	TRY(proc_link(proc, name, restore->image.pool, &path));
	TRY(task_get_fd(lease->pid, number, &fd));
	return judge(restore, lease, who, (char *)path.data, fd);
}

void leases_outside_tell(struct restore *restore)
{
	struct list now = {0};
	const struct shown_lock *lease;

	if (!restore->leases_outside_since)
		return;
	cr_error_free(read_breaking(restore, &now));
	lease = now.items;
	for (size_t i = 0; i < now.count; i++) {
		/* who has ended, or has given it back, has no lease any more */
		if (!is_old(restore, &lease[i]) && !is_ours(restore, &lease[i]))
			cr_error_free(tell(restore, &lease[i]));
	}
}
