/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ptrace, one thread at a time. A target can die or be killed at any moment, so every call may
 * return CR_GONE; all of them must come from the thread that seized.
 */
#ifndef CR_TASK_H
#define CR_TASK_H

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/types.h>

#include "../error.h"
#include "../pool.h"
#include "arch/x86_64.h"

/* What a stop was for. */
enum stop_reason {
	STOP_TRAP,   /* PTRACE_INTERRUPT or the first stop of a new child */
	STOP_GROUP,  /* job control: SIGSTOP, SIGTSTP... */
	STOP_SIGNAL, /* a signal is about to be delivered */
	STOP_SYSCALL,
	STOP_NEW_TASK, /* fork, vfork or clone; the new thread is in stop.child */
	STOP_EXEC,
	STOP_OTHER,
};

struct stop {
	enum stop_reason reason;
	int signal;
	pid_t child;
};

/* What PTRACE_INTERRUPT leads to; in a stopped process its signal is that of job control. */
static inline bool stop_is_trap(const struct stop *stop)
{
	return stop->reason == STOP_TRAP || stop->reason == STOP_GROUP;
}

/* @options: PTRACE_O_...; in force from the first instant on. */
struct cr_error *task_seize(pid_t tid, unsigned long options);
struct cr_error *task_set_options(pid_t tid, unsigned long options);
struct cr_error *task_interrupt(pid_t tid);

/* It has ended, or is about to: nobody can seize it. */
bool task_is_dead(pid_t tid);
/* It stands where PTRACE_INTERRUPT or job control has brought it, as a tracee of ours. */
bool task_is_in_trap(pid_t tid);

/* Blocks until the task stops. */
struct cr_error *task_wait(pid_t tid, struct stop *ret);
/* The same, for at most @timeout_ns: CR_HOST when it has not stopped by then. */
struct cr_error *task_wait_for(pid_t tid, uint64_t timeout_ns, struct stop *ret);

/* Blocks until the running task sleeps in the kernel, or has run for longer than that takes. */
struct cr_error *task_wait_asleep(pid_t tid);

/* Does a signal wait for the stopped task that it has a handler for? */
struct cr_error *task_handler_is_due(pid_t tid, bool *ret);

struct cr_error *task_continue(pid_t tid, int signal);
struct cr_error *task_detach(pid_t tid, int signal);

struct cr_error *task_get_regs(pid_t tid, struct arch_regs *ret);
struct cr_error *task_set_regs(pid_t tid, const struct arch_regs *regs);
/* Floating point, vector and whatever else XSAVE knows. */
struct cr_error *task_get_xstate(pid_t tid, struct pool *pool, struct bytes *ret);
struct cr_error *task_set_xstate(pid_t tid, const struct bytes *xstate);

#define SIGNALS_BUT_TRAP (~(1ull << (SIGTRAP - 1)))

struct cr_error *task_get_mask(pid_t tid, uint64_t *ret);
struct cr_error *task_set_mask(pid_t tid, uint64_t mask);

/* All of @len or an error. */
struct cr_error *task_read(pid_t tid, uint64_t address, void *buffer, size_t len);
struct cr_error *task_write(pid_t tid, uint64_t address, const void *buffer, size_t len);

/* To a stop from which the kernel itself decides how an interrupted system call goes on: the
 * registers that are set there count. */
struct cr_error *task_settle(pid_t tid);

/* One system call by the instruction at @insn, the registers put back; *result is negative errno on
 * failure. */
struct cr_error *task_syscall(pid_t tid, uint64_t insn, long nr, const uint64_t args[6],
			      int64_t *result);

#endif
