/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The contents page of a restart. */
#include "restore.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "births.h"
#include "cleanup.h"
#include "clock_ns.h"
#include "clocks.h"
#include "clone.h"
#include "image/header.h"
#include "image/inventory.h"
#include "keys.h"
#include "kinds/file.h"
#include "kinds/file_owner.h"
#include "kinds/files.h"
#include "kinds/fs.h"
#include "kinds/ipc_namespace.h"
#include "kinds/keyrings.h"
#include "kinds/lease.h"
#include "kinds/lease_break_time.h"
#include "kinds/lock.h"
#include "kinds/login.h"
#include "kinds/memory.h"
#include "kinds/pidfd.h"
#include "kinds/pipe.h"
#include "kinds/shared_memory.h"
#include "kinds/sysv.h"
#include "kinds/sysv_shared_memory.h"
#include "kinds/tty.h"
#include "kinds/unix_socket.h"
#include "pin.h"
#include "release.h"
#include "steps.h"
#include "takeover.h"
#include "tree.h"

struct cr_error *restore_fetch(struct restore *restore, pid_t tid, int remote_fd, int *ret)
{
	TRY(task_get_fd(tid, remote_fd, ret));
	program_call(restore->program, "close a fetched descriptor", SYS_close,
		     (uint64_t)remote_fd);
	return NULL;
}

struct cr_error *restore_lend(struct restore *restore, int fd, int *number)
{
	struct program *p = restore->program;
	uint64_t where;

	TRY(program_reserve(p, 1, 4096));
	TRY(channel_send(&restore->channel, &fd, 1));
	where = channel_receive(&restore->channel, p, 1);
	TRY(program_run(p));
	return program_output(p, where, number, sizeof(*number));
}

int restore_append_open(struct restore *restore, const struct bytes *path, uint64_t flags)
{
	struct program *p = restore->program;

	return program_call(p, image_text(&restore->image, "open '%s'", path->data), SYS_openat,
			    (uint64_t)AT_FDCWD, program_bytes(p, path),
			    flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

struct cr_error *restore_open(struct restore *restore, const struct bytes *path, uint64_t flags,
			      int *ret)
{
	struct program *p = restore->program;
	int call;

	TRY(program_reserve(p, 2, path->len + 64));
	call = restore_append_open(restore, path, flags);
	TRY(program_run(p));
	return restore_fetch(restore, p->tid, (int)program_result(p, call), ret);
}

struct cr_error *restore_status(struct restore *restore, struct thread *thread)
{
	_cleanup_close_ int proc = -1;

	if (thread->status.tgid)
		return NULL;
	TRY(proc_open(process_leader(thread->process)->host_tid, thread->host_tid, &proc));
	return proc_status(proc, restore->image.pool, &thread->status);
}

static struct cr_error *read_image(struct restore *restore)
{
	TRY(inventory_read(&restore->image, restore->options->image_fd));
	/* who could not be made is found out here, before anything is touched */
	return births_plan(&restore->image);
}

static struct cr_error *load(struct restore *restore)
{
	TRY(step(restore->options->fault, RESTART_LOAD));
	TRY(read_image(restore));
	TRY(header_check_host(&restore->image));
	/* into the page cache and our page tables, before anybody waits for it */
	if (restore->image.pages.count)
		madvise(restore->image.pages.data, restore->image.pages.count * PAGE,
			MADV_POPULATE_READ);
	TRY(step(restore->options->fault, RESTART_READY));
	if (restore->options->ready_fd >= 0 && write(restore->options->ready_fd, "R", 1) != 1)
		return error_new(CR_CANCELLED, "The supervisor has gone");
	return NULL;
}

static struct cr_error *open_files(struct restore *restore, bool aliases)
{
	for_each (struct object *, object, &restore->image.objects) {
		if (!object->kind->restore_file || tty_is_alias(object) != aliases)
			continue;
		TRY(file_open_ahead(restore, object_at));
		TRY(object->kind->restore_file(restore, object, object->state));
	}
	return program_run(restore->program);
}

/* What waits in a socket is there before an epoll instance looks at it: in the order of the kinds. */
static struct cr_error *restore_links(struct restore *restore)
{
	TRY(program_run(restore->program));
	files_find_holders(&restore->image);
	for (unsigned int k = 0; k < kinds_count(); k++) {
		for_each (struct object *, object, &restore->image.objects) {
			if (object->kind == kinds[k] && kinds[k]->restore_links)
				TRY(kinds[k]->restore_links(restore, object));
		}
	}
	return unix_queues_finish(restore);
}

/* Objects of the ipc namespace, when all who may be their users stand. */
static struct cr_error *restore_namespace(struct restore *restore)
{
	TRY(sysv_finish(restore));
	TRY(sysv_queues_restore(restore));
	TRY(sysv_semaphores_restore(restore));
	TRY(ipc_namespace_finish(restore));
	program_begin(restore->program, restore->init);
	return NULL;
}

/* /dev/tty comes last: only a process of its session can open it. */
static struct cr_error *restore_objects(struct restore *restore)
{
	TRY(leases_find(restore));
	TRY(leases_restore_forced(restore));
	program_begin(restore->program, restore->init);
	TRY(open_files(restore, false));
	pipe_finish(restore);
	TRY(pidfd_finish(restore));
	program_begin(restore->program, restore->init);
	TRY(open_files(restore, true));
	TRY(memfd_seal(restore));
	TRY(restore_namespace(restore));
	return restore_links(restore);
}

static struct cr_error *restore_thread(struct restore *restore, struct thread *thread)
{
	program_begin(restore->program, thread->host_tid);
	for (unsigned int k = 0; k < kinds_count(); k++) {
		if (kinds[k]->scope == SCOPE_THREAD && kinds[k]->restore_thread)
			TRY(kinds[k]->restore_thread(restore, thread, thread->states[k]));
	}
	return program_run(restore->program);
}

static struct cr_error *restore_threads(struct restore *restore, struct process *process)
{
	restore_begin(restore, process);
	for (unsigned int k = 0; k < kinds_count(); k++) {
		if (kinds[k]->restore_with_threads)
			TRY(kinds[k]->restore_with_threads(restore, process, process->states[k]));
	}
	TRY(program_run(restore->program));
	for_each (struct thread *, thread, &process->threads)
		TRY(restore_thread(restore, thread));
	return NULL;
}

/* Of threads that have descriptors or directories of their own. */
static struct cr_error *restore_own_tables(struct restore *restore, struct process *process)
{
	for_each (struct thread *, thread, &process->threads) {
		struct process *own = thread->own;

		if (!own)
			continue;
		restore_begin(restore, own);
		TRY(files_kind.restore_process(restore, own, process_state(own, &files_kind)));
		TRY(fs_kind.restore_process(restore, own, process_state(own, &fs_kind)));
		TRY(program_run(restore->program));
		TRY(leases_restore(restore, own));
	}
	restore_begin(restore, process);
	return NULL;
}

static struct cr_error *restore_process(struct restore *restore, struct process *process)
{
	restore_begin(restore, process);
	for (unsigned int k = 0; k < kinds_count(); k++) {
		if (kinds[k]->restore_process)
			TRY(kinds[k]->restore_process(restore, process, process->states[k]));
	}
	TRY(program_run(restore->program));
	TRY(restore_own_tables(restore, process));
	return leases_restore(restore, process);
}

static struct cr_error *make_threads(struct restore *restore)
{
	TRY(keys_begin(restore));
	for_each (struct process *, process, &restore->image.processes) {
		restore_begin(restore, process);
		TRY(error_task(keyrings_join(restore, process), process->pid, ""));
		TRY(error_task(clone_threads(restore, process), process->pid, ""));
	}
	return NULL;
}

static struct cr_error *finish_tree(struct restore *restore)
{
	for_each (struct process *, process, &restore->image.processes) {
		TRY(error_task(memory_finish(restore, process), process->pid, ""));
		TRY(error_task(program_run(restore->program), process->pid, ""));
		restore_begin(restore, process);
		TRY(error_task(login_restore(restore, process), process->pid, ""));
	}
	if (restore->clocks.last_entry)
		return NULL;
	TRY(clocks_enter(restore));
	return make_threads(restore);
}

/* The release is planned as late as can be: nobody enters the clocks who has a second thread. */
static struct cr_error *restore_all(struct restore *restore)
{
	uint64_t begin = clock_ns(CLOCK_MONOTONIC);

	for_each (struct process *, process, &restore->image.processes)
		TRY(error_task(restore_process(restore, process), process->pid, ""));
	restore->clocks.took = (int64_t)(clock_ns(CLOCK_MONOTONIC) - begin);
	if (restore->clocks.last_entry) {
		TRY(clocks_enter(restore));
		TRY(make_threads(restore));
	}
	for_each (struct process *, owner, &restore->image.processes)
		TRY(error_task(restore_threads(restore, owner), owner->pid, ""));
	return NULL;
}

static struct cr_error *restore_states(struct restore *restore)
{
	TRY(locks_restore_mapped(restore));
	TRY(leases_restore_mapped(restore));
	TRY(restore_all(restore));
	TRY(keys_finish(restore));
	for_each (struct process *, leader, &restore->image.processes)
		TRY(terminal_foreground(restore, leader));
	for_each (struct object *, object, &restore->image.objects) {
		if (object->kind->restore_file && !lease_is_breaking(restore, object))
			TRY(file_restore_owner(restore, object));
	}
	return locks_restore(restore);
}

static struct cr_error *build(struct restore *restore)
{
	TRY(step(restore->options->fault, RESTART_TAKEN_OVER));
	pin(restore);
	TRY(takeover_prepare(restore));
	TRY(clocks_enter_early(restore));
	TRY(ipc_namespace_begin(restore));
	TRY(tree_build(restore));
	TRY(finish_tree(restore));
	TRY(step(restore->options->fault, RESTART_TREE));
	TRY(restore_objects(restore));
	TRY(step(restore->options->fault, RESTART_FILES));
	TRY(restore_states(restore));
	return step(restore->options->fault, RESTART_STATES);
}

static void count(const struct restore *restore, struct cr_restart_result *result)
{
	result->init_pid = restore->init;
	result->released = restore->release;
	result->late = restore->clocks.late;
	result->processes = (uint32_t)restore->image.processes.count;
	result->threads = restore->image.threads;
	result->pages = restore->image.pages.count;
	for_each (struct object *, object, &restore->image.objects)
		result->files += object->fd >= 0;
}

static struct cr_error *restart(struct restore *restore, struct cr_restart_result *result)
{
	uint64_t begin = clock_ns(CLOCK_MONOTONIC);

	TRY(load(restore));
	result->loading = clock_ns(CLOCK_MONOTONIC) - begin;
	TRY(takeover(restore));
	begin = clock_ns(CLOCK_MONOTONIC);
	TRY(build(restore));
	result->building = clock_ns(CLOCK_MONOTONIC) - begin;
	begin = clock_ns(CLOCK_MONOTONIC);
	TRY(release_all(restore));
	result->releasing = clock_ns(CLOCK_MONOTONIC) - begin;
	count(restore, result);
	return step(restore->options->fault, RESTART_RELEASE);
}

static struct cr_error *restore_init(struct restore *restore,
				     const struct cr_restart_options *options,
				     const struct cr_listener *listener)
{
	memset(restore, 0, sizeof(*restore));
	log_init(&restore->log, listener);
	restore->options = options;
	restore->channel.ours = -1;
	proc_raise_own_limit();
	TRY(pool_create(1 << 20, &restore->image.pool));
	restore->program = calloc(1, sizeof(*restore->program));
	if (!restore->program)
		return error_nomem();
	restore->program->log = &restore->log;
	restore->program->pool = restore->image.pool;
	return NULL;
}

static void restore_deinit(struct restore *restore)
{
	pipe_finish(restore);
	for_each (struct object *, object, &restore->image.objects) {
		if (object->fd >= 0)
			close(object->fd);
	}
	lease_break_time_close(restore->lease_break_time);
	channel_close(&restore->channel);
	free(restore->program);
	page_store_deinit(&restore->image.pages);
	pool_destroy(restore->image.pool);
}

struct cr_error *cr_restart(const struct cr_restart_options *options,
			    const struct cr_listener *listener, struct cr_restart_result *result)
{
	struct restore restore;
	struct cr_error *error = restore_init(&restore, options, listener);

	memset(result, 0, sizeof(*result));
	if (!error)
		error = restart(&restore, result);
	restore_deinit(&restore);
	return error;
}

struct cr_error *cr_image_check(int image_fd, const struct cr_listener *listener)
{
	struct cr_restart_options options = {.image_fd = image_fd};
	struct restore restore;
	struct cr_error *error = restore_init(&restore, &options, listener);

	if (!error)
		error = read_image(&restore);
	restore_deinit(&restore);
	return error;
}
