/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tree.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "births.h"
#include "clone.h"
#include "groups.h"
#include "job_control.h"
#include "kinds/memory.h"
#include "kinds/process.h"
#include "kinds/tty.h"
#include "kinds/unix_socket.h"
#include "kinds/zombie.h"

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

static bool is_orphan(const struct process *process)
{
	return process->parent && process_leader(process)->birth->way == BIRTH_ORPHAN;
}

/* The session that the process leads itself. */
static void lead(struct restore *restore, const struct process *process)
{
	const struct process_identity *identity = identity_of(process);
	struct program *p = restore->program;

	if (identity->sid == identity->pid) {
		program_call(p, "make a session", SYS_setsid, 0);
		/* the runtime may have done it for init */
		if (!process->parent)
			program_may_fail(p);
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

/* Some of them have ended and are stood in for: unix_queue.c */
static struct cr_error *note_senders(struct restore *restore, struct list *used)
{
	for_each (struct object *, object, &restore->image.objects) {
		const struct unix_socket *socket = object->state;
		const struct unix_message *message;

		if (object->kind != &unix_socket_kind)
			continue;
		message = socket->queue.items;
		for (size_t i = 0; i < socket->queue.count; i++)
			TRY(note_number(restore, used, message[i].pid));
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
	TRY(note_senders(restore, &used));
	qsort(used.items, used.count, sizeof(pid_t), compare_pids);
	number = used.items;
	restore->spare_pid = 2;
	for (size_t i = 0; i < used.count && number[i] <= restore->spare_pid; i++) {
		if (number[i] == restore->spare_pid)
			restore->spare_pid++;
	}
	return NULL;
}

/* Whose memory a clone of @mother begins with. */
static const struct process *memory_source(const struct process *mother)
{
	if (!is_zombie(mother))
		return mother;
	return mother->mother ? mother->mother : mother->parent;
}

/* Those of a session who are given to the same process; NULL: there are none. */
static struct list *orphans_of(const struct restore *restore, const struct process *adopter,
			       pid_t sid)
{
	return hash_find(&restore->orphans, (uint64_t)sid, (uint64_t)adopter->pid);
}

static struct cr_error *append(struct restore *restore, struct list *list, struct process *process)
{
	struct process **slot = list_append(restore->image.pool, list, sizeof(*slot));

	if (!slot)
		return error_nomem();
	*slot = process;
	return NULL;
}

/* In the program's task, a process of the session that the orphans belong to. */
static struct cr_error *clone_orphans(struct restore *restore, const struct list *orphans,
				      const struct process *mother)
{
	for_each (struct process *, child, orphans) {
		TRY(clone_prepare(restore, process_leader(child)));
		TRY(clone_process(restore, child->pid, 0, identity_of(child)->exit_signal,
				  &process_leader(child)->host_tid));
		process_leader(child)->birth->made = true;
		child->mother = memory_source(mother);
		TRY(append(restore, &restore->standing, child));
	}
	return NULL;
}

/*
 * A process that was adopted is born in its session by a helper that ends: then the kernel gives it
 * to the nearest reaper above. @mother makes the helper: the session's leader, or the reaper itself
 * when the leader is dead, which the helper then stands in for.
 */
static struct cr_error *deliver_orphans(struct restore *restore, const struct process *adopter,
					const struct process *mother, pid_t sid)
{
	struct list *orphans = orphans_of(restore, adopter, sid);
	bool dead_leader = mother == adopter;
	struct helper helper = {
		.pid = dead_leader ? sid : restore->spare_pid,
		.parent = process_leader(mother)->host_tid,
	};
	struct program *p = restore->program;

	if (!orphans)
		return NULL;
	program_begin(p, helper.parent);
	TRY(clone_process(restore, helper.pid, 0, 0, &helper.host_pid));
	program_begin(p, helper.host_pid);
	if (dead_leader) {
		program_call(p, "make a session", SYS_setsid, 0);
		TRY(program_run(p));
	}
	TRY(clone_orphans(restore, orphans, mother));
	return clone_end_helper(restore, &helper);
}

/* Sessions whose leader is dead: the adopter is their mother and keeps no trace of it. */
static struct cr_error *deliver_leaderless(struct restore *restore, const struct process *adopter)
{
	for_each (struct process *, child, &adopter->children) {
		pid_t sid = identity_of(child)->sid;

		if (is_orphan(child) && !stands(child) && !image_process(&restore->image, sid))
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
	if (adopter->parent)
		TRY(clone_set_reaper(restore, adopter, true));
	return deliver_leaderless(restore, adopter);
}

static struct cr_error *note_orphan(struct restore *restore, struct process *orphan)
{
	pid_t sid = identity_of(orphan)->sid;
	struct list *orphans = orphans_of(restore, orphan->parent, sid);

	if (!orphans) {
		orphans = pool_alloc(restore->image.pool, sizeof(*orphans));
		if (!orphans)
			return error_nomem();
		TRY(hash_add(restore->image.pool, &restore->orphans, (uint64_t)sid,
			     (uint64_t)orphan->parent->pid, orphans));
	}
	return append(restore, orphans, orphan);
}

static struct cr_error *find_orphans(struct restore *restore, const struct list *processes)
{
	for_each (struct process *, process, processes) {
		if (is_orphan(process))
			TRY(note_orphan(restore, process));
	}
	return NULL;
}

/* ---- the tree ---- */

static struct cr_error *build_process(struct restore *restore, struct process *process)
{
	const struct process_identity *identity = identity_of(process);

	if (!is_zombie(process))
		TRY(memory_restore(restore, process));
	TRY(clone_stage(restore, process, STAGE_THREADS));
	TRY(clone_stage(restore, process, STAGE_SIBLINGS));
	TRY(clone_stage(restore, process, STAGE_BEFORE));
	restore_begin(restore, process);
	lead(restore, process);
	TRY(program_run(restore->program));
	if (!is_zombie(process))
		TRY(terminal_acquire(restore, process));
	TRY(clone_stage(restore, process, STAGE_AFTER));
	if (process->parent && identity->sid == identity->pid)
		TRY(deliver_orphans(restore, process->reaper, process, identity->sid));
	TRY(clone_stage(restore, process, STAGE_ADOPTED));
	return adopt(restore, process);
}

/* Whom @process has made. */
static struct cr_error *note_made(struct restore *restore, const struct process *process)
{
	for_each (struct thread *, thread, &process->threads) {
		if (!thread->birth)
			continue;
		for_each (struct thread *, child, &thread->birth->makes) {
			if (thread_is_leader(child))
				TRY(append(restore, &restore->standing, child->process));
		}
	}
	return NULL;
}

/* From init on, everybody after who has made him; orphans after their session. */
static struct cr_error *build_all(struct restore *restore)
{
	const struct image *image = &restore->image;
	struct list *standing = &restore->standing;

	TRY(find_orphans(restore, &image->processes));
	TRY(find_orphans(restore, &image->zombies));
	TRY(append(restore, standing, *(struct process **)image->processes.items));
	for (size_t i = 0; i < standing->count; i++) {
		struct process *process = ((struct process **)standing->items)[i];

		TRY(error_task(build_process(restore, process), process->pid, ""));
		TRY(note_made(restore, process));
	}
	return standing->count == image->processes.count + image->zombies.count
		       ? NULL
		       : error_new(CR_IMAGE, "The sessions of the image do not fit together");
}

static struct cr_error *end_zombies(struct restore *restore)
{
	for_each (struct process *, zombie, &restore->image.zombies)
		TRY(error_task(zombie_end(restore, zombie), zombie->pid, ""));
	for_each (struct process *, child, &restore->image.zombies)
		TRY(job_control_forget(restore, child->parent, identity_of(child)->exit_signal));
	return NULL;
}

static void enter_session(const struct list *processes, pid_t session)
{
	for_each (struct process *, process, processes) {
		struct process_identity *identity = process_state(process, &process_kind);

		if (!identity->sid)
			identity->sid = process->session = session;
	}
}

/*
 * Whom a visitor has left behind (lxc-attach) is in the visitor's session, which is outside and shows
 * as 0: those become one whose leader is dead.
 */
static struct cr_error *replace_session_outside(struct restore *restore)
{
	const struct image *image = &restore->image;

	TRY(choose_spare_pid(restore));
	if (!identity_of(*(struct process **)image->processes.items)->sid)
		return NULL;
	enter_session(&image->processes, restore->spare_pid);
	enter_session(&image->zombies, restore->spare_pid);
	return choose_spare_pid(restore);
}

struct cr_error *tree_build(struct restore *restore)
{
	const struct image *image = &restore->image;

	process_leader(*(struct process **)image->processes.items)->host_tid = restore->init;
	TRY(replace_session_outside(restore));
	TRY(births_plan(&restore->image));
	TRY(build_all(restore));
	TRY(groups_restore(restore));
	TRY(end_zombies(restore));
	return job_control_restore(restore);
}
