/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job_control.h"

#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kinds/process.h"

/* Everything is blocked, and a child's end or stop has become pending: whoever ignores a signal
 * loses it. */
struct cr_error *job_control_forget(struct restore *restore, const struct process *parent,
				    int signal)
{
	struct kernel_sigaction ignore = {.handler = (uint64_t)SIG_IGN}, reset = {0};
	struct program *p = restore->program;

	/* nobody survives a child that sends SIGKILL, and SIGSTOP is never only pending */
	if (!signal || signal == SIGKILL || signal == SIGSTOP)
		return NULL;
	restore_begin(restore, parent);
	program_call(p, "forget a signal", SYS_rt_sigaction, (uint64_t)signal,
		     program_data(p, &ignore, sizeof(ignore)), 0, sizeof(uint64_t));
	program_call(p, "reset a signal", SYS_rt_sigaction, (uint64_t)signal,
		     program_data(p, &reset, sizeof(reset)), 0, sizeof(uint64_t));
	return program_run(p);
}

static struct cr_error *send_signal(pid_t tid, int signal)
{
	return kill(tid, signal) < 0 ? error_sys("Failed to send signal %d", signal) : NULL;
}

/* The signal is put in place of the breakpoint's that the task stands in. *done: it has stopped. */
static struct cr_error *stop_by(struct restore *restore, pid_t tid, int signal, bool *done)
{
	struct kernel_sigaction action = {0};
	struct program *p = restore->program;
	struct stop stop;

	program_begin(p, tid);
	if (signal == SIGSTOP)
		program_call(p, "stand", SYS_getpid);
	else
		program_call(p, "reset a signal", SYS_rt_sigaction, (uint64_t)signal,
			     program_data(p, &action, sizeof(action)), 0, sizeof(uint64_t));
	TRY(program_run(p));
	TRY(task_set_mask(tid, 0));
	/* should the kernel ignore it, the task must not run on behind the breakpoint */
	TRY(task_interrupt(tid));
	TRY(task_continue(tid, signal));
	TRY(task_wait(tid, &stop));
	*done = stop.reason == STOP_GROUP;
	return task_set_mask(tid, SIGNALS_BUT_TRAP);
}

static struct cr_error *stop(struct restore *restore, const struct process *process, int signal)
{
	pid_t tid = process_leader(process)->host_tid;
	bool done = false;

	if (!signal_stops((uint32_t)signal))
		return error_new(CR_IMAGE, "Process %d cannot be stopped by signal %d",
				 process->pid, signal);
	TRY(stop_by(restore, tid, signal, &done));
	/* the others do not stop an orphaned process group, nor init */
	if (!done)
		TRY(stop_by(restore, tid, SIGSTOP, &done));
	return done ? NULL : error_new(CR_INTERNAL, "Process %d does not stop", process->pid);
}

/* As the parent has done. */
static struct cr_error *wait_for_stop(struct restore *restore, const struct process *process)
{
	struct program *p = restore->program;
	int call;

	restore_begin(restore, process->parent);
	call = program_call(p, "wait for a stopped child", SYS_wait4, (uint64_t)process->pid, 0,
			    WUNTRACED | WNOHANG | __WALL, 0);
	TRY(program_run(p));
	return program_result(p, call) == process->pid
		       ? NULL
		       : error_new(CR_INTERNAL, "The stop of process %d cannot be waited for",
				   process->pid);
}

/* Until its parent asks, the kernel remembers that a process was stopped and goes on. */
static struct cr_error *stop_and_continue(struct restore *restore, const struct process *process)
{
	pid_t tid = process_leader(process)->host_tid;
	struct stop stopped;

	TRY(stop(restore, process, SIGSTOP));
	TRY(send_signal(tid, SIGCONT));
	TRY(task_interrupt(tid));
	do {
		TRY(task_continue(tid, 0));
		TRY(task_wait(tid, &stopped));
	} while (stopped.reason != STOP_TRAP);
	return job_control_forget(restore, process, SIGCONT);
}

static struct cr_error *restore_one(struct restore *restore, const struct process *process,
				    bool told)
{
	const struct process_identity *identity = process_state(process, &process_kind);

	/* the kernel tells the parent that it goes on, which was long ago */
	if (told && identity->continued && process->parent)
		TRY(stop_and_continue(restore, process));
	if (!identity->stop_signal || identity->stop_told != told)
		return NULL;
	TRY(stop(restore, process, (int)identity->stop_signal));
	return identity->stop_waited && process->parent ? wait_for_stop(restore, process) : NULL;
}

static bool was_told(const struct process *process)
{
	const struct process_identity *identity = process_state(process, &process_kind);

	return process->parent && (identity->continued || identity->stop_told);
}

struct cr_error *job_control_restore(struct restore *restore)
{
	const struct list *processes = &restore->image.processes;

	for_each (struct process *, first, processes)
		TRY(error_task(restore_one(restore, first, true), first->pid, ""));
	for_each (struct process *, process, processes) {
		if (was_told(process))
			TRY(job_control_forget(restore, process->parent, SIGCHLD));
	}
	/* what was about to be told is told */
	for_each (struct process *, last, processes)
		TRY(error_task(restore_one(restore, last, false), last->pid, ""));
	return NULL;
}
