/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "wait.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "../clock_ns.h"
#include "../kernel/waits.h"
#include "process.h"
#include "socket_wait.h"

enum { ERESTARTNOHAND = 514 };

/* How a call is told when to end: by an argument, or by an option of the socket that it waits at. */
enum timeout { NONE, MILLISECONDS, TIMESPEC, TIMEVAL, RECEIVING, SENDING };

static const struct call {
	long nr;
	int arg; /* the one that tells, or that is the socket */
	enum timeout timeout;
} calls[] = {
	{SYS_epoll_wait, 3, MILLISECONDS},
	{SYS_epoll_pwait, 3, MILLISECONDS},
	{SYS_epoll_pwait2, 3, TIMESPEC},
	{SYS_rt_sigtimedwait, 2, TIMESPEC},
	{SYS_semtimedop, 3, TIMESPEC},
	{SYS_semop, 0, NONE},
	{SYS_io_getevents, 4, TIMESPEC},
	{SYS_io_pgetevents, 4, TIMESPEC},
	/* when the kernel could not write what is left to where the time-out is */
	{SYS_ppoll, 2, TIMESPEC},
	{SYS_pselect6, 4, TIMESPEC},
	{SYS_select, 4, TIMEVAL},
	{SYS_read, 0, RECEIVING},
	{SYS_readv, 0, RECEIVING},
	{SYS_preadv2, 0, RECEIVING},
	{SYS_recvfrom, 0, RECEIVING},
	{SYS_recvmsg, 0, RECEIVING},
	{SYS_recvmmsg, 0, RECEIVING},
	{SYS_accept, 0, RECEIVING},
	{SYS_accept4, 0, RECEIVING},
	{SYS_splice, 0, RECEIVING},
	{SYS_write, 0, SENDING},
	{SYS_writev, 0, SENDING},
	{SYS_pwritev2, 0, SENDING},
	{SYS_sendto, 0, SENDING},
	{SYS_sendmsg, 0, SENDING},
	{SYS_sendmmsg, 0, SENDING},
	{SYS_sendfile, 0, SENDING},
	{SYS_connect, 0, SENDING},
};

static bool is_of_socket(const struct call *call)
{
	return call->timeout == RECEIVING || call->timeout == SENDING;
}

/* When interrupted, these note what is left where the time-out is. */
static bool notes_what_is_left(const struct call *call)
{
	return call->nr == SYS_ppoll || call->nr == SYS_pselect6 || call->nr == SYS_select;
}

static const struct call *find_call(int64_t nr)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (calls[i].nr == nr)
			return &calls[i];
	}
	return NULL;
}

/* ---- what a program would have seen without a stop ---- */

bool wait_is_ours_to_hide(const struct thread *thread, const struct arch_regs *regs)
{
	/* job control has interrupted the call before we came */
	return arch_result(regs) == -EINTR && find_call(arch_syscall_nr(regs)) &&
	       !process_is_stopped(thread->process);
}

/*
 * Whether a handler will run is known when the thread is let go, not before: a timer may fire, and
 * anybody may send a signal, until then. So the kernel decides, as it does for calls such as
 * pause(2): EINTR after a handler, whatever its SA_RESTART, else the call is entered again.
 */
void wait_hide(struct arch_regs *regs)
{
	arch_set_result(regs, -ERESTARTNOHAND);
}

void wait_hide_all(struct dump *dump)
{
	const struct stopped_task *tasks = dump->stopped.tasks.items;

	for (size_t i = 0; i < dump->stopped.tasks.count; i++) {
		struct arch_regs regs;
		_cleanup_error_ struct cr_error *error = task_get_regs(tasks[i].tid, &regs);

		if (error || tasks[i].job_control || arch_result(&regs) != -EINTR ||
		    !find_call(arch_syscall_nr(&regs)))
			continue;
		wait_hide(&regs);
		error = task_set_regs(tasks[i].tid, &regs);
	}
}

/* ---- until when ---- */

struct cr_error *wait_prepare(struct dump *dump)
{
	const struct kernel_task *tasks = dump->kernel_tasks.items;
	bool wanted = false;

	for (size_t i = 0; !wanted && i < dump->kernel_tasks.count; i++) {
		const struct call *call = find_call(tasks[i].syscall);

		wanted =
			call && call->timeout != NONE && (!is_of_socket(call) || dump->has_sockets);
	}
	return wanted ? kernel_wait_reader_open(dump->btf, &dump->wait_reader) : NULL;
}

struct cr_error *wait_sample(struct dump *dump)
{
	return dump->wait_reader ? kernel_wait_reader_read(dump->wait_reader, dump->peek,
							   dump->image.pool, &dump->kernel_waits)
				 : NULL;
}

static int by_tid(const void *a, const void *b)
{
	int32_t x = ((const struct kernel_wait *)a)->tid, y = ((const struct kernel_wait *)b)->tid;

	return (x > y) - (x < y);
}

/* A wait that lasted from the look to the stop: the task has gone to sleep once since, in the stop. */
static bool was_sampled(const struct dump *dump, const struct thread *thread, uint64_t *deadline)
{
	const struct kernel_wait key = {.tid = thread->host_tid}, *found = NULL;

	if (dump->kernel_waits.count)
		found = bsearch(&key, dump->kernel_waits.items, dump->kernel_waits.count,
				sizeof(key), by_tid);
	if (!found || thread->kernel->switches != found->switches + 1)
		return false;
	*deadline = found->deadline;
	return true;
}

/* The time-out as the program gave it: *ns; false: without end. */
static struct cr_error *read_timeout(const struct thread *thread, const struct call *call,
				     const struct arch_regs *regs, bool *timed, uint64_t *ns)
{
	uint64_t arg = arch_syscall_arg(regs, call->arg);
	int64_t pair[2]; /* struct timespec, struct timeval */

	*timed = false;
	*ns = 0;
	if (call->timeout == MILLISECONDS) {
		*timed = (int32_t)arg >= 0;
		*ns = *timed ? (uint64_t)(int32_t)arg * 1000000u : 0;
	}
	if (call->timeout == NONE || call->timeout == MILLISECONDS || !arg)
		return NULL;
	TRY(task_read(thread->host_tid, arg, pair, sizeof(pair)));
	/* the kernel has looked at it; another thread may have changed it since */
	if (pair[0] < 0 || pair[0] > INT32_MAX || pair[1] < 0 || pair[1] >= 1000000000)
		return NULL;
	*timed = true;
	*ns = (uint64_t)pair[0] * 1000000000u +
	      (uint64_t)pair[1] * (call->timeout == TIMEVAL ? 1000u : 1u);
	return NULL;
}

/* A wait whose end must be told to the kernel anew. */
struct running_wait {
	pid_t tid, table;
	uint32_t syscall;
	uint64_t deadline;
	bool in_place;
};

static struct cr_error *note(struct dump *dump, const struct thread *thread,
			     const struct wait *wait)
{
	struct running_wait *running =
		list_append(dump->image.pool, &dump->waits, sizeof(*running));

	if (!running)
		return error_nomem();
	*running = (struct running_wait){
		.tid = thread->host_tid,
		.table = wait_table(thread),
		.syscall = wait->syscall,
		.deadline = dump->clocks.monotonic + wait->remaining,
		.in_place = wait->in_place,
	};
	return NULL;
}

struct cr_error *wait_dump(struct dump *dump, const struct thread *thread,
			   const struct arch_regs *regs, struct wait *ret)
{
	const struct call *call = find_call(arch_syscall_nr(regs));
	/* most others say so only when a stop has met them before they could go on after the last one */
	bool again = arch_result(regs) == -ERESTARTNOHAND && !process_is_stopped(thread->process);
	bool in_place = call && again && notes_what_is_left(call);
	uint64_t now = dump->clocks.monotonic, deadline = 0, timeout = 0;
	bool timed, sampled;

	if (!call || (!again && !wait_is_ours_to_hide(thread, regs)))
		return NULL;
	sampled = was_sampled(dump, thread, &deadline);
	if (is_of_socket(call))
		timed = sampled;
	else
		TRY(read_timeout(thread, call, regs, &timed, &timeout));
	if (!timed)
		return NULL;
	/* one that was not seen has begun since the look */
	if (!sampled)
		deadline = now + timeout;
	*ret = (struct wait){
		.syscall = (uint32_t)call->nr,
		.timed = true,
		.in_place = in_place,
		.remaining = deadline > now ? deadline - now : 0,
	};
	return note(dump, thread, ret);
}

/* ---- the call again, for a shorter time ---- */

/*
 * The program's own time-out may be constant, or shared, and is to be used again. What the kernel
 * reads at once, and nobody afterwards, can lie where the next signal frame would: that comes
 * instead of the call, never before it. No further away, for the stack may be small and something
 * else below it.
 */
static bool write_below_stack(pid_t tid, const struct arch_regs *regs, const int64_t pair[2],
			      uint64_t *address)
{
	enum { SIZE = 2 * sizeof(pair[0]) };
	_cleanup_error_ struct cr_error *error = NULL;

	*address = (arch_sp(regs) - ARCH_RED_ZONE - SIZE) & ~(uint64_t)(SIZE - 1);
	error = task_write(tid, *address, pair, SIZE);
	return !error;
}

bool wait_shorten(pid_t tid, struct arch_regs *regs, uint32_t syscall, uint64_t ns)
{
	const struct call *call = find_call(syscall);
	int64_t pair[2] = {(int64_t)(ns / 1000000000u), (int64_t)(ns % 1000000000u)};
	uint64_t value = ns / 1000000 < INT32_MAX ? (ns + 999999) / 1000000 : INT32_MAX;

	if (!call)
		return false;
	if (call->timeout == TIMEVAL)
		pair[1] = (pair[1] + 999) / 1000 % 1000000;
	if (call->timeout == NONE || is_of_socket(call) ||
	    (call->timeout != MILLISECONDS && !write_below_stack(tid, regs, pair, &value)))
		return true;
	arch_set_syscall_arg(regs, call->arg, value);
	return true;
}

struct cr_error *wait_rewrite(pid_t tid, const struct arch_regs *regs, uint32_t syscall,
			      uint64_t ns)
{
	const struct call *call = find_call(syscall);
	uint64_t fraction = ns % 1000000000u;
	int64_t pair[2] = {(int64_t)(ns / 1000000000u)};

	if (!call || (call->timeout != TIMESPEC && call->timeout != TIMEVAL))
		return NULL;
	pair[1] = (int64_t)(call->timeout == TIMEVAL ? fraction / 1000 : fraction);
	return task_write(tid, arch_syscall_arg(regs, call->arg), pair, sizeof(pair));
}

pid_t wait_table(const struct thread *thread)
{
	/* by unshare(2), or clone(2) without CLONE_FILES */
	return thread->own ? thread->host_tid : process_leader(thread->process)->host_tid;
}

int wait_socket(const struct arch_regs *regs, uint32_t syscall, int *option)
{
	const struct call *call = find_call(syscall);

	if (!call || !is_of_socket(call))
		return -1;
	*option = call->timeout == RECEIVING ? SO_RCVTIMEO : SO_SNDTIMEO;
	return (int)arch_syscall_arg(regs, call->arg);
}

static struct cr_error *resume(const struct running_wait *wait)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC),
		 left = wait->deadline > now ? wait->deadline - now : 0;
	struct arch_regs regs;
	int option, fd;

	TRY(task_get_regs(wait->tid, &regs));
	if (wait->in_place)
		return wait_rewrite(wait->tid, &regs, wait->syscall, left);
	fd = wait_socket(&regs, wait->syscall, &option);
	if (fd >= 0)
		return socket_wait_release(wait->tid, wait->table, fd, option, left);
	wait_shorten(wait->tid, &regs, wait->syscall, left);
	return task_set_regs(wait->tid, &regs);
}

void wait_resume(struct dump *dump)
{
	const struct running_wait *wait = dump->waits.items;

	/* whoever is gone needs nothing more */
	for (size_t i = 0; i < dump->waits.count; i++)
		cr_error_free(resume(wait + i));
	dump->waits.count = 0;
}
