/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "collect.h"

#include <fcntl.h>
#include <search.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "births.h"
#include "cleanup.h"
#include "kinds/dnotify.h"
#include "kinds/file_owner.h"
#include "kinds/files.h"
#include "kinds/fs.h"
#include "kinds/in_flight.h"
#include "kinds/ipc_namespace.h"
#include "kinds/key.h"
#include "kinds/memory.h"
#include "kinds/sysv.h"
#include "kinds/sysv_shared_memory.h"
#include "kinds/tty.h"
#include "kinds/zombie.h"
#include "sharing.h"
#include "task_status.h"

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

/* The descriptors that the kinds look through are open while one process is looked at, not longer.
 */
static struct cr_error *open_pidfd(struct process *process)
{
	bool thread = process->host_pid != process->host_tgid;

	process->pidfd = (int)syscall(SYS_pidfd_open, process->host_pid, thread ? PIDFD_THREAD : 0);
	if (process->pidfd >= 0)
		return NULL;
	if (errno == ESRCH)
		return error_new(CR_GONE, "Process %d is gone", process->host_pid);
	if (errno != EINVAL || !thread)
		return error_sys("Failed to open a pidfd");
	return error_remedy(error_new(CR_HOST,
				      "This kernel gives no pidfd of thread %d of the host, which "
				      "is not the first of its process",
				      process->host_pid),
			    "Use Linux 6.12 or newer, or end the process");
}

static struct cr_error *open_process(struct process *process)
{
	TRY(proc_open(process->host_pid, process->host_pid, &process->proc));
	return open_pidfd(process);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static struct cr_error *look_at_thread(struct dump *dump, struct thread *thread)
{
	TRY(task_status(dump, thread));
	thread->tid = thread->status.ns_pid;
	if (thread == process_leader(thread->process))
		thread->process->pid = thread->status.ns_tgid;
	return NULL;
}

/* Under the stop each look by itself; before it, where looks are repeated, only whose they are. */
static void tell_look(struct dump *dump, const struct kind *kind, const char *whose, pid_t id)
{
	if (!dump->running)
		log_say(&dump->log, CR_DEBUG, "Read %s of %s %d", kind->name, whose, id);
}

static struct cr_error *thread_kinds(struct dump *dump, struct thread *thread)
{
	for (unsigned int k = 0; k < kinds_count(); k++) {
		const struct kind *kind = kinds[k];
		void *state;

		if (kind->scope != SCOPE_THREAD)
			continue;
		tell_look(dump, kind, "thread", thread->tid);
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
		tell_look(dump, kind, "process", process->pid);
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

static void leave_process(struct process *process)
{
	close_fd(&process->proc);
	close_fd(&process->fds);
	close_fd(&process->pidfd);
}

static struct cr_error *look_at_tables(struct dump *dump, struct process *own)
{
	static const struct kind *const table_kinds[] = {&files_kind, &fs_kind};

	TRY(open_process(own));
	for (size_t i = 0; i < sizeof(table_kinds) / sizeof(table_kinds[0]); i++) {
		const struct kind *kind = table_kinds[i];

		TRY(dump_refuse(dump, kind->check_process(dump, own)));
		if (!dump->running)
			TRY(kind->dump_process(dump, own, process_state(own, kind)));
	}
	return dump_refuse(dump, dnotify_check_thread(dump, own));
}

/* Threads with descriptors or directories of their own. */
static struct cr_error *look_at_own_tables(struct dump *dump, const struct process *process)
{
	for_each (struct thread *, thread, &process->threads) {
		struct cr_error *error;

		if (!thread->own)
			continue;
		thread->own->pid = thread->tid;
		error = look_at_tables(dump, thread->own);
		leave_process(thread->own);
		TRY(error);
	}
	return NULL;
}

static struct cr_error *look_at_process(struct dump *dump, struct process *process)
{
	TRY(open_process(process));
	for_each (struct thread *, thread, &process->threads)
		TRY(look_at_thread(dump, thread));
	TRY(process_kinds(dump, process));
	TRY(look_at_own_tables(dump, process));
	for_each (struct thread *, member, &process->threads)
		TRY(thread_kinds(dump, member));
	return NULL;
}

static struct cr_error *look_at_all(struct dump *dump)
{
	for_each (struct process *, process, &dump->image.processes) {
		struct cr_error *error;

		log_say(&dump->log, CR_DEBUG, "Look at process %d of the host (%s)",
			process->host_pid, process->stat.comm);
		error = look_at_process(dump, process);
		leave_process(process);
		/* a task that ends during the survey is no obstacle */
		TRY(dump->running ? dump_refuse(dump, error)
				  : error_task(error, process->pid, process->stat.comm));
	}
	return NULL;
}

/* What the namespaces hold, whoever uses it. */
static struct cr_error *dump_namespace(struct dump *dump)
{
	log_say(&dump->log, CR_DEBUG, "Look at keys and the IPC namespace");
	TRY(dump_refuse(dump, keys_of_users(dump)));
	TRY(ipc_namespace_dump(dump));
	TRY(dump_refuse(dump, sysv_dump_detached(dump)));
	TRY(dump_refuse(dump, sysv_queues_dump(dump)));
	return dump_refuse(dump, sysv_semaphores_dump(dump));
}

struct cr_error *collect_checks(struct dump *dump)
{
	TRY(look_at_all(dump));
	TRY(dump_refuse(dump, births_plan(&dump->image)));
	return dump_namespace(dump);
}

/* Numbers of tasks that were met before the tasks themselves. */
static struct cr_error *resolve_tasks(struct dump *dump)
{
	for_each (struct process *, process, &dump->image.processes)
		terminal_resolve(dump, process);
	for_each (struct process *, zombie, &dump->image.zombies)
		zombie_resolve(zombie);
	for_each (struct object *, object, &dump->image.objects) {
		if (file_of(object))
			TRY(file_resolve_owner(dump, object));
	}
	return NULL;
}

static struct cr_error *dump_links(struct dump *dump)
{
	for_each (struct object *, object, &dump->image.objects) {
		if (object->kind->dump_links)
			TRY(object->kind->dump_links(dump, object));
	}
	return NULL;
}

struct cr_error *collect_states(struct dump *dump)
{
	TRY(look_at_all(dump));
	TRY(in_flight_dump(dump));
	TRY(births_plan(&dump->image));
	TRY(sharing_dump(dump));
	TRY(dump_links(dump));
	TRY(dump_namespace(dump));
	return resolve_tasks(dump);
}

struct cr_error *collect_pages(struct dump *dump)
{
	TRY(memory_find_kin(dump));
	for_each (struct process *, process, &dump->image.processes) {
		log_say(&dump->log, CR_DEBUG, "Copy the pages of process %d", process->pid);
		TRY(memory_copy_pages(dump, process));
	}
	return NULL;
}

/* What a fork(2) has left as it was is copied once: of children only their share is counted. */
static uint64_t own_memory(const struct process *process)
{
	uint64_t all = process_leader(process)->status.rss_anon, share = all;
	_cleanup_close_ int proc = -1;
	struct cr_error *error;

	if (!process->parent || process->parent->stat.start_stack != process->stat.start_stack)
		return all;
	error = proc_open(process->host_pid, process->host_pid, &proc);
	if (!error)
		error = proc_anonymous_share(proc, &share);
	cr_error_free(error); /* it has ended, or the kernel does not tell */
	return share < all ? share : all;
}

uint64_t collect_memory_estimate(struct dump *dump)
{
	enum { SPARE = 32 << 20 };
	uint64_t bytes = SPARE + dump->contents_bytes;

	for_each (struct process *, process, &dump->image.processes)
		bytes += own_memory(process);
	return bytes + bytes / 16;
}

static void keep_node(void *node)
{
	(void)node; /* lives in the pool */
}

static void forget_tree(void **root)
{
	tdestroy(*root, keep_node);
	*root = NULL;
}

void collect_forget(struct dump *dump)
{
	struct image *image = &dump->image;

	for_each (struct process *, process, &image->processes)
		leave_process(process);
	in_flight_forget(dump);
	close_fd(&dump->root);
	forget_tree(&dump->files);
	dump->init = NULL;
	dump->open_files = 0;
	forget_tree(&dump->contents);
	forget_tree(&dump->pipe_ends);
	forget_tree(&dump->core_cookies);
	forget_tree(&dump->keys);
	forget_tree(&dump->session_keyrings);
	dump->contents_bytes = 0;
	dump->core_groups = 0;
	memset(&dump->filesystems, 0, sizeof(dump->filesystems));
	memset(&dump->seccomp_filters, 0, sizeof(dump->seccomp_filters));
	memset(&dump->seccomp_chains, 0, sizeof(dump->seccomp_chains));
	memset(&dump->pipes, 0, sizeof(dump->pipes));
	memset(&dump->attached, 0, sizeof(dump->attached));
	memset(&dump->ttys, 0, sizeof(dump->ttys));
	memset(&dump->tty_inputs, 0, sizeof(dump->tty_inputs));
	memset(&dump->notices, 0, sizeof(dump->notices));
	memset(&dump->semaphore_sets, 0, sizeof(dump->semaphore_sets));
	memset(&dump->sysv_segments, 0, sizeof(dump->sysv_segments));
	memset(&dump->unix_sockets, 0, sizeof(dump->unix_sockets));
	memset(&image->objects, 0, sizeof(image->objects));
	memset(&image->processes, 0, sizeof(image->processes));
	memset(&image->zombies, 0, sizeof(image->zombies));
	memset(&image->tables, 0, sizeof(image->tables));
	memset(&image->numbers, 0, sizeof(image->numbers));
	image->next_id = image->threads = 0;
}
