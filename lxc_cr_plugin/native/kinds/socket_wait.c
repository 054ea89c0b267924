/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "socket_wait.h"

#include <sys/socket.h>
#include <sys/time.h>

#include "../cleanup.h"
#include "registers.h"
#include "restart_block.h"
#include "wait.h"

struct cr_error *socket_wait_release(pid_t tid, pid_t table, int fd, int option, uint64_t ns)
{
	/* no time at all would be no limit */
	uint64_t us = ns / 1000 ? ns / 1000 : 1;
	struct timeval left = {.tv_sec = (time_t)(us / 1000000),
			       .tv_usec = (suseconds_t)(us % 1000000)};
	struct timeval old;
	socklen_t len = sizeof(old);
	_cleanup_close_ int socket = -1;
	struct cr_error *error;
	bool due;

	/* the handler ends the call, and would run before the others do */
	TRY(task_handler_is_due(tid, &due));
	if (due)
		return NULL;
	TRY(task_get_fd(table, fd, &socket));
	if (getsockopt(socket, SOL_SOCKET, option, &old, &len) < 0 ||
	    setsockopt(socket, SOL_SOCKET, option, &left, sizeof(left)) < 0)
		return error_sys("Failed to set the time-out of a socket");
	error = task_detach(tid, 0);
	if (!error)
		error = task_wait_asleep(tid);
	if (setsockopt(socket, SOL_SOCKET, option, &old, sizeof(old)) < 0 && !error)
		error = error_sys("Failed to put back the time-out of a socket");
	return error;
}

/* The descriptor that the thread waits at; -1: it does not wait like that. */
static int socket_of(const struct thread *thread, struct arch_regs *regs, int *option)
{
	const struct wait *wait = thread_state(thread, &restart_block_kind);
	_cleanup_error_ struct cr_error *error = NULL;

	if (!wait || !wait->timed)
		return -1;
	error = registers_of(thread, regs);
	return error ? -1 : wait_socket(regs, wait->syscall, option);
}

size_t socket_waits_count(const struct restore *restore)
{
	struct arch_regs regs;
	size_t count = 0;
	int option;

	for_each (struct process *, process, &restore->image.processes) {
		for_each (struct thread *, thread, &process->threads)
			count += socket_of(thread, &regs, &option) >= 0;
	}
	return count;
}

static struct cr_error *release(struct restore *restore, const struct thread *thread)
{
	const struct wait *wait = thread_state(thread, &restart_block_kind);
	struct arch_regs regs;
	int option, fd = socket_of(thread, &regs, &option);

	if (fd < 0)
		return NULL;
	return error_wrap(socket_wait_release(thread->host_tid, wait_table(thread), fd, option,
					      restore_left(restore, wait->remaining)),
			  "Failed to let thread %d wait at descriptor %d", thread->tid, fd);
}

struct cr_error *socket_waits_restore(struct restore *restore)
{
	for_each (struct process *, process, &restore->image.processes) {
		for_each (struct thread *, thread, &process->threads)
			TRY(release(restore, thread));
	}
	return NULL;
}
