/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stop.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../clock_ns.h"
#include "../proc.h"
#include "freezer.h"
#include "reaper.h"
#include "seize.h"
#include "task.h"

enum {
	QUICK_ROUNDS = 6, /* then the freezer is asked for help */
	MOST_ROUNDS = 64,
	WAIT_SECONDS = 5,  /* in which none reaches its stop or ends */
	SOON_NS = 3000000, /* most have reached it by then */
	POLL_NS = 100000,
	VFORK_SECONDS = 3, /* of which its child needs milliseconds; more on a busy machine */
	SMALL_POOL = 16384,
	DEAD_ROUNDS = 3, /* in which there are none but some who have died */
};

struct stopped_task *stop_find(struct stop_set *set, pid_t tid)
{
	return set->tasks.count ? bsearch(&tid, set->tasks.items, set->tasks.count,
					  sizeof(struct stopped_task), compare_pids)
				: NULL;
}

struct cr_error *stop_late(struct stop_set *set, pid_t tid)
{
	pid_t *slot;

	if (stop_place(set, tid) < set->late.count)
		return NULL;
	slot = list_append(set->pool, &set->late, sizeof(*slot));
	if (!slot)
		return error_nomem();
	*slot = tid;
	/* from 1 on: not NULL */
	return hash_add(set->pool, &set->places, (uint64_t)tid, 0, (void *)set->late.count);
}

size_t stop_place(const struct stop_set *set, pid_t tid)
{
	size_t place = (size_t)hash_find(&set->places, (uint64_t)tid, 0);

	return place ? place - 1 : set->late.count;
}

/* Seize what is new in the cgroup; *fresh says how many there were, *dead how many more could not be. */
static struct cr_error *seize_new(struct stop_set *set, bool spare_late, size_t *fresh,
				  size_t *dead)
{
	_cleanup_(reaper_end) struct reaper reaper = {0};
	struct list tids = {0};
	size_t known = set->tasks.count;
	bool died;

	*dead = 0;
	TRY(reaper_begin(&reaper, &set->tasks));
	TRY(cgroup_tasks(set->cgroup, set->pool, &tids));
	for (size_t i = 0; i < tids.count; i++) {
		pid_t tid = ((pid_t *)tids.items)[i];

		if (spare_late && stop_place(set, tid) < set->late.count)
			continue;
		if (known && bsearch(&tid, set->tasks.items, known, sizeof(struct stopped_task),
				     compare_pids))
			continue;
		TRY(seize_one(set, &reaper, tid, &died));
		*dead += died;
	}
	if (*dead || reaper.has_reaped)
		set->some_ended = true;
	*fresh = set->tasks.count - known;
	return NULL;
}

/* NULL: it is not ours. */
static struct cr_error *find_task(struct stop_set *set, pid_t tid, struct stopped_task **ret)
{
	struct stopped_task *tasks = set->tasks.items;
	size_t number;

	for (; set->numbered < set->tasks.count; set->numbered++)
		TRY(hash_add(set->pool, &set->numbers, (uint64_t)tasks[set->numbered].tid, 0,
			     (void *)(set->numbered + 1)));
	number = (size_t)hash_find(&set->numbers, (uint64_t)tid, 0);
	*ret = number && tasks[number - 1].tid == tid ? &tasks[number - 1] : NULL;
	return NULL;
}

/* A child of one of ours. We may have met it before its parent told of it. */
static struct cr_error *add_child(struct stop_set *set, pid_t tid)
{
	struct stopped_task *known;

	TRY(find_task(set, tid, &known));
	return known ? NULL : seize_add(set, tid);
}

/* *again: the task was let go for a moment and must be waited for once more. */
static struct cr_error *handle_stop(struct stop_set *set, size_t index, const struct stop *stop,
				    bool *again)
{
	struct stopped_task *task = (struct stopped_task *)set->tasks.items + index;
	pid_t tid = task->tid;

	*again = false;
	switch (stop->reason) {
	case STOP_TRAP: task->stands = true; return NULL;
	case STOP_GROUP: task->stands = task->job_control = true; return NULL;
	case STOP_SIGNAL:
		/* on its way to a handler: the kernel builds the frame, the trap follows */
		*again = true;
		return task_continue(tid, stop->signal);
	case STOP_NEW_TASK:
		*again = true;
		TRY(add_child(set, stop->child));
		return task_continue(tid, 0);
	case STOP_SYSCALL:
	case STOP_EXEC:
	case STOP_OTHER:
	default: *again = true; return task_continue(tid, 0);
	}
}

static struct cr_error *wait_for_stop(struct stop_set *set, size_t index, uint64_t timeout_ns)
{
	bool again;

	do {
		struct stopped_task *task = (struct stopped_task *)set->tasks.items + index;
		struct stop stop;

		TRY(task_wait_for(task->tid, timeout_ns, &stop));
		TRY(handle_stop(set, index, &stop, &again));
	} while (again);
	return NULL;
}

/* The same; one that has died meanwhile loses its tid. */
static struct cr_error *wait_or_forget(struct stop_set *set, size_t index, uint64_t timeout_ns)
{
	struct cr_error *error = wait_for_stop(set, index, timeout_ns);

	if (!error || error->code != CR_GONE)
		return error;
	set->some_ended = true;
	((struct stopped_task *)set->tasks.items)[index].tid = 0;
	return error_forgive(error);
}

/* ---- vfork in progress: uninterruptible, until the child has executed a program or ended ---- */

static bool is_in_vfork(struct stop_set *set, pid_t tid)
{
	_cleanup_close_ int proc = -1;
	_cleanup_error_ struct cr_error *error = proc_open(tid, tid, &proc);
	struct proc_stat stat;
	char *text;
	long call;

	if (!error)
		error = proc_stat(proc, &stat);
	if (!error && stat.state == 'D')
		error = proc_read(proc, "syscall", set->pool, &text, NULL);
	if (error || stat.state != 'D')
		return false;
	call = strtol(text, NULL, 10);
	return call == SYS_vfork || call == SYS_clone || call == SYS_clone3;
}

/* Not there yet is no error. */
static struct cr_error *poll_stop(struct stop_set *set, size_t index)
{
	const struct stopped_task *task = (struct stopped_task *)set->tasks.items + index;
	struct cr_error *error;

	if (!task->tid || task->stands)
		return NULL;
	error = wait_or_forget(set, index, POLL_NS);
	if (!error || error->code != CR_HOST)
		return error;
	cr_error_free(error);
	return NULL;
}

/* Of this very thread; none when it has been killed. */
static struct cr_error *read_children(pid_t tid, struct pool *pool, char **ret)
{
	char name[64];
	struct cr_error *error;

	snprintf(name, sizeof(name), "/proc/%d/task/%d/children", tid, tid);
	error = proc_read(AT_FDCWD, name, pool, ret, NULL);
	if (!error || error->code != CR_GONE)
		return error;
	cr_error_free(error);
	*ret = pool_strndup(pool, "", 0);
	return *ret ? NULL : error_nomem();
}

/* The children of task @index that run in its memory; one that has just been born may stand soon. */
static struct cr_error *add_children(struct stop_set *set, size_t index, struct pool *pool,
				     struct list *family)
{
	pid_t parent = ((struct stopped_task *)set->tasks.items)[index].tid;
	char *text, *end;

	TRY(read_children(parent, pool, &text));
	for (pid_t tid = (pid_t)strtol(text, &end, 10); end != text;
	     tid = (pid_t)strtol(text = end, &end, 10)) {
		struct stopped_task *child;
		size_t *slot;

		TRY(find_task(set, tid, &child));
		if (!child || syscall(SYS_kcmp, tid, parent, KCMP_VM, 0, 0))
			continue;
		slot = list_append(pool, family, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = (size_t)(child - (struct stopped_task *)set->tasks.items);
		TRY(poll_stop(set, *slot));
	}
	return NULL;
}

static struct cr_error *let_go(struct stop_set *set, size_t index, struct list *going)
{
	struct stopped_task *task = (struct stopped_task *)set->tasks.items + index;
	size_t *slot;

	if (!task->tid || !task->stands)
		return NULL;
	slot = list_append(set->pool, going, sizeof(*slot));
	if (!slot)
		return error_nomem();
	*slot = index;
	task->stands = false;
	return task_continue(task->tid, 0);
}

/* All that a task in vfork waits for: its child may itself be in vfork, or begin one any time. */
static struct cr_error *let_children_go(struct stop_set *set, size_t index, struct list *going)
{
	_cleanup_pool_ struct pool *pool = NULL;
	struct list family = {0};

	TRY(pool_create(SMALL_POOL, &pool));
	TRY(add_children(set, index, pool, &family));
	for (size_t i = 0; i < family.count; i++) {
		size_t child = ((size_t *)family.items)[i];

		TRY(add_children(set, child, pool, &family));
		TRY(let_go(set, child, going));
	}
	return NULL;
}

static struct cr_error *stop_children(struct stop_set *set, const struct list *going)
{
	const size_t *child = going->items;

	for (size_t i = 0; i < going->count; i++) {
		struct stopped_task *task = (struct stopped_task *)set->tasks.items + child[i];
		struct cr_error *error;

		if (!task->tid || task->stands)
			continue;
		error = task_interrupt(task->tid);
		if (error && error->code != CR_GONE)
			return error;
		cr_error_free(error);
		TRY(wait_or_forget(set, child[i], WAIT_SECONDS * 1000000000ull));
	}
	return NULL;
}

/*
 * The child goes on alone until its parent comes back: as if the checkpoint had begun a moment
 * later. It only ever takes long when it waits for something in between.
 */
static struct cr_error *finish_vfork(struct stop_set *set, size_t index)
{
	uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + VFORK_SECONDS * 1000000000ull;
	struct stopped_task *parent = (struct stopped_task *)set->tasks.items + index;
	pid_t tid = parent->tid;
	struct list going = {0};

	while (parent->tid && !parent->stands && clock_ns(CLOCK_MONOTONIC) < deadline) {
		TRY(let_children_go(set, index, &going));
		TRY(poll_stop(set, index));
		for (size_t i = 0; i < going.count; i++)
			TRY(poll_stop(set, ((size_t *)going.items)[i]));
		/* it may have moved: the list grows */
		parent = (struct stopped_task *)set->tasks.items + index;
	}
	if (!parent->tid || parent->stands)
		return stop_children(set, &going);
	return error_remedy(
		error_object(error_new(CR_UNSUPPORTED,
				       "%s waits in vfork(2) for a child that does not execute a "
				       "program",
				       proc_name(tid, set->pool)),
			     "vfork"),
		"Try again when the child has gone on");
}

/* ---- all ---- */

static bool is_awaited(const struct stopped_task *task)
{
	return task->tid && !task->stands;
}

/* Not yet is no error. */
static struct cr_error *wait_for_one(struct stop_set *set, size_t index, uint64_t timeout_ns)
{
	struct cr_error *error = wait_or_forget(set, index, timeout_ns);
	struct stopped_task *task = (struct stopped_task *)set->tasks.items + index;

	if (!error || error->code != CR_HOST)
		return error;
	cr_error_free(error);
	/* the end of a first thread is told when that of all others is */
	if (!task_is_dead(task->tid)) {
		task->vfork = is_in_vfork(set, task->tid);
		return NULL;
	}
	set->some_ended = true;
	task->tid = 0;
	return NULL;
}

/* Once more for each that does not stand yet. *count: how many that still are, *one of them. */
static struct cr_error *wait_once(struct stop_set *set, bool late, size_t *count, pid_t *one)
{
	*count = 0;
	for (size_t i = 0; i < set->tasks.count; i++) {
		const struct stopped_task *task = (struct stopped_task *)set->tasks.items + i;

		if (!is_awaited(task) || task->vfork)
			continue;
		TRY(late ? wait_or_forget(set, i, 0) : wait_for_one(set, i, POLL_NS));
		task = (struct stopped_task *)set->tasks.items + i;
		if (!is_awaited(task) || task->vfork)
			continue;
		++*count;
		*one = task->tid;
	}
	return NULL;
}

/*
 * One who executes a program stands when all its other threads have ended and we have waited for each, be
 * they known to us or not. And if it was seized meanwhile it could not be interrupted: it has the tid of
 * the first thread since.
 */
static struct cr_error *help_execution(struct stop_set *set, pid_t tid)
{
	struct cr_error *error;

	set->some_ended = true;
	reaper_reap(tid);
	error = task_interrupt(tid);
	return error && error->code != CR_GONE ? error : error_forgive(error);
}

/* Not for one alone: it may wait for others. */
static struct cr_error *wait_for_rest(struct stop_set *set)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), since = now;
	size_t count = 0, before;
	pid_t one;

	do {
		before = count;
		TRY(wait_once(set, now - since > WAIT_SECONDS * 1000000000ull, &count, &one));
		now = clock_ns(CLOCK_MONOTONIC);
		if (count != before)
			since = now;
		if (count && now - since > SOON_NS)
			TRY(help_execution(set, one));
	} while (count);
	return NULL;
}

/* Those in vfork have their turn when everybody else stands; the innermost is most often the
 * youngest. */
static struct cr_error *wait_for_each(struct stop_set *set)
{
	set->numbers = (struct hash){0};
	set->numbered = 0;
	for (size_t i = 0; i < set->tasks.count; i++) { /* grows as children are adopted */
		if (is_awaited((struct stopped_task *)set->tasks.items + i))
			TRY(wait_for_one(set, i, SOON_NS));
	}
	TRY(wait_for_rest(set));
	for (size_t i = set->tasks.count; i-- > 0;) {
		struct stopped_task *task = (struct stopped_task *)set->tasks.items + i;

		if (is_awaited(task) && task->vfork)
			TRY(finish_vfork(set, i));
	}
	return NULL;
}

static bool all_stand(const struct stop_set *set)
{
	const struct stopped_task *tasks = set->tasks.items;

	for (size_t i = 0; i < set->tasks.count; i++) {
		if (is_awaited(&tasks[i]))
			return false;
	}
	return true;
}

/* Waits for everything that was seized; what has died meanwhile leaves the set. */
static struct cr_error *wait_for_all(struct stop_set *set)
{
	size_t kept = 0;
	struct stopped_task *tasks;

	log_say(set->log, CR_DEBUG, "Wait until %zu tasks stand", set->tasks.count);
	/* a vfork's child may have made others while it went on */
	do {
		TRY(wait_for_each(set));
	} while (!all_stand(set));
	tasks = set->tasks.items;
	for (size_t i = 0; i < set->tasks.count; i++) {
		if (tasks[i].tid)
			tasks[kept++] = tasks[i];
	}
	set->tasks.count = kept;
	if (kept)
		qsort(tasks, kept, sizeof(*tasks), compare_pids);
	return NULL;
}

static struct cr_error *seize_frozen(struct stop_set *set)
{
	size_t fresh, dead;

	TRY(freezer_wait(set->freezer, set->freezer_is_v2, set->pool));
	return seize_new(set, false, &fresh, &dead);
}

static struct cr_error *stop_by_freezer(struct stop_set *set)
{
	struct cr_error *error;

	log_say(set->log, CR_INFO,
		"The container forks faster than it can be stopped: freezing it");
	TRY(freezer_write(set->freezer, set->freezer_is_v2, true));
	error = seize_frozen(set);
	/* whatever happened: nothing may stay frozen */
	if (error) {
		_cleanup_error_ struct cr_error *ignored =
			freezer_write(set->freezer, set->freezer_is_v2, false);
		return error;
	}
	TRY(freezer_write(set->freezer, set->freezer_is_v2, false));
	return wait_for_all(set);
}

/*
 * Who executes a program ends all other threads of its process, those that stand too, and gets the tid of
 * the first one: whom we knew by that stands no more. They are to be waited for,
 * again. To ask each takes 1 us: only when somebody has ended.
 */
static bool some_stand_no_more(struct stop_set *set)
{
	struct stopped_task *tasks = set->tasks.items;
	bool some = false;

	for (size_t i = 0; i < set->tasks.count && set->some_ended; i++) {
		if (!tasks[i].tid || !tasks[i].stands || task_is_in_trap(tasks[i].tid))
			continue;
		tasks[i] = (struct stopped_task){.tid = tasks[i].tid};
		some = true;
	}
	return some;
}

struct cr_error *stop_all(struct stop_set *set)
{
	for (int round = 0, dead_rounds = 0; round < MOST_ROUNDS; round++) {
		size_t fresh, dead;

		if (round >= QUICK_ROUNDS && set->freezer)
			TRY(stop_by_freezer(set));
		TRY(seize_new(set, round == 0, &fresh, &dead));
		/* who has died may have left its tid to a thread that executes a program */
		if (!some_stand_no_more(set) && !fresh && (round || !set->late.count) &&
		    (!dead || ++dead_rounds > DEAD_ROUNDS))
			return NULL;
		TRY(wait_for_all(set));
	}
	return error_remedy(error_new(CR_UNSUPPORTED, "The container forks without end"),
			    "Limit its number of processes (lxc.cgroup2.pids.max) and try again");
}

void stop_kill(struct stop_set *set)
{
	struct stopped_task *tasks = set->tasks.items;

	for (size_t i = 0; i < set->tasks.count; i++)
		kill(tasks[i].tid, SIGKILL);
}

/*
 * Where the stop was given up, some have not come to their trap. What such a one stands for instead may
 * be a signal, which must not be lost; who still runs is let go when this process ends.
 */
static void release(const struct stopped_task *task)
{
	struct stop stop = {.reason = STOP_TRAP};

	if (!task->tid)
		return;
	if (!task->stands) {
		struct cr_error *error = task_wait_for(task->tid, 0, &stop);

		if (error) {
			cr_error_free(error);
			return;
		}
	}
	cr_error_free(task_detach(task->tid, stop.reason == STOP_SIGNAL ? stop.signal : 0));
}

void stop_release(struct stop_set *set, pid_t last)
{
	struct stopped_task *tasks = set->tasks.items;
	const struct stopped_task *init = NULL;

	log_say(set->log, CR_DEBUG, "Let %zu tasks run", set->tasks.count);
	/* not always in order, where the stop was given up */
	for (size_t i = 0; i < set->tasks.count; i++) {
		if (tasks[i].tid == last)
			init = &tasks[i];
		else
			release(&tasks[i]);
	}
	if (init)
		release(init);
	set->tasks.count = 0;
}
