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

/* ---- orphans ---- */

/* A helper that stands, and for whom: all that have the same maker, parent and session. */
struct delivery {
	const struct birth_step *step; /* the last one */
	struct helper helper;
};

/* It has everything that its maker has; it may make a session, whose leader is dead. */
static struct cr_error *begin_helper(struct restore *restore, const struct birth_step *step,
				     struct helper *helper)
{
	struct program *p = restore->program;
	uint64_t everything = 0;

	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++)
		everything |= sharing_flag(sort);
	helper->pid = step->session ? step->session : restore->spare_pid;
	helper->parent = step->maker->host_tid;
	program_begin(p, helper->parent);
	TRY(clone_process(restore, helper->pid, everything, 0, &helper->host_pid));
	program_begin(p, helper->host_pid);
	if (step->session)
		program_call(p, "make a session", SYS_setsid, 0);
	return program_run(p);
}

/* The kernel gives whom a helper leaves behind to the next reaper above: the parent, for now. */
static struct cr_error *begin_delivery(struct restore *restore, const struct birth_step *step)
{
	const struct process *parent = step->thread->process->parent;
	struct delivery *delivery = pool_alloc(restore->image.pool, sizeof(*delivery));

	if (!delivery)
		return error_nomem();
	if (parent->parent)
		TRY(clone_set_reaper(restore, parent, true));
	TRY(begin_helper(restore, step, &delivery->helper));
	restore->delivery = delivery;
	return NULL;
}

static struct cr_error *end_delivery(struct restore *restore)
{
	const struct delivery *delivery = restore->delivery;
	const struct process *parent = delivery->step->thread->process->parent;

	restore->delivery = NULL;
	TRY(clone_end_helper(restore, &delivery->helper));
	return parent->parent ? clone_set_reaper(restore, parent, false) : NULL;
}

/* Does @step go on with it? What was delivered last may get its memory meanwhile. */
static bool is_part(const struct birth_step *step, const struct birth_step *last)
{
	if (step->sort == STEP_BUILD)
		return step->thread == last->thread;
	return step->sort == STEP_MAKE && step->way == BIRTH_ADOPTED &&
	       step->maker == last->maker && step->session == last->session &&
	       step->thread->process->parent == last->thread->process->parent;
}

struct cr_error *clone_end_delivery(struct restore *restore, const struct birth_step *next)
{
	const struct delivery *delivery = restore->delivery;

	return !delivery || (next && is_part(next, delivery->step)) ? NULL : end_delivery(restore);
}

static struct cr_error *make_adopted(struct restore *restore, const struct birth_step *step)
{
	struct process *process = step->thread->process;

	if (!restore->delivery)
		TRY(begin_delivery(restore, step));
	restore->delivery->step = step;
	program_begin(restore->program, restore->delivery->helper.host_pid);
	TRY(clone_prepare(restore, step->thread));
	return clone_process(restore, process->pid, step->flags, process->exit_signal,
			     &step->thread->host_tid);
}

/* ---- steps of the plan ---- */

static struct cr_error *make_thread(struct restore *restore, const struct birth_step *step)
{
	struct program *p = restore->program;

	program_begin(p, step->maker->host_tid);
	TRY(clone_prepare(restore, step->thread));
	clone_as(p, "clone a thread", step->thread->tid, THREAD_FLAGS | step->flags, 0);
	TRY(pid_taken(program_run(p)));
	if (p->children.count != 1)
		return error_new(CR_INTERNAL, "Lost sight of thread %d", step->thread->tid);
	step->thread->host_tid = *(pid_t *)p->children.items;
	return NULL;
}

struct cr_error *clone_make(struct restore *restore, const struct birth_step *step)
{
	struct process *process = step->thread->process;
	bool sibling = step->way == BIRTH_SIBLING;

	if (step->way == BIRTH_THREAD)
		return make_thread(restore, step);
	process->has_memory = step->flags & CLONE_VM;
	if (step->way == BIRTH_ADOPTED)
		return make_adopted(restore, step);
	program_begin(restore->program, step->maker->host_tid);
	TRY(clone_prepare(restore, step->thread));
	return clone_process(restore, process->pid, step->flags | (sibling ? CLONE_PARENT : 0),
			     sibling ? 0 : process->exit_signal, &step->thread->host_tid);
}

struct cr_error *clone_give_up(struct restore *restore, const struct birth_step *step)
{
	program_begin(restore->program, step->thread->host_tid);
	program_call(restore->program, "stop sharing", SYS_unshare, step->flags);
	return program_run(restore->program);
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
