/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "task.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "../cleanup.h"
#include "../clock_ns.h"
#include "../proc.h"

static struct cr_error *ptrace_failed(pid_t tid, const char *what)
{
	if (errno == ESRCH)
		return error_new(CR_GONE, "Failed to %s task %d: it is gone", what, tid);
	return error_sys("Failed to %s task %d", what, tid);
}

struct cr_error *task_seize(pid_t tid, unsigned long options)
{
	if (ptrace(PTRACE_SEIZE, tid, 0, options) < 0)
		return ptrace_failed(tid, "seize");
	return NULL;
}

struct cr_error *task_set_options(pid_t tid, unsigned long options)
{
	if (ptrace(PTRACE_SETOPTIONS, tid, 0, options) < 0)
		return ptrace_failed(tid, "set trace options of");
	return NULL;
}

struct cr_error *task_interrupt(pid_t tid)
{
	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0)
		return ptrace_failed(tid, "interrupt");
	return NULL;
}

/* Job control stops are told from traps by their signal: ptrace(2), "Group-stop". */
static enum stop_reason event_reason(int event, int signal)
{
	switch (event) {
	case PTRACE_EVENT_FORK:
	case PTRACE_EVENT_VFORK:
	case PTRACE_EVENT_CLONE: return STOP_NEW_TASK;
	case PTRACE_EVENT_EXEC: return STOP_EXEC;
	case PTRACE_EVENT_STOP: return signal == SIGTRAP ? STOP_TRAP : STOP_GROUP;
	case 0: return signal == (SIGTRAP | 0x80) ? STOP_SYSCALL : STOP_SIGNAL;
	default: return STOP_OTHER;
	}
}

static struct cr_error *stop_from_status(pid_t tid, int status, struct stop *ret)
{
	unsigned long message = 0;

	if (!WIFSTOPPED(status))
		return error_new(CR_GONE, "Task %d ended while it was being stopped (%s %d)", tid,
				 WIFSIGNALED(status) ? "signal" : "exit status",
				 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	ret->signal = WSTOPSIG(status);
	ret->reason = event_reason(status >> 16, ret->signal);
	ret->child = 0;
	if (ret->reason == STOP_NEW_TASK) {
		if (ptrace(PTRACE_GETEVENTMSG, tid, 0, &message) < 0)
			return ptrace_failed(tid, "read the trace event of");
		ret->child = (pid_t)message;
	}
	return NULL;
}

bool task_is_dead(pid_t tid)
{
	struct proc_stat stat;
	_cleanup_close_ int proc = -1;
	_cleanup_error_ struct cr_error *error = proc_open(tid, tid, &proc);

	if (!error)
		error = proc_stat(proc, &stat);
	return error || strchr("ZXx", stat.state);
}

bool task_is_in_trap(pid_t tid)
{
	siginfo_t info;

	return !ptrace(PTRACE_GETSIGINFO, tid, 0, &info) && info.si_code >> 8 == PTRACE_EVENT_STOP;
}

struct cr_error *task_wait(pid_t tid, struct stop *ret)
{
	int status;

	while (waitpid(tid, &status, __WALL) < 0) {
		if (errno == ECHILD)
			return error_new(CR_GONE, "Task %d is gone", tid);
		if (errno != EINTR)
			return error_sys("Failed to wait for task %d", tid);
	}
	return stop_from_status(tid, status, ret);
}

struct cr_error *task_wait_for(pid_t tid, uint64_t timeout_ns, struct stop *ret)
{
	uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + timeout_ns;
	struct timespec pause = {.tv_nsec = 2000};

	for (;;) {
		int status;
		pid_t got = waitpid(tid, &status, __WALL | WNOHANG);

		if (got == tid)
			return stop_from_status(tid, status, ret);
		if (got < 0 && errno == ECHILD)
			return error_new(CR_GONE, "Task %d is gone", tid);
		if (got < 0 && errno != EINTR)
			return error_sys("Failed to wait for task %d", tid);
		if (clock_ns(CLOCK_MONOTONIC) > deadline)
			return error_remedy(
				error_new(CR_HOST, "Task %d did not stop in time", tid),
				"It sleeps uninterruptibly in the kernel (state D: a vfork in "
				"progress, or slow storage); try again when it has come back");
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 1000000)
			pause.tv_nsec *= 2;
	}
}

/* Time that it has had on a processor, ns; 0: this kernel does not tell. */
static uint64_t time_run(int proc)
{
	char text[64] = "";
	_cleanup_close_ int file = openat(proc, "schedstat", O_RDONLY | O_CLOEXEC);

	if (file < 0 || read(file, text, sizeof(text) - 1) <= 0)
		return 0;
	return strtoull(text, NULL, 10);
}

/*
 * On a busy machine it may be long until a task runs at all, so it is not a time of the clock that
 * says that it has passed by: it takes microseconds to enter a call again. A wait on the way there
 * that nothing interrupts (D) is not the one.
 */
struct cr_error *task_wait_asleep(pid_t tid)
{
	enum { ENOUGH = 1000000, PATIENCE = 2000000000, LONGEST_PAUSE = 500000 };
	uint64_t begin = clock_ns(CLOCK_MONOTONIC), before;
	struct timespec pause = {.tv_nsec = 1000};
	_cleanup_close_ int proc = -1;

	TRY(proc_open(tid, tid, &proc));
	before = time_run(proc);
	for (;;) {
		struct proc_stat stat;

		TRY(proc_stat(proc, &stat));
		if (!strchr("RD", stat.state) || time_run(proc) - before > ENOUGH ||
		    clock_ns(CLOCK_MONOTONIC) - begin > PATIENCE)
			return NULL;
		/* it may need the processor that we are on */
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < LONGEST_PAUSE)
			pause.tv_nsec *= 2;
	}
}

struct cr_error *task_handler_is_due(pid_t tid, bool *ret)
{
	_cleanup_close_ int proc = -1;

	TRY(proc_open(tid, tid, &proc));
	return proc_handler_is_due(proc, ret);
}

struct cr_error *task_continue(pid_t tid, int signal)
{
	if (ptrace(PTRACE_CONT, tid, 0, signal) < 0)
		return ptrace_failed(tid, "continue");
	return NULL;
}

struct cr_error *task_detach(pid_t tid, int signal)
{
	if (ptrace(PTRACE_DETACH, tid, 0, signal) < 0)
		return ptrace_failed(tid, "release");
	return NULL;
}

struct cr_error *task_get_regs(pid_t tid, struct arch_regs *ret)
{
	struct iovec iov = {.iov_base = &ret->user, .iov_len = sizeof(ret->user)};

	if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &iov) < 0)
		return ptrace_failed(tid, "read the registers of");
	if (iov.iov_len != sizeof(ret->user))
		return error_remedy(
			error_object(error_new(CR_UNSUPPORTED, "Task %d runs 32-bit code", tid),
				     "registers"),
			"Not supported: end it, or use the same program for 64 bits");
	return NULL;
}

struct cr_error *task_set_regs(pid_t tid, const struct arch_regs *regs)
{
	struct iovec iov = {.iov_base = (void *)&regs->user, .iov_len = sizeof(regs->user)};

	if (ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &iov) < 0)
		return ptrace_failed(tid, "set the registers of");
	return NULL;
}

struct cr_error *task_get_xstate(pid_t tid, struct pool *pool, struct bytes *ret)
{
	uint8_t buffer[ARCH_XSTATE_MAX];
	struct iovec iov = {.iov_base = buffer, .iov_len = sizeof(buffer)};

	if (ptrace(PTRACE_GETREGSET, tid, ARCH_XSTATE_REGSET, &iov) < 0)
		return ptrace_failed(tid, "read the extended registers of");
	ret->data = pool_memdup(pool, buffer, iov.iov_len);
	ret->len = iov.iov_len;
	return ret->data ? NULL : error_nomem();
}

struct cr_error *task_set_xstate(pid_t tid, const struct bytes *xstate)
{
	struct iovec iov = {.iov_base = xstate->data, .iov_len = xstate->len};

	if (ptrace(PTRACE_SETREGSET, tid, ARCH_XSTATE_REGSET, &iov) < 0)
		return ptrace_failed(tid, "set the extended registers of");
	return NULL;
}

struct cr_error *task_get_mask(pid_t tid, uint64_t *ret)
{
	if (ptrace(PTRACE_GETSIGMASK, tid, sizeof(*ret), ret) < 0)
		return ptrace_failed(tid, "read the signal mask of");
	return NULL;
}

struct cr_error *task_set_mask(pid_t tid, uint64_t mask)
{
	if (ptrace(PTRACE_SETSIGMASK, tid, sizeof(mask), &mask) < 0)
		return ptrace_failed(tid, "set the signal mask of");
	return NULL;
}

struct cr_error *task_read(pid_t tid, uint64_t address, void *buffer, size_t len)
{
	struct iovec local = {.iov_base = buffer, .iov_len = len};
	struct iovec remote = {.iov_base = (void *)address, .iov_len = len};
	ssize_t got = process_vm_readv(tid, &local, 1, &remote, 1, 0);

	if (got < 0)
		return ptrace_failed(tid, "read memory of");
	if ((size_t)got != len)
		return error_errno(EFAULT, "Failed to read memory of task %d at 0x%lx", tid,
				   (unsigned long)address);
	return NULL;
}

struct cr_error *task_write(pid_t tid, uint64_t address, const void *buffer, size_t len)
{
	struct iovec local = {.iov_base = (void *)buffer, .iov_len = len};
	struct iovec remote = {.iov_base = (void *)address, .iov_len = len};
	ssize_t put = process_vm_writev(tid, &local, 1, &remote, 1, 0);

	if (put < 0)
		return ptrace_failed(tid, "write memory of");
	if ((size_t)put != len)
		return error_errno(EFAULT, "Failed to write memory of task %d at 0x%lx", tid,
				   (unsigned long)address);
	return NULL;
}

struct cr_error *task_settle(pid_t tid)
{
	struct stop stop;

	TRY(task_interrupt(tid));
	do {
		TRY(task_continue(tid, 0));
		TRY(task_wait(tid, &stop));
	} while (!stop_is_trap(&stop));
	return NULL;
}

/* Run to the next system call stop: entry or exit. An interrupt that was still on its way is passed
 * by. */
static struct cr_error *to_syscall_stop(pid_t tid)
{
	struct stop stop;

	do {
		if (ptrace(PTRACE_SYSCALL, tid, 0, 0) < 0)
			return ptrace_failed(tid, "continue");
		TRY(task_wait(tid, &stop));
	} while (stop_is_trap(&stop));
	if (stop.reason != STOP_SYSCALL)
		return error_new(CR_INTERNAL, "Task %d stopped for signal %d in a remote call", tid,
				 stop.signal);
	return NULL;
}

struct cr_error *task_syscall(pid_t tid, uint64_t insn, long nr, const uint64_t args[6],
			      int64_t *result)
{
	struct arch_regs saved, regs;

	TRY(task_get_regs(tid, &saved));
	regs = saved;
	arch_set_syscall(&regs, insn, nr, args);
	TRY(task_set_regs(tid, &regs));
	TRY(to_syscall_stop(tid));
	TRY(to_syscall_stop(tid));
	TRY(task_get_regs(tid, &regs));
	*result = arch_result(&regs);
	return task_set_regs(tid, &saved);
}
