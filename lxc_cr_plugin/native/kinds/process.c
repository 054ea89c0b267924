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
	identity->shared = process->shared;
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

/* As tree.c has it: born in its parent's session, as that was before or after its own setsid(2). */
static bool is_adopted(const struct process *process)
{
	const struct process *parent = process->parent;

	if (!parent || process->stat.session == process->host_tgid ||
	    process->stat.session == parent->stat.session)
		return false;
	return !parent->parent || process->stat.session != parent->parent->stat.session ||
	       parent->stat.session != parent->host_tgid;
}

static bool has_adopted(const struct process *process)
{
	for_each (struct process *, child, &process->children) {
		if (is_adopted(child))
			return true;
	}
	return false;
}

static const struct process *leader_of(const struct dump *dump, int session)
{
	for_each (struct process *, process, &dump->image.processes) {
		if (process->host_tgid == session)
			return process;
	}
	return NULL;
}

/*
 * An orphan is born in its session and given to the nearest reaper above: that must be who has
 * adopted it. Without a leader the reaper makes the session itself.
 */
static struct cr_error *check_session(struct dump *dump, struct process *process)
{
	const struct process *above;

	if (!is_adopted(process))
		return NULL;
	above = leader_of(dump, process->stat.session);
	if (!above)
		return NULL;
	do {
		above = above->parent;
	} while (above && above->parent && !has_adopted(above));
	if (above == process->parent)
		return NULL;
	return refuse(process, "session",
		      "was adopted by a process that is not above the leader of its session",
		      "Not supported yet; start the program with setsid");
}

static struct cr_error *check_threads(struct process *process)
{
	const struct kernel_task *leader = process_leader(process)->kernel;

	for_each (struct thread *, thread, &process->threads) {
		if (thread->kernel->files != leader->files || thread->kernel->fs != leader->fs)
			return refuse(process, "unshared_thread",
				      "has a thread with descriptors or directories of its own",
				      "unshare(2) in a thread is not supported yet");
	}
	return NULL;
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

static struct cr_error *check_sharing(struct dump *dump, struct process *process)
{
	const char *what = process->stray;

	/* a vfork in progress shares memory, and will be over */
	if (dump->running && process_leader(process)->kernel->vfork_done)
		return NULL;
	if (!what && process->shared && is_adopted(process))
		what = "something";
	if (!what)
		return NULL;
	return refuse(
		process, "shared_process",
		image_text(&dump->image, "shares %s with a process that is not its parent", what),
		"Not supported yet; end one of them");
}

static struct cr_error *process_check(struct dump *dump, struct process *process)
{
	TRY(check_threads(process));
	TRY(check_session(dump, process));
	TRY(check_vfork(process));
	return check_sharing(dump, process);
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
