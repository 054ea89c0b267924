/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is there, and who is whose child. */
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "attached.h"
#include "cleanup.h"
#include "collect.h"
#include "kinds/keyrings.h"
#include "kinds/zombie.h"
#include "sharing.h"

enum { PF_EXITING = 4, EXIT_ZOMBIE = 32 };

/* One thread group as first seen. */
struct group {
	pid_t tgid, ppid;
	struct kernel_task **threads; /* alive, the leader first; a zombie's is the leader alone */
	size_t count;
	bool zombie;
	struct proc_stat stat;
	struct process *process;
};

struct wanted_tids {
	const pid_t *tids;
	size_t count;
	struct dump *dump;	/* is told whose session keyrings are those of others, too */
	struct cr_error *error; /* from there */
};

static bool is_among(const struct wanted_tids *wanted, pid_t tid)
{
	return wanted->count &&
	       bsearch(&tid, wanted->tids, wanted->count, sizeof(tid), compare_pids);
}

static bool is_dead_leader(const struct kernel_task *task)
{
	return task->exit_state == EXIT_ZOMBIE && task->pid == task->tgid;
}

static bool is_ending(const struct kernel_task *task)
{
	return task->flags & PF_EXITING && !task->exit_state;
}

/* Cgroups do not list what has ended or is about to: whose it is shows later. */
static bool is_wanted(void *context, const struct kernel_task *task)
{
	struct wanted_tids *wanted = context;

	if (is_among(wanted, task->pid) || is_dead_leader(task) || is_ending(task))
		return true;
	if (!wanted->error)
		wanted->error = keyrings_note_outside(wanted->dump, task->session_keyring);
	return false;
}

static int by_pid(const void *a, const void *b)
{
	return compare_pids(&((const struct kernel_task *)a)->pid,
			    &((const struct kernel_task *)b)->pid);
}

static int by_group(const void *a, const void *b)
{
	const struct kernel_task *x = *(struct kernel_task *const *)a,
				 *y = *(struct kernel_task *const *)b;
	int order = compare_pids(&x->tgid, &y->tgid);

	if (order || x == y)
		return order;
	/* the leader may have a higher number than a thread of its: pids wrap around */
	if (x->pid == x->tgid || y->pid == y->tgid)
		return x->pid == x->tgid ? -1 : 1;
	return compare_pids(&x->pid, &y->pid);
}

static int by_parent(const void *a, const void *b)
{
	const struct group *x = *(struct group *const *)a, *y = *(struct group *const *)b;
	int order = compare_pids(&x->ppid, &y->ppid);

	return order ? order : compare_pids(&x->tgid, &y->tgid);
}

/* A child of one of @tids that is on its way out: soon it will be a zombie, or nothing. */
static bool somebody_is_ending(const struct dump *dump, const struct wanted_tids *wanted)
{
	const struct kernel_task *tasks = dump->kernel_tasks.items;

	for (size_t i = 0; i < dump->kernel_tasks.count; i++) {
		if (is_ending(&tasks[i]) && !is_among(wanted, tasks[i].pid) &&
		    is_among(wanted, tasks[i].ppid))
			return true;
	}
	return false;
}

static struct cr_error *note_keyring(void *dump, uint64_t session_keyring)
{
	return keyrings_note_outside(dump, session_keyring);
}

static struct cr_error *read_kernel_tasks(struct dump *dump, const pid_t *tids, size_t count)
{
	enum { TRIES = 200 };
	struct wanted_tids wanted = {.tids = tids, .count = count, .dump = dump};
	/* whom we have stopped is traced; whoever else is in the container's cgroup is not */
	struct kernel_reader *reader = dump->running ? dump->kernel : dump->kernel_container;
	struct list *tasks = &dump->kernel_tasks;
	struct timespec pause = {.tv_nsec = 500000};

	dump->timers_first = 0;
	for (int i = 0; i < TRIES; i++) {
		tasks->count = 0;
		TRY(kernel_reader_tasks(reader, dump->image.pool, is_wanted, &wanted, tasks));
		TRY(wanted.error);
		if (dump->running || !somebody_is_ending(dump, &wanted)) {
			if (!dump->running)
				TRY(kernel_reader_strangers(reader, note_keyring, dump));
			if (tasks->count)
				qsort(tasks->items, tasks->count, sizeof(struct kernel_task),
				      by_pid);
			return NULL;
		}
		nanosleep(&pause, NULL);
	}
	return error_remedy(error_new(CR_UNSUPPORTED, "A process takes long to end"),
			    "It may be closing a file on slow storage; try again later");
}

/* ---- thread groups ---- */

/* @threads: all of one group. What lives stays, the leader first. */
static struct cr_error *add_group(struct dump *dump, struct list *groups,
				  struct kernel_task **threads, size_t count)
{
	bool dead = is_dead_leader(threads[0]);
	struct group *group;
	size_t alive = 0;

	for (size_t i = 0; i < count; i++)
		alive += !threads[i]->exit_state && !is_ending(threads[i]);
	if (!alive && (!dead || dump->running))
		return NULL;
	group = list_append(dump->image.pool, groups, sizeof(*group));
	if (!group)
		return error_nomem();
	group->tgid = threads[0]->tgid;
	group->ppid = threads[0]->ppid;
	group->zombie = !alive;
	group->threads = threads;
	if (group->zombie)
		group->count = 1;
	for (size_t i = 0; !group->zombie && i < count; i++) {
		if (!threads[i]->exit_state && !is_ending(threads[i]))
			threads[group->count++] = threads[i];
	}
	return NULL;
}

static struct cr_error *find_groups(struct dump *dump, struct list *groups)
{
	struct kernel_task *tasks = dump->kernel_tasks.items;
	size_t count = dump->kernel_tasks.count;
	struct kernel_task **order = pool_calloc(dump->image.pool, count + 1, sizeof(*order));

	if (!order)
		return error_nomem();
	for (size_t i = 0; i < count; i++)
		order[i] = &tasks[i];
	if (count)
		qsort(order, count, sizeof(*order), by_group);
	for (size_t i = 0, end; i < count; i = end) {
		for (end = i + 1; end < count && order[end]->tgid == order[i]->tgid; end++)
			continue;
		TRY(add_group(dump, groups, order + i, end - i));
	}
	return NULL;
}

/* What /proc says, where something of the group lives: a dead leader has no more to show. */
static struct cr_error *look_at_group(struct group *group)
{
	_cleanup_close_ int proc = -1;

	TRY(proc_open(group->threads[0]->pid, group->threads[0]->pid, &proc));
	return proc_stat(proc, &group->stat);
}

static struct cr_error *add_threads(struct dump *dump, struct process *process,
				    const struct group *group)
{
	for (size_t i = 0; i < group->count; i++) {
		struct thread *thread = image_add_thread(&dump->image, process);

		if (!thread)
			return error_nomem();
		thread->host_tid = group->threads[i]->pid;
		thread->kernel = group->threads[i];
		TRY(image_number_thread(&dump->image, thread, thread->host_tid));
	}
	return NULL;
}

/* Threads have no exit signal: if the first one is dead, it still tells. */
static struct cr_error *find_exit_signal(const struct group *group, int *ret)
{
	_cleanup_close_ int proc = -1;
	struct proc_stat stat;

	*ret = group->stat.exit_signal;
	if (group->threads[0]->pid == group->tgid)
		return NULL;
	TRY(proc_open(group->tgid, group->tgid, &proc));
	TRY(proc_stat(proc, &stat));
	*ret = stat.exit_signal;
	return NULL;
}

static struct cr_error *add_process(struct dump *dump, struct group *group, struct process *parent)
{
	struct cr_error *error = look_at_group(group);

	if (error && error->code == CR_GONE && dump->running) {
		cr_error_free(error);
		return NULL;
	}
	TRY(error);
	group->process = image_add_process(&dump->image, parent);
	if (!group->process)
		return error_nomem();
	group->process->host_pid = group->threads[0]->pid;
	group->process->host_tgid = group->process->number = group->tgid;
	group->process->session = group->stat.session;
	group->process->stat = group->stat;
	TRY(image_number_process(&dump->image, group->process));
	TRY(image_number_group(&dump->image, group->process, group->stat.pgrp));
	TRY(find_exit_signal(group, &group->process->exit_signal));
	return add_threads(dump, group->process, group);
}

/* ---- the tree ---- */

/* The range of @order whose parent is @ppid. */
static size_t first_child(struct group **order, size_t count, pid_t ppid)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (order[middle]->ppid < ppid)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct cr_error *add_children(struct dump *dump, struct group **order, size_t count,
				     struct process *parent)
{
	for (size_t c = first_child(order, count, parent->host_tgid);
	     c < count && order[c]->ppid == parent->host_tgid; c++) {
		if (order[c]->zombie)
			TRY(zombie_dump(dump, order[c]->threads[0], parent));
		else
			TRY(add_process(dump, order[c], parent));
	}
	return NULL;
}

/* Breadth first from init, so that parents stand before their children. */
static struct cr_error *link_groups(struct dump *dump, struct group **order, size_t count)
{
	struct list *processes = &dump->image.processes;

	for (size_t i = 0; i < count; i++) {
		if (order[i]->tgid == dump->options->init_pid && !order[i]->zombie)
			TRY(add_process(dump, order[i], NULL));
	}
	if (!processes->count)
		return error_new(CR_GONE, "The container's init (host pid %d) is gone",
				 dump->options->init_pid);
	for (size_t i = 0; i < processes->count; i++)
		TRY(add_children(dump, order, count, ((struct process **)processes->items)[i]));
	return NULL;
}

/* Whose parent is not among ours, and whoever is below them. */
static struct cr_error *find_strangers(struct dump *dump, struct group **order, size_t count,
				       const struct wanted_tids *ours)
{
	for (size_t i = 0; i < count; i++) {
		/* zombies of the whole host are among them */
		if (!order[i]->process && !order[i]->zombie &&
		    is_among(ours, order[i]->threads[0]->pid))
			TRY(attached_process(dump, order[i]->tgid, order[i]->ppid));
	}
	return NULL;
}

static struct cr_error *open_root(struct dump *dump)
{
	_cleanup_close_ int proc = -1;

	TRY(proc_open(dump->init->host_tid, dump->init->host_tid, &proc));
	dump->root = openat(proc, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return dump->root < 0 ? error_sys("Failed to open the container's root directory") : NULL;
}

struct cr_error *collect_tree(struct dump *dump, const pid_t *tids, size_t count)
{
	struct wanted_tids ours = {.tids = tids, .count = count};
	struct list groups = {0};
	struct group **order;

	TRY(read_kernel_tasks(dump, tids, count));
	TRY(find_groups(dump, &groups));
	order = pool_calloc(dump->image.pool, groups.count + 1, sizeof(*order));
	if (!order)
		return error_nomem();
	for (size_t i = 0; i < groups.count; i++)
		order[i] = (struct group *)groups.items + i;
	qsort(order, groups.count, sizeof(*order), by_parent);
	TRY(link_groups(dump, order, groups.count));
	TRY(find_strangers(dump, order, groups.count, &ours));
	TRY(sharing_find(dump));
	dump->init = process_leader(*(struct process **)dump->image.processes.items);
	TRY(id_map_read(dump->init->host_tid, dump->image.pool, &dump->image.ids));
	return open_root(dump);
}
