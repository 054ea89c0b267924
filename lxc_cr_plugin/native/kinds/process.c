/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../dump.h"
#include "../sharing.h"
#include "process.h"

static const struct field process_fields[] = {
	FIELD_INT(struct process_identity, pid, 1, MAX_TASKS, "process id in the container"),
	FIELD_INT(struct process_identity, ppid, 0, MAX_TASKS, "its parent's, 0: init"),
	FIELD_INT(struct process_identity, pgid, 0, MAX_TASKS,
		  "process group, 0: outside the container"),
	FIELD_INT(struct process_identity, sid, 0, MAX_TASKS, "session, 0: outside the container"),
	FIELD_INT(struct process_identity, exit_signal, 0, 64, "what the parent gets when it ends"),
	FIELD_UINT(struct process_identity, shared, 0, SHARES_ANYTHING,
		   "with the parent: 1 memory, 2 directories, 4 signal dispositions, 8 "
		   "descriptors, 16 semaphore adjustments"),
	FIELD_UINT(struct process_identity, stop_signal, 0, KERNEL_SIGNALS,
		   "what has stopped it, 0: it runs"),
	FIELD_BOOL(struct process_identity, stop_told, "the parent got its SIGCHLD for that"),
	FIELD_BOOL(struct process_identity, stop_waited,
		   "the parent has waited for the stop, with WUNTRACED"),
	FIELD_BOOL(struct process_identity, continued,
		   "the parent may still wait for its SIGCONT, with WCONTINUED"),
	FIELD_BOOL(struct process_identity, dead_leader,
		   "the first thread has ended, others run; what follows is about it"),
	FIELD_UINT(struct process_identity, leader_status, 0, 255, "its exit status"),
	FIELD_BYTES(struct process_identity, leader_comm, 15, "its name"),
	FIELD_END,
};

/* A zombie until the last thread ends, and then perhaps what wait(2) tells. */
static struct cr_error *dump_dead_leader(struct dump *dump, const struct process *process,
					 struct process_identity *identity)
{
	const struct kernel_task *leader = dump_kernel_task(dump, process->host_tgid);
	struct proc_stat stat;
	_cleanup_close_ int proc = -1;

	if (!leader)
		return error_new(CR_INTERNAL, "The first thread of process %d is nowhere",
				 process->pid);
	TRY(proc_open(leader->pid, leader->pid, &proc));
	TRY(proc_stat(proc, &stat));
	identity->dead_leader = true;
	identity->leader_status = (uint32_t)leader->exit_code >> 8 & 0xff;
	/* threads have none */
	identity->exit_signal = stat.exit_signal;
	identity->leader_comm.len = strnlen(stat.comm, 15);
	identity->leader_comm.data = (uint8_t *)pool_strndup(dump->image.pool, stat.comm, 15);
	return identity->leader_comm.data ? NULL : error_nomem();
}

bool signal_stops(uint32_t signal)
{
	return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

static bool is_stopped(const struct kernel_task *kernel)
{
	return kernel->signal_flags & KERNEL_STOPPED || kernel->group_stop_count > 0;
}

/* A stop that not all threads have come to yet will be complete when we let go. */
static void dump_job_control(const struct kernel_task *kernel, struct process_identity *identity)
{
	bool complete = kernel->signal_flags & KERNEL_STOPPED;

	identity->continued = kernel->signal_flags & KERNEL_CONTINUED;
	if (!is_stopped(kernel))
		return;
	identity->stop_signal = kernel->jobctl & KERNEL_STOP_SIGNAL;
	if (!signal_stops(identity->stop_signal))
		identity->stop_signal = SIGSTOP;
	identity->stop_told = complete;
	identity->stop_waited = complete && !kernel->group_exit_code;
}

bool process_is_stopped(const struct process *process)
{
	return is_stopped(process_leader(process)->kernel);
}

static struct cr_error *process_dump(struct dump *dump, struct process *process, void *state)
{
	struct process_identity *identity = state;
	const struct proc_status *status = &process_leader(process)->status;

	identity->pid = process->pid;
	identity->ppid = process->parent ? process->parent->pid : 0;
	identity->pgid = status->ns_pgid;
	identity->sid = status->ns_sid;
	identity->exit_signal = process->stat.exit_signal;
	identity->shared = sharing_with_parent(process);
	dump_job_control(process_leader(process)->kernel, identity);
	if (process->host_pid != process->host_tgid)
		return dump_dead_leader(dump, process, identity);
	return NULL;
}

static struct cr_error *refuse(struct process *process, const char *object, const char *what,
			       const char *remedy)
{
	struct cr_error *error = error_new(CR_UNSUPPORTED, "Process %d (%s) %s", process->pid,
					   process->stat.comm, what);

	error = error_task(error, process->pid, process->stat.comm);
	return error_remedy(error_object(error, object), "%s", remedy);
}

/* The stop lets the child of a vfork go on until its parent comes back: only who takes long is an
 * obstacle. */
static bool is_lasting_vfork(const struct process *process)
{
	enum { LONG_SECONDS = 1 };
	long ticks = sysconf(_SC_CLK_TCK);
	struct timespec now;

	if (!process_leader(process)->kernel->vfork_done)
		return false;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec > process->stat.start_time / (uint64_t)ticks + LONG_SECONDS;
}

static struct cr_error *check_vfork(struct process *process)
{
	if (!is_lasting_vfork(process))
		return NULL;
	return refuse(process, "vfork",
		      "was started by vfork(2), and its parent still waits for it",
		      "Try again when it has executed a program or ended");
}

static struct cr_error *process_check(struct dump *dump, struct process *process)
{
	(void)dump;
	return check_vfork(process);
}

const struct kind process_kind = {
	.name = "process",
	.doc = "Thread group: ids, parent, session, process group",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct process_identity),
	.fields = process_fields,
	.check_process = process_check,
	.dump_process = process_dump,
	/* restored by tree.c */
};
