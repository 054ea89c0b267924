/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tree.h"

#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "cleanup.h"
#include "job_control.h"
#include "kinds/memory.h"
#include "kinds/process.h"
#include "kinds/tty.h"
#include "kinds/zombie.h"
#include "sharing.h"

static const struct process_identity *identity_of(const struct process *process)
{
	return process_state(process, &process_kind);
}

static bool stands(const struct process *process)
{
	return process_leader(process)->host_tid != 0;
}

static bool is_zombie(const struct process *process)
{
	return process_state(process, &zombie_kind) != NULL;
}

static void clone_as(struct program *p, const char *what, pid_t tid, uint64_t flags,
		     int exit_signal)
{
	struct clone_args args = {
		.flags = flags,
		.exit_signal = (uint64_t)exit_signal,
		.set_tid_size = 1,
	};

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

/* The program's task makes one process; its number on this host. */
static struct cr_error *clone_one(struct restore *restore, pid_t pid, uint64_t flags,
				  int exit_signal, pid_t *ret)
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

/* Which session a child was born in tells when its parent must clone it. */
enum birth {
	BORN_BEFORE, /* its parent had not made its own session yet */
	BORN_AFTER,
	BORN_ELSEWHERE, /* an orphan: its parent has adopted it */
};

static enum birth birth_of(const struct process *child)
{
	const struct process_identity *ours = identity_of(child),
				      *theirs = identity_of(child->parent);
	const struct process *grandparent = child->parent->parent;

	if (ours->sid == ours->pid || ours->sid == theirs->sid)
		return BORN_AFTER;
	if (grandparent && ours->sid == identity_of(grandparent)->sid && theirs->sid == theirs->pid)
		return BORN_BEFORE;
	return BORN_ELSEWHERE;
}

static struct cr_error *clone_child(struct restore *restore, struct process *child)
{
	return clone_one(restore, child->pid, sharing_clone_flags(child),
			 identity_of(child)->exit_signal, &process_leader(child)->host_tid);
}

static struct cr_error *clone_children(struct restore *restore, struct process *process,
				       enum birth birth)
{
	for_each (struct process *, child, &process->children) {
		if (!stands(child) && birth_of(child) == birth)
			TRY(clone_child(restore, child));
	}
	return NULL;
}

/* Sessions and groups that the process leads itself. */
static void lead(struct restore *restore, const struct process *process)
{
	const struct process_identity *identity = identity_of(process);
	struct program *p = restore->program;

	if (identity->sid == identity->pid) {
		program_call(p, "make a session", SYS_setsid, 0);
		/* the runtime may have done it for init */
		if (!process->parent)
			program_may_fail(p);
	} else if (identity->pgid == identity->pid) {
		program_call(p, "make a process group", SYS_setpgid, 0, 0);
	}
}

/* ---- orphans ---- */

static struct cr_error *note_number(struct restore *restore, struct list *used, pid_t number)
{
	pid_t *slot = list_append(restore->image.pool, used, sizeof(*slot));

	if (!slot)
		return error_nomem();
	*slot = number;
	return NULL;
}

static struct cr_error *note_numbers(struct restore *restore, struct list *used,
				     const struct list *processes)
{
	for_each (struct process *, process, processes) {
		const struct process_identity *identity = identity_of(process);

		TRY(note_number(restore, used, process->pid));
		TRY(note_number(restore, used, identity->sid));
		TRY(note_number(restore, used, identity->pgid));
		for_each (struct thread *, thread, &process->threads)
			TRY(note_number(restore, used, thread->tid));
	}
	return NULL;
}

static int compare_pids(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

/* For processes that will be gone before the container runs. */
static struct cr_error *choose_spare_pid(struct restore *restore)
{
	struct list used = {0};
	const pid_t *number;

	TRY(note_numbers(restore, &used, &restore->image.processes));
	TRY(note_numbers(restore, &used, &restore->image.zombies));
	qsort(used.items, used.count, sizeof(pid_t), compare_pids);
	number = used.items;
	restore->spare_pid = 2;
	for (size_t i = 0; i < used.count && number[i] <= restore->spare_pid; i++) {
		if (number[i] == restore->spare_pid)
			restore->spare_pid++;
	}
	return NULL;
}

/* A process that will be gone before the container runs. */
struct helper {
	pid_t pid, host_pid;
	pid_t parent; /* who cloned it, host number */
};

/* The helper ends, and whoever cloned it waits for it: no trace, no signal. */
static struct cr_error *end_helper(struct restore *restore, const struct helper *helper)
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

/* Whose memory a clone of @mother begins with. */
static const struct process *memory_source(const struct process *mother)
{
	if (!is_zombie(mother))
		return mother;
	return mother->mother ? mother->mother : mother->parent;
}

static bool is_orphan_of(const struct process *child, const struct process *adopter, pid_t sid)
{
	return !stands(child) && child->parent == adopter && identity_of(child)->sid == sid;
}

/* In the program's task, a process of the session that the orphans belong to. */
static struct cr_error *clone_orphans(struct restore *restore, const struct process *adopter,
				      pid_t sid, const struct process *mother)
{
	for_each (struct process *, child, &restore->orphans) {
		if (!is_orphan_of(child, adopter, sid))
			continue;
		TRY(clone_child(restore, child));
		child->mother = memory_source(mother);
	}
	return NULL;
}

static bool has_orphans(const struct restore *restore, const struct process *adopter, pid_t sid)
{
	for_each (struct process *, child, &restore->orphans) {
		if (is_orphan_of(child, adopter, sid))
			return true;
	}
	return false;
}

/*
 * A process that was adopted is born in its session by a helper that ends: then the kernel gives it
 * to the nearest reaper above. @mother makes the helper: the session's leader, or the reaper itself
 * when the leader is dead, which the helper then stands in for.
 */
static struct cr_error *deliver_orphans(struct restore *restore, const struct process *adopter,
					const struct process *mother, pid_t sid)
{
	bool dead_leader = mother == adopter;
	struct helper helper = {
		.pid = dead_leader ? sid : restore->spare_pid,
		.parent = process_leader(mother)->host_tid,
	};
	struct program *p = restore->program;

	if (!has_orphans(restore, adopter, sid))
		return NULL;
	program_begin(p, helper.parent);
	TRY(clone_one(restore, helper.pid, 0, 0, &helper.host_pid));
	program_begin(p, helper.host_pid);
	if (dead_leader) {
		program_call(p, "make a session", SYS_setsid, 0);
		TRY(program_run(p));
	}
	TRY(clone_orphans(restore, adopter, sid, mother));
	return end_helper(restore, &helper);
}

/* Whoever adopts the orphans of a descendant's session: init, or a subreaper below it. */
static const struct process *adopter_above(const struct process *process)
{
	const struct process *above = process->parent;

	while (above->parent && !above->adopter)
		above = above->parent;
	return above;
}

/* Sessions whose leader is dead: the adopter is their mother and keeps no trace of it. */
static struct cr_error *deliver_leaderless(struct restore *restore, const struct process *adopter)
{
	for_each (struct process *, child, &restore->orphans) {
		pid_t sid = identity_of(child)->sid;

		if (!stands(child) && child->parent == adopter &&
		    !image_process(&restore->image, sid))
			TRY(deliver_orphans(restore, adopter, adopter, sid));
	}
	return NULL;
}

/* From here on it adopts what its descendants leave; whether it shall go on to do so, prctl.c says
 * at the end. */
static struct cr_error *adopt(struct restore *restore, const struct process *adopter)
{
	if (!adopter->adopter)
		return NULL;
	if (adopter->parent) {
		restore_begin(restore, adopter);
		program_call(restore->program, "become a subreaper", SYS_prctl,
			     PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
		TRY(program_run(restore->program));
	}
	return deliver_leaderless(restore, adopter);
}

static struct cr_error *find_orphans(struct restore *restore, const struct list *processes)
{
	for_each (struct process *, process, processes) {
		struct process **slot;

		if (!process->parent || birth_of(process) != BORN_ELSEWHERE)
			continue;
		if (process->shared)
			return error_new(CR_IMAGE,
					 "Process %d was adopted, but is to share with "
					 "its parent",
					 process->pid);
		process->parent->adopter = true;
		slot = list_append(restore->image.pool, &restore->orphans, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = process;
	}
	return NULL;
}

/* ---- process groups whose leader is dead ---- */

static bool has_helper(const struct restore *restore, pid_t pid)
{
	const struct helper *helper = restore->helpers.items;

	for (size_t i = 0; i < restore->helpers.count; i++) {
		if (helper[i].pid == pid)
			return true;
	}
	return false;
}

/* A helper with the dead leader's pid makes the group; it stays until everybody has joined. */
static struct cr_error *make_group(struct restore *restore, struct process *member, pid_t pgid)
{
	struct helper *helper =
		list_append(restore->image.pool, &restore->helpers, sizeof(*helper));
	struct program *p = restore->program;

	if (!helper)
		return error_nomem();
	helper->pid = pgid;
	helper->parent = process_leader(member)->host_tid;
	program_begin(p, helper->parent);
	TRY(clone_one(restore, pgid, 0, 0, &helper->host_pid));
	program_begin(p, helper->host_pid);
	program_call(p, "make a process group", SYS_setpgid, 0, 0);
	return program_run(p);
}

static struct cr_error *join_group(struct restore *restore, struct process *process)
{
	const struct process_identity *identity = identity_of(process);
	pid_t pgid = identity->pgid;

	/* leaders made theirs when they were born */
	if (!pgid || pgid == identity->pid || identity->sid == identity->pid)
		return NULL;
	/* the group of a session whose leader is dead came with the session */
	if (pgid != identity->sid && !image_process(&restore->image, pgid) &&
	    !has_helper(restore, pgid))
		TRY(make_group(restore, process, pgid));
	restore_begin(restore, process);
	program_call(restore->program, "join its process group", SYS_setpgid, 0, (uint64_t)pgid);
	return program_run(restore->program);
}

static struct cr_error *join_groups(struct restore *restore, const struct list *processes)
{
	for_each (struct process *, process, processes)
		TRY(error_task(join_group(restore, process), process->pid, ""));
	return NULL;
}

static struct cr_error *end_helpers(struct restore *restore)
{
	const struct helper *helper = restore->helpers.items;

	for (size_t i = 0; i < restore->helpers.count; i++)
		TRY(end_helper(restore, &helper[i]));
	return NULL;
}

/* ---- the tree ---- */

static struct cr_error *build_process(struct restore *restore, struct process *process)
{
	const struct process_identity *identity = identity_of(process);

	if (is_zombie(process))
		restore_begin(restore, process);
	else
		TRY(memory_restore(restore, process));
	TRY(clone_children(restore, process, BORN_BEFORE));
	lead(restore, process);
	TRY(program_run(restore->program));
	if (!is_zombie(process))
		TRY(terminal_acquire(restore, process));
	TRY(clone_children(restore, process, BORN_AFTER));
	if (process->parent && identity->sid == identity->pid)
		TRY(deliver_orphans(restore, adopter_above(process), process, identity->sid));
	return adopt(restore, process);
}

/* *left: who does not stand yet. */
static struct cr_error *build_standing(struct restore *restore, struct list *waiting)
{
	struct process **processes = waiting->items;
	size_t left = 0;

	for (size_t i = 0; i < waiting->count; i++) {
		struct process *process = processes[i];

		if (stands(process))
			TRY(error_task(build_process(restore, process), process->pid, ""));
		else
			processes[left++] = process;
	}
	waiting->count = left;
	return NULL;
}

static struct cr_error *append_all(struct restore *restore, const struct list *processes,
				   struct list *ret)
{
	for_each (struct process *, process, processes) {
		struct process **slot = list_append(restore->image.pool, ret, sizeof(*slot));

		if (!slot)
			return error_nomem();
		*slot = process;
	}
	return NULL;
}

/* Parents stand before their children in the list; only orphans may have to wait for their session.
 */
static struct cr_error *build_all(struct restore *restore)
{
	struct list waiting = {0};
	size_t before;

	TRY(append_all(restore, &restore->image.processes, &waiting));
	TRY(append_all(restore, &restore->image.zombies, &waiting));
	TRY(find_orphans(restore, &waiting));
	do {
		before = waiting.count;
		TRY(build_standing(restore, &waiting));
	} while (waiting.count && waiting.count < before);
	return waiting.count ? error_new(CR_IMAGE, "The sessions of the image do not fit together")
			     : NULL;
}

static struct cr_error *end_zombies(struct restore *restore)
{
	for_each (struct process *, zombie, &restore->image.zombies)
		TRY(error_task(zombie_end(restore, zombie), zombie->pid, ""));
	for_each (struct process *, child, &restore->image.zombies)
		TRY(job_control_forget(restore, child->parent, identity_of(child)->exit_signal));
	return NULL;
}

struct cr_error *tree_build(struct restore *restore)
{
	const struct image *image = &restore->image;

	process_leader(*(struct process **)image->processes.items)->host_tid = restore->init;
	TRY(choose_spare_pid(restore));
	TRY(build_all(restore));
	TRY(join_groups(restore, &image->processes));
	TRY(join_groups(restore, &image->zombies));
	TRY(end_helpers(restore));
	TRY(end_zombies(restore));
	return job_control_restore(restore);
}

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

struct cr_error *tree_threads(struct restore *restore, struct process *process)
{
	const uint64_t flags =
		CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
	struct thread **threads = process->threads.items;
	struct program *p = restore->program;
	bool dead_leader = identity_of(process)->dead_leader;
	pid_t leader = threads[0]->host_tid;

	for (size_t done = dead_leader ? 0 : 1; done < process->threads.count;) {
		enum { BATCH = 256 };
		size_t n = process->threads.count - done < BATCH ? process->threads.count - done
								 : BATCH;

		for (size_t i = 0; i < n; i++)
			clone_as(p, "clone a thread", threads[done + i]->tid, flags, 0);
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
