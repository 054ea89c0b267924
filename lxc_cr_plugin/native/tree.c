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
#include "stand_in.h"

static const struct process_identity *identity_of(const struct process *process)
{
	return process_state(process, &process_kind);
}

static bool is_zombie(const struct process *process)
{
	return process_state(process, &zombie_kind) != NULL;
}

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

/* For a process that will be gone before the container runs: one at a time. */
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

/* ---- the steps ---- */

static struct cr_error *build(struct restore *restore, struct process *process)
{
	struct birth *birth = process_leader(process)->birth;

	if (is_zombie(process) || birth->built)
		return NULL;
	birth->built = true;
	return memory_restore(restore, process);
}

/* What it hands on before it executes another program. */
static struct cr_error *build_for_others(struct restore *restore, struct process *process,
					 const struct process *of)
{
	struct memory_map *own = process->memory;
	struct cr_error *error;

	process->memory = of->memory;
	error = memory_restore(restore, process);
	process->memory = own;
	return error;
}

static struct cr_error *lead(struct restore *restore, struct process *process)
{
	restore_begin(restore, process);
	program_call(restore->program, "make a session", SYS_setsid, 0);
	/* the runtime may have done it for init */
	if (!process->parent)
		program_may_fail(restore->program);
	TRY(program_run(restore->program));
	return is_zombie(process) ? NULL : terminal_acquire(restore, process);
}

static struct cr_error *execute(struct restore *restore, struct process *process)
{
	TRY(stand_in_execute(restore, process));
	process->has_memory = false;
	return build(restore, process);
}

static struct cr_error *take_step(struct restore *restore, const struct birth_step *step)
{
	struct process *process = step->thread->process;

	switch (step->sort) {
	case STEP_MAKE: return clone_make(restore, step);
	case STEP_BUILD:
		return step->of ? build_for_others(restore, process, step->of)
				: build(restore, process);
	case STEP_LEAD: return lead(restore, process);
	case STEP_GIVE_UP: return clone_give_up(restore, step);
	case STEP_EXECUTE: return execute(restore, process);
	}
	return NULL;
}

static void find_makers(const struct list *births)
{
	const struct birth_step *steps = births->items;

	for (size_t i = 0; i < births->count; i++) {
		if (steps[i].maker)
			process_leader(steps[i].maker->process)->birth->makes = true;
	}
}

/* Nobody waits for it: whoever makes others goes on with that first, for changing tasks takes time. */
static bool can_wait(const struct birth_step *step)
{
	return step->sort == STEP_BUILD && !process_leader(step->thread->process)->birth->makes;
}

/* The plan was made from its end. */
static struct cr_error *take_all_steps(struct restore *restore)
{
	const struct birth_step *steps = restore->image.births.items;

	find_makers(&restore->image.births);
	for (size_t i = restore->image.births.count; i-- > 0;) {
		if (can_wait(&steps[i]))
			continue;
		TRY(clone_end_delivery(restore, &steps[i]));
		TRY(error_task(take_step(restore, &steps[i]), steps[i].thread->process->pid, ""));
	}
	TRY(clone_end_delivery(restore, NULL));
	for_each (struct process *, process, &restore->image.processes)
		TRY(error_task(build(restore, process), process->pid, ""));
	return NULL;
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
	births_find_mothers(&restore->image);
	TRY(take_all_steps(restore));
	TRY(groups_restore(restore));
	TRY(end_zombies(restore));
	return job_control_restore(restore);
}
