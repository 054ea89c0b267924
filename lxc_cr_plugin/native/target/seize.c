/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "seize.h"

#include <unistd.h>

#include "../cleanup.h"
#include "../proc.h"
#include "task.h"

enum { SEIZE_TRIES = 3 }; /* somebody else has got its number */

struct cr_error *seize_add(struct stop_set *set, pid_t tid)
{
	struct stopped_task *task = list_append(set->pool, &set->tasks, sizeof(*task));

	if (!task)
		return error_nomem();
	task->tid = tid;
	return NULL;
}

static bool has_died(pid_t tid, const struct cr_error *error)
{
	return error->code == CR_GONE || task_is_dead(tid);
}

static pid_t tracer_of(struct stop_set *set, pid_t tid)
{
	struct proc_status status = {0};
	_cleanup_close_ int proc = -1;
	_cleanup_error_ struct cr_error *error = proc_open(tid, tid, &proc);

	if (!error)
		error = proc_status(proc, set->pool, &status);
	return error ? 0 : status.tracer;
}

/* It came between the look and the stop. */
static struct cr_error *refuse_tracer(struct stop_set *set, pid_t tid, pid_t tracer,
				      struct cr_error *error)
{
	if (!tracer)
		return error_wrap(error, "Failed to stop the container");
	cr_error_free(error);
	error = error_new(CR_UNSUPPORTED, "%s is being debugged or traced by %s",
			  proc_name(tid, set->pool), proc_name(tracer, set->pool));
	return error_remedy(error_object(error, "ptrace"),
			    "Only one tracer can hold a thread: end it, or have it detach");
}

static struct cr_error *interrupt(struct stop_set *set, pid_t tid)
{
	struct cr_error *error;

	TRY(seize_add(set, tid));
	error = task_interrupt(tid);
	return error && !has_died(tid, error) ? error : error_forgive(error);
}

/*
 * A thread that executes a program gets the tid of the first one, of whose end we have heard, or will
 * when we try to seize it: perhaps it has been ours all the time.
 */
struct cr_error *seize_one(struct stop_set *set, struct reaper *reaper, pid_t tid, bool *dead)
{
	struct cr_error *error = NULL;
	pid_t tracer = 0;

	*dead = false;
	log_say(set->log, CR_DEBUG, "Seize and interrupt task %d of the host", tid);
	for (int i = 0; i < SEIZE_TRIES && !tracer; i++) {
		cr_error_free(error);
		error = reaper_seize(reaper, tid,
				     PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
					     PTRACE_O_TRACECLONE);
		if (!error)
			return interrupt(set, tid);
		*dead = has_died(tid, error);
		if (*dead)
			return error_forgive(error);
		tracer = tracer_of(set, tid);
	}
	if (tracer != gettid())
		return refuse_tracer(set, tid, tracer, error);
	cr_error_free(error);
	return interrupt(set, tid);
}
