/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "collect.h"

#include <fcntl.h>
#include <search.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "cleanup.h"
#include "kinds/file_owner.h"
#include "kinds/memory.h"
#include "kinds/tty.h"

/* One thread group as first seen. */
struct group {
	pid_t tgid, ppid;
	size_t first, count; /* its threads in dump->kernel_tasks, sorted by tgid */
	struct proc_stat stat;
	struct process *process;
};

struct wanted_tids {
	const pid_t *tids;
	size_t count;
};

static int compare_pids(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

static bool is_among(const struct wanted_tids *wanted, pid_t tid)
{
	return bsearch(&tid, wanted->tids, wanted->count, sizeof(tid), compare_pids) != NULL;
}

/* Ours, and what a child of ours has left: cgroups do not list zombies. */
static bool is_wanted(void *context, const struct kernel_task *task)
{
	return is_among(context, task->pid) ||
	       (task->exit_state && task->pid == task->tgid && is_among(context, task->ppid));
}

/* Whether a zombie stays one for a while: most are waited for as soon as their parent runs again.
 */
static bool lingers(const struct kernel_task *task)
{
	enum { TRIES = 20 };
	struct timespec pause = {.tv_nsec = 1000000};

	for (int i = 0; i < TRIES; i++) {
		_cleanup_close_ int proc = -1;
		_cleanup_error_ struct cr_error *error = proc_open(task->pid, task->pid, &proc);

		if (error)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

static bool has_other_threads(const struct dump *dump, pid_t tgid)
{
	const struct kernel_task *tasks = dump->kernel_tasks.items;

	for (size_t i = 0; i < dump->kernel_tasks.count; i++) {
		if (tasks[i].tgid == tgid && !tasks[i].exit_state)
			return true;
	}
	return false;
}

static struct cr_error *refuse_dead_leader(const struct kernel_task *task)
{
	struct cr_error *error = error_new(
		CR_UNSUPPORTED,
		"The main thread of process %d of the host has ended while others run", task->pid);

	return error_remedy(error_object(error, "dead_leader"),
			    "Not supported yet; restart the program");
}

static struct cr_error *refuse_zombie(struct dump *dump, const struct kernel_task *task)
{
	struct cr_error *error;
	struct proc_stat parent;
	_cleanup_close_ int proc = -1;

	if (dump->running && !lingers(task))
		return NULL;
	if (has_other_threads(dump, task->pid))
		return dump_refuse(dump, refuse_dead_leader(task));
	error = proc_open(task->ppid, task->ppid, &proc);
	if (!error)
		error = proc_stat(proc, &parent);
	if (error)
		return dump_refuse(dump, error);
	error = error_new(
		CR_UNSUPPORTED,
		"Process %d of the host (%s) has not waited for a child that has ended (a "
		"zombie, %d of the host)",
		task->ppid, parent.comm, task->pid);
	error = error_remedy(
		error_object(error, "zombie"),
		"Zombies are not supported yet; try again when it has been waited for");
	return dump_refuse(dump, error);
}

static int by_pid(const void *a, const void *b)
{
	return compare_pids(&((const struct kernel_task *)a)->pid,
			    &((const struct kernel_task *)b)->pid);
}

static int by_parent(const void *a, const void *b)
{
	const struct group *x = *(struct group *const *)a, *y = *(struct group *const *)b;
	int order = compare_pids(&x->ppid, &y->ppid);

	return order ? order : compare_pids(&x->tgid, &y->tgid);
}

static struct cr_error *read_kernel_tasks(struct dump *dump, const pid_t *tids, size_t count)
{
	struct wanted_tids wanted = {.tids = tids, .count = count};
	struct list *tasks = &dump->kernel_tasks;

	tasks->count = 0;
	TRY(kernel_reader_tasks(dump->kernel, dump->image.pool, is_wanted, &wanted, tasks));
	if (tasks->count)
		qsort(tasks->items, tasks->count, sizeof(struct kernel_task), by_pid);
	return NULL;
}

/* Thread groups of the tasks: leaders have tid == tgid. A group whose leader is gone already cannot
 * be named. */
static struct cr_error *find_groups(struct dump *dump, struct list *groups)
{
	struct kernel_task *tasks = dump->kernel_tasks.items;

	for (size_t i = 0; i < dump->kernel_tasks.count; i++) {
		_cleanup_close_ int proc = -1;
		struct group *group;
		struct cr_error *error;

		if (tasks[i].pid != tasks[i].tgid)
			continue;
		if (tasks[i].exit_state) {
			TRY(refuse_zombie(dump, &tasks[i]));
			continue;
		}
		group = list_append(dump->image.pool, groups, sizeof(*group));
		if (!group)
			return error_nomem();
		group->tgid = tasks[i].tgid;
		error = proc_open(group->tgid, group->tgid, &proc);
		if (!error)
			error = proc_stat(proc, &group->stat);
		if (error && error->code == CR_GONE && dump->running) {
			cr_error_free(error);
			groups->count--;
			continue;
		}
		TRY(error);
		group->ppid = group->stat.ppid;
	}
	return NULL;
}

static struct cr_error *add_thread(struct dump *dump, struct process *process,
				   struct kernel_task *task)
{
	struct thread *thread = image_add_thread(&dump->image, process);

	if (!thread)
		return error_nomem();
	thread->host_tid = task->pid;
	thread->kernel = task;
	return NULL;
}

static struct cr_error *add_threads(struct dump *dump, struct process *process)
{
	struct kernel_task *tasks = dump->kernel_tasks.items;

	TRY(add_thread(dump, process, dump_kernel_task(dump, process->host_pid)));
	for (size_t i = 0; i < dump->kernel_tasks.count; i++) {
		if (tasks[i].tgid == process->host_pid && tasks[i].pid != tasks[i].tgid)
			TRY(add_thread(dump, process, &tasks[i]));
	}
	return NULL;
}

static struct cr_error *add_process(struct dump *dump, struct group *group, struct process *parent)
{
	struct process *process = image_add_process(&dump->image, parent);

	if (!process)
		return error_nomem();
	process->host_pid = group->tgid;
	process->stat = group->stat;
	group->process = process;
	return NULL;
}

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

/* Breadth first from init, so that parents stand before their children. */
static struct cr_error *link_groups(struct dump *dump, struct group **order, size_t count)
{
	struct list *processes = &dump->image.processes;

	for (size_t i = 0; i < count; i++) {
		if (order[i]->tgid == dump->options->init_pid)
			TRY(add_process(dump, order[i], NULL));
	}
	if (!processes->count)
		return error_new(CR_GONE, "The container's init (host pid %d) is gone",
				 dump->options->init_pid);
	for (size_t i = 0; i < processes->count; i++) {
		struct process *parent = ((struct process **)processes->items)[i];

		for (size_t c = first_child(order, count, parent->host_pid);
		     c < count && order[c]->ppid == parent->host_pid; c++)
			TRY(add_process(dump, order[c], parent));
	}
	return NULL;
}

static struct cr_error *refuse_strangers(struct dump *dump, struct group **order, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct cr_error *error;

		if (order[i]->process)
			continue;
		error = error_new(
			CR_ISOLATION,
			"Process %d of the host (%s) is in the container, but its parent is not",
			order[i]->tgid, order[i]->stat.comm);
		error = error_object(error, "process");
		TRY(dump_refuse(dump, error_remedy(error,
						   "It came in through lxc-attach or the like; end "
						   "it, or start it from inside the container")));
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
	TRY(refuse_strangers(dump, order, groups.count));
	for_each (struct process *, process, &dump->image.processes)
		TRY(add_threads(dump, process));
	dump->init = process_leader(*(struct process **)dump->image.processes.items);
	return open_root(dump);
}

/* The descriptors that the kinds look through are open while one process is looked at, not longer.
 */
static struct cr_error *open_process(struct process *process)
{
	TRY(proc_open(process->host_pid, process->host_pid, &process->proc));
	process->pidfd = (int)syscall(SYS_pidfd_open, process->host_pid, 0);
	if (process->pidfd < 0)
		return errno == ESRCH ? error_new(CR_GONE, "Process %d is gone", process->host_pid)
				      : error_sys("Failed to open a pidfd");
	return NULL;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static struct cr_error *look_at_thread(struct dump *dump, struct thread *thread)
{
	TRY(proc_open(thread->process->host_pid, thread->host_tid, &thread->proc));
	TRY(proc_status(thread->proc, dump->image.pool, &thread->status));
	thread->tid = thread->status.ns_pid;
	if (thread == process_leader(thread->process))
		thread->process->pid = thread->tid;
	return NULL;
}

static struct cr_error *thread_kinds(struct dump *dump, struct thread *thread)
{
	for (unsigned int k = 0; k < kinds_count(); k++) {
		const struct kind *kind = kinds[k];
		void *state;

		if (kind->scope != SCOPE_THREAD)
			continue;
		if (kind->check_thread)
			TRY(dump_refuse(dump, kind->check_thread(dump, thread)));
		if (dump->running || !kind->dump_thread)
			continue;
		state = thread_new_state(&dump->image, thread, kind);
		if (!state)
			return error_nomem();
		TRY(kind->dump_thread(dump, thread, state));
	}
	return NULL;
}

static struct cr_error *process_kinds(struct dump *dump, struct process *process)
{
	for (unsigned int k = 0; k < kinds_count(); k++) {
		const struct kind *kind = kinds[k];
		void *state;

		if (kind->scope != SCOPE_PROCESS)
			continue;
		if (kind->check_process)
			TRY(dump_refuse(dump, kind->check_process(dump, process)));
		if (dump->running || !kind->dump_process)
			continue;
		state = process_new_state(&dump->image, process, kind);
		if (!state)
			return error_nomem();
		TRY(kind->dump_process(dump, process, state));
	}
	return NULL;
}

static struct cr_error *look_at_process(struct dump *dump, struct process *process)
{
	TRY(open_process(process));
	for_each (struct thread *, thread, &process->threads)
		TRY(look_at_thread(dump, thread));
	TRY(process_kinds(dump, process));
	for_each (struct thread *, member, &process->threads)
		TRY(thread_kinds(dump, member));
	return NULL;
}

static void leave_process(struct process *process)
{
	for_each (struct thread *, thread, &process->threads)
		close_fd(&thread->proc);
	close_fd(&process->proc);
	close_fd(&process->pidfd);
}

static struct cr_error *look_at_all(struct dump *dump)
{
	for_each (struct process *, process, &dump->image.processes) {
		struct cr_error *error = look_at_process(dump, process);

		leave_process(process);
		/* a task that ends during the survey is no obstacle */
		TRY(dump->running ? dump_refuse(dump, error)
				  : error_task(error, process->pid, process->stat.comm));
	}
	return NULL;
}

struct cr_error *collect_checks(struct dump *dump)
{
	return look_at_all(dump);
}

/* Numbers of tasks that were met before the tasks themselves. */
static struct cr_error *resolve_tasks(struct dump *dump)
{
	for_each (struct process *, process, &dump->image.processes)
		terminal_resolve(dump, process);
	for_each (struct object *, object, &dump->image.objects) {
		if (file_of(object))
			TRY(file_resolve_owner(dump, object));
	}
	return NULL;
}

struct cr_error *collect_states(struct dump *dump)
{
	TRY(look_at_all(dump));
	return resolve_tasks(dump);
}

struct cr_error *collect_pages(struct dump *dump)
{
	TRY(memory_find_kin(dump));
	for_each (struct process *, process, &dump->image.processes)
		TRY(memory_copy_pages(dump, process));
	return NULL;
}

uint64_t collect_memory_estimate(struct dump *dump)
{
	enum { SPARE = 32 << 20 };
	uint64_t bytes = SPARE;

	for_each (struct process *, process, &dump->image.processes) {
		const struct proc_status *status = &process_leader(process)->status;

		bytes += status->rss_anon + status->rss_shmem;
	}
	return bytes + bytes / 16;
}

static void keep_node(void *node)
{
	(void)node; /* lives in the pool */
}

void collect_forget(struct dump *dump)
{
	struct image *image = &dump->image;

	for_each (struct process *, process, &image->processes)
		leave_process(process);
	close_fd(&dump->root);
	tdestroy(dump->files, keep_node);
	dump->files = NULL;
	dump->init = NULL;
	dump->open_files = 0;
	memset(&dump->shared_maps, 0, sizeof(dump->shared_maps));
	memset(&dump->pipes, 0, sizeof(dump->pipes));
	memset(&image->objects, 0, sizeof(image->objects));
	memset(&image->processes, 0, sizeof(image->processes));
	image->next_id = image->threads = 0;
}
