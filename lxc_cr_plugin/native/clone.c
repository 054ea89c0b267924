/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "clone.h"

#include <linux/sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "cleanup.h"
#include "kinds/process.h"
#include "kinds/scheduler.h"
#include "sharing.h"

/* What the threads of a process always have in common. */
enum { THREAD_FLAGS = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM };

static const struct process_identity *identity_of(const struct process *process)
{
	return process_state(process, &process_kind);
}

static void clone_as(struct program *p, const char *what, pid_t tid, uint64_t flags,
		     int exit_signal)
{
	struct clone_args args = {
		.flags = flags,
		.exit_signal = (uint64_t)exit_signal,
		.set_tid_size = tid != 0,
	};

	if (tid)
		args.set_tid = program_data(p, &tid, sizeof(tid));
	program_call(p, what, SYS_clone3, program_data(p, &args, sizeof(args)), sizeof(args));
}

static struct cr_error *pid_taken(struct cr_error *error)
{
	if (error && error->errnum == EPERM)
		return error_remedy(error,
				    "The container may not choose pids: it needs CAP_SYS_ADMIN or "
				    "CAP_CHECKPOINT_RESTORE (see lxc.cap.drop)");
	return error;
}

struct cr_error *clone_prepare(struct restore *restore, const struct thread *child)
{
	uint64_t slack = scheduler_default_slack(child);

	TRY(program_reserve(restore->program, 2, 256));
	/* its own comes back when everybody stands; who has a real-time policy has none to give */
	if (slack)
		program_call(restore->program, "set the timer slack that a clone begins with",
			     SYS_prctl, PR_SET_TIMERSLACK, slack);
	return NULL;
}

struct cr_error *clone_process(struct restore *restore, pid_t pid, uint64_t flags, int exit_signal,
			       pid_t *ret)
{
	struct program *p = restore->program;

	TRY(program_reserve(p, 1, 256));
	clone_as(p, image_text(&restore->image, "clone process %d", pid), pid, flags, exit_signal);
	TRY(pid_taken(program_run(p)));
	if (p->children.count != 1)
		return error_new(CR_INTERNAL, "Lost sight of process %d", pid);
	*ret = *(pid_t *)p->children.items;
	return NULL;
}

struct cr_error *clone_end_helper(struct restore *restore, const struct helper *helper)
{
	struct program *p = restore->program;
	struct cr_error *error;

	program_begin(p, helper->host_pid);
	program_call(p, "end a helper", SYS_exit_group, 0);
	error = program_run(p);
	if (error && error->code != CR_GONE)
		return error;
	cr_error_free(error);
	program_begin(p, helper->parent);
	program_call(p, "wait for a helper", SYS_wait4, (uint64_t)helper->pid, 0, __WALL, 0);
	return program_run(p);
}

struct cr_error *clone_set_reaper(struct restore *restore, const struct process *process, bool on)
{
	restore_begin(restore, process);
	program_call(restore->program, "become a subreaper", SYS_prctl, PR_SET_CHILD_SUBREAPER, on,
		     0, 0, 0);
	return program_run(restore->program);
}

/* ---- the plan, step by step ---- */

/* By a helper of its maker's, which ends: births.h. */
static struct cr_error *make_adopted(struct restore *restore, struct thread *maker,
				     struct thread *child)
{
	struct helper helper = {.pid = restore->spare_pid, .parent = maker->host_tid};
	struct process *process = child->process, *parent = process->parent;
	bool reaper = !parent->parent || parent->adopter;
	struct program *p = restore->program;
	uint64_t everything = 0;

	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++)
		everything |= sharing_flag(sort);
	if (!reaper)
		TRY(clone_set_reaper(restore, parent, true));
	program_begin(p, maker->host_tid);
	TRY(clone_process(restore, helper.pid, everything, 0, &helper.host_pid));
	program_begin(p, helper.host_pid);
	TRY(clone_prepare(restore, child));
	TRY(clone_process(restore, process->pid, births_flags(maker, child),
			  identity_of(process)->exit_signal, &child->host_tid));
	TRY(clone_end_helper(restore, &helper));
	return reaper ? NULL : clone_set_reaper(restore, parent, false);
}

static struct cr_error *make_thread(struct restore *restore, struct thread *maker,
				    struct thread *child)
{
	struct program *p = restore->program;

	program_begin(p, maker->host_tid);
	TRY(clone_prepare(restore, child));
	clone_as(p, "clone a thread", child->tid, THREAD_FLAGS | births_flags(maker, child), 0);
	TRY(pid_taken(program_run(p)));
	if (p->children.count != 1)
		return error_new(CR_INTERNAL, "Lost sight of thread %d", child->tid);
	child->host_tid = *(pid_t *)p->children.items;
	return NULL;
}

static struct cr_error *make(struct restore *restore, struct thread *maker, struct thread *child)
{
	struct process *process = child->process;
	bool sibling = child->birth->way == BIRTH_SIBLING;
	uint64_t flags = births_flags(maker, child);

	child->birth->made = true;
	if (child->birth->way == BIRTH_THREAD)
		return make_thread(restore, maker, child);
	process->has_memory = flags & CLONE_VM;
	if (maker->process != process->parent)
		process->mother = maker->process;
	if (child->birth->way == BIRTH_ADOPTED)
		return make_adopted(restore, maker, child);
	program_begin(restore->program, maker->host_tid);
	TRY(clone_prepare(restore, child));
	return clone_process(restore, process->pid, flags | (sibling ? CLONE_PARENT : 0),
			     sibling ? 0 : identity_of(process)->exit_signal, &child->host_tid);
}

static struct cr_error *give_up(struct restore *restore, const struct thread *thread,
				uint64_t flags)
{
	program_begin(restore->program, thread->host_tid);
	program_call(restore->program, "stop sharing", SYS_unshare, flags);
	return program_run(restore->program);
}

static struct cr_error *make_from(struct restore *restore, struct thread *maker,
				  enum birth_stage stage)
{
	uint64_t flags;
	bool more;

	do {
		more = false;
		for_each (struct thread *, child, &maker->birth->makes) {
			if (child->birth->made || births_stage(child) != stage ||
			    !births_is_ready(maker, child))
				continue;
			TRY(make(restore, maker, child));
			more = true;
		}
		flags = births_give_up(maker);
		if (flags)
			TRY(give_up(restore, maker, flags));
	} while (more || flags);
	return NULL;
}

struct cr_error *clone_stage(struct restore *restore, const struct process *process,
			     enum birth_stage stage)
{
	for_each (struct thread *, thread, &process->threads) {
		if (thread->birth)
			TRY(make_from(restore, thread, stage));
	}
	return NULL;
}

/* ---- threads ---- */

/* It stays a zombie until its last thread ends, and nobody can wait for it before: not we either. */
static struct cr_error *end_leader(struct restore *restore, const struct process *process,
				   pid_t leader)
{
	enum { TRIES = 2000 };
	const struct process_identity *identity = identity_of(process);
	struct timespec pause = {.tv_nsec = 50000};
	struct program *p = restore->program;
	_cleanup_close_ int proc = -1;

	TRY(proc_open(leader, leader, &proc));
	/* it stays traced until we end, which must not end the process */
	TRY(task_set_options(leader, 0));
	program_begin(p, leader);
	program_call(p, "set the name of a dead thread", SYS_prctl, PR_SET_NAME,
		     program_bytes(p, &identity->leader_comm));
	program_call(p, "end the first thread", SYS_exit, identity->leader_status);
	TRY(program_start(p));
	for (int i = 0; i < TRIES; i++) {
		struct proc_stat stat;

		TRY(proc_stat(proc, &stat));
		if (stat.state == 'Z')
			return NULL;
		nanosleep(&pause, NULL);
	}
	return error_new(CR_INTERNAL, "The first thread of process %d does not end", process->pid);
}

/* Those that do not stand yet; where @leader stood in for a dead one's first thread, it too. */
static struct cr_error *missing_threads(struct restore *restore, const struct process *process,
					bool dead_leader, struct list *ret)
{
	for_each (struct thread *, thread, &process->threads) {
		struct thread **slot;

		if (thread->host_tid && !(dead_leader && thread == process_leader(process)))
			continue;
		slot = list_append(restore->image.pool, ret, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = thread;
	}
	return NULL;
}

struct cr_error *clone_threads(struct restore *restore, struct process *process)
{
	const uint64_t flags = THREAD_FLAGS | CLONE_FS | CLONE_FILES;
	bool dead_leader = identity_of(process)->dead_leader;
	pid_t leader = process_leader(process)->host_tid;
	struct program *p = restore->program;
	struct list missing = {0};
	struct thread **threads;

	TRY(missing_threads(restore, process, dead_leader, &missing));
	threads = missing.items;
	for (size_t done = 0; done < missing.count;) {
		enum { BATCH = 256 };
		size_t n = missing.count - done < BATCH ? missing.count - done : BATCH;

		for (size_t i = 0; i < n; i++) {
			TRY(clone_prepare(restore, threads[done + i]));
			clone_as(p, "clone a thread", threads[done + i]->tid, flags, 0);
		}
		TRY(pid_taken(program_run(p)));
		if (p->children.count != n)
			return error_new(CR_INTERNAL, "Lost sight of threads of process %d",
					 process->pid);
		for (size_t i = 0; i < n; i++)
			threads[done + i]->host_tid = ((pid_t *)p->children.items)[i];
		done += n;
	}
	if (dead_leader) {
		TRY(end_leader(restore, process, leader));
		restore_begin(restore, process);
	}
	return NULL;
}
