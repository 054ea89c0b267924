/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tree.h"

#include <linux/sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kinds/files.h"
#include "kinds/memory.h"
#include "kinds/process.h"
#include "kinds/tty.h"

static const struct process_identity *identity_of(const struct process *process)
{
	return process_state(process, &process_kind);
}

static bool stands(const struct process *process)
{
	return process_leader(process)->host_tid != 0;
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
	BORN_ELSEWHERE, /* an orphan: its parent adopted it */
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
	return clone_one(restore, child->pid, files_shared(child) ? CLONE_FILES : 0,
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

static bool is_used(const struct restore *restore, pid_t pid)
{
	for_each (struct process *, process, &restore->image.processes) {
		const struct process_identity *identity = identity_of(process);

		if (identity->sid == pid || identity->pgid == pid)
			return true;
		for_each (struct thread *, thread, &process->threads) {
			if (thread->tid == pid)
				return true;
		}
	}
	return false;
}

/* A pid for a process that will be gone before the container runs. */
static pid_t unused_pid(const struct restore *restore)
{
	pid_t pid = 2;

	while (is_used(restore, pid))
		pid++;
	return pid;
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

/* In the program's task, a process of the session that the orphans belong to. */
static struct cr_error *clone_orphans(struct restore *restore, const struct process *init,
				      pid_t sid, const struct process *mother)
{
	for_each (struct process *, child, &init->children) {
		if (stands(child) || birth_of(child) != BORN_ELSEWHERE ||
		    identity_of(child)->sid != sid)
			continue;
		TRY(clone_child(restore, child));
		child->mother = mother;
	}
	return NULL;
}

static bool has_orphans(const struct process *init, pid_t sid)
{
	for_each (struct process *, child, &init->children) {
		if (!stands(child) && birth_of(child) == BORN_ELSEWHERE &&
		    identity_of(child)->sid == sid)
			return true;
	}
	return false;
}

/*
 * A process that init has adopted is born in its session by a helper that ends: then the kernel
 * gives it to init. @mother makes the helper: the session's leader, or init when the leader is
 * dead, which the helper then stands in for.
 */
static struct cr_error *deliver_orphans(struct restore *restore, const struct process *mother,
					pid_t sid)
{
	const struct process *init = *(struct process **)restore->image.processes.items;
	bool dead_leader = mother == init;
	struct helper helper = {
		.pid = dead_leader ? sid : unused_pid(restore),
		.parent = process_leader(mother)->host_tid,
	};
	struct program *p = restore->program;

	if (!has_orphans(init, sid))
		return NULL;
	program_begin(p, helper.parent);
	TRY(clone_one(restore, helper.pid, 0, 0, &helper.host_pid));
	program_begin(p, helper.host_pid);
	if (dead_leader) {
		program_call(p, "make a session", SYS_setsid, 0);
		TRY(program_run(p));
	}
	TRY(clone_orphans(restore, init, sid, mother));
	return end_helper(restore, &helper);
}

static bool is_alive(const struct restore *restore, pid_t pid)
{
	for_each (struct process *, process, &restore->image.processes) {
		if (process->pid == pid)
			return true;
	}
	return false;
}

/* Sessions whose leader is dead; init is their mother and keeps no trace of it. */
static struct cr_error *deliver_leaderless(struct restore *restore, struct process *init)
{
	for_each (struct process *, child, &init->children) {
		pid_t sid = identity_of(child)->sid;

		if (!stands(child) && birth_of(child) == BORN_ELSEWHERE && !is_alive(restore, sid))
			TRY(deliver_orphans(restore, init, sid));
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

static struct cr_error *make_groups(struct restore *restore)
{
	for_each (struct process *, process, &restore->image.processes) {
		const struct process_identity *identity = identity_of(process);
		pid_t pgid = identity->pgid;

		/* the group of a session whose leader is dead came with the session */
		if (pgid && pgid != identity->sid && !is_alive(restore, pgid) &&
		    !has_helper(restore, pgid))
			TRY(make_group(restore, process, pgid));
	}
	return NULL;
}

struct cr_error *tree_end_helpers(struct restore *restore)
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
	uint64_t vdso = restore->vdso;

	if (process->parent)
		vdso = memory_special_start(process->mother ? process->mother : process->parent);
	TRY(memory_restore(restore, process, vdso));
	TRY(clone_children(restore, process, BORN_BEFORE));
	lead(restore, process);
	TRY(program_run(restore->program));
	TRY(terminal_acquire(restore, process));
	TRY(clone_children(restore, process, BORN_AFTER));
	if (!process->parent)
		return deliver_leaderless(restore, process);
	if (identity->sid == identity->pid)
		return deliver_orphans(restore, process, identity->sid);
	return NULL;
}

/* Parents stand before their children in the list; only orphans may have to wait for their session.
 */
struct cr_error *tree_build(struct restore *restore)
{
	size_t built = 0, before;
	bool *done =
		pool_calloc(restore->image.pool, restore->image.processes.count, sizeof(*done));
	struct process **processes = restore->image.processes.items;

	if (!done)
		return error_nomem();
	process_leader(processes[0])->host_tid = restore->init;
	do {
		before = built;
		for (size_t i = 0; i < restore->image.processes.count; i++) {
			if (done[i] || !stands(processes[i]))
				continue;
			TRY(error_task(build_process(restore, processes[i]), processes[i]->pid,
				       ""));
			done[i] = true;
			built++;
		}
	} while (built > before);
	if (built < restore->image.processes.count)
		return error_new(CR_IMAGE, "The sessions of the image do not fit together");
	return make_groups(restore);
}

struct cr_error *tree_threads(struct restore *restore, struct process *process)
{
	const uint64_t flags =
		CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
	struct thread **threads = process->threads.items;
	struct program *p = restore->program;

	for (size_t done = 1; done < process->threads.count;) {
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
	return NULL;
}
