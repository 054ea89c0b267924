/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "in_flight.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../cleanup.h"
#include "file.h"
#include "files.h"
#include "unix_socket.h"

/* This process, as one that holds what messages hold. */
static struct cr_error *make_holder(struct dump *dump, struct process **ret)
{
	struct pool *pool = dump->image.pool;
	struct process *process = pool_alloc(pool, sizeof(*process));
	struct thread *thread = pool_alloc(pool, sizeof(*thread)), **slot;

	if (!process || !thread)
		return error_nomem();
	*process = (struct process){.host_pid = getpid(), .host_tgid = getpid(), .proc = -1};
	process->fds = process->pidfd = -1;
	process->files_known = true;
	process->states = pool_calloc(pool, kinds_count(), sizeof(void *));
	slot = list_append(pool, &process->threads, sizeof(*slot));
	if (!process->states || !slot || !process_new_state(&dump->image, process, &files_kind))
		return error_nomem();
	*slot = thread;
	thread->process = process;
	thread->host_tid = process->host_pid;
	thread->kernel = dump->init->kernel;
	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++)
		thread->first[sort] = thread;
	TRY(proc_open(process->host_pid, process->host_pid, &process->proc));
	dump->flight = *ret = process;
	process->pidfd = (int)syscall(SYS_pidfd_open, process->host_pid, 0);
	return process->pidfd < 0 ? error_sys("Failed to open a pidfd") : NULL;
}

static struct cr_error *read_file(struct dump *dump, uint64_t file, struct kernel_open_file *ret)
{
	if (!dump->kernel_open_files)
		TRY(kernel_open_files_open(dump->btf, dump->peek, &dump->kernel_open_files));
	return kernel_open_file_read(dump->kernel_open_files, file, ret);
}

struct cr_error *in_flight_object(struct dump *dump, const struct object *socket, uint64_t file,
				  int fd, struct object **ret)
{
	struct process *flight = dump->flight;
	_cleanup_close_ int owned = fd;
	struct kernel_open_file known;
	struct kernel_file *kernel;

	if (!flight)
		TRY(make_holder(dump, &flight));
	TRY(read_file(dump, file, &known));
	/* messages say who they are about */
	flight->pid = socket->holder->pid;
	flight->stat = socket->holder->stat;
	kernel = list_append(dump->image.pool, &flight->open_files, sizeof(*kernel));
	if (!kernel)
		return error_nomem();
	*kernel = (struct kernel_file){
		.fd = steal_fd(&owned),
		.file = file,
		.flags = known.flags & ~(uint32_t)O_CLOEXEC,
		.position = known.position,
		.locks = known.locks,
		.marks = known.marks,
		.write_hint = known.write_hint,
		.owner = known.owner_address,
		.owner_signal = known.owner_signal,
		.owner_uid = known.owner_uid,
		.owner_euid = known.owner_euid,
	};
	return file_adopt(dump, flight, kernel, ret);
}

struct cr_error *in_flight_note(struct dump *dump, uint64_t file)
{
	struct kernel_open_file known;

	TRY(read_file(dump, file, &known));
	return known.locks ? hash_add(dump->image.pool, &dump->locked_inodes, known.inode, 0, dump)
			   : NULL;
}

struct cr_error *in_flight_dump(struct dump *dump)
{
	const struct list *objects = &dump->image.objects;

	/* it grows as we go through it */
	for (size_t i = 0; i < objects->count; i++) {
		struct object *object = ((struct object **)objects->items)[i];

		if (object->kind == &unix_socket_kind)
			TRY(error_task(unix_queue_dump(dump, object), object->holder->pid,
				       object->holder->stat.comm));
	}
	return NULL;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void in_flight_forget(struct dump *dump)
{
	struct process *flight = dump->flight;
	const struct kernel_file *files;

	if (!flight)
		return;
	files = flight->open_files.items;
	for (size_t i = 0; i < flight->open_files.count; i++)
		close(files[i].fd);
	flight->open_files.count = 0;
	close_fd(flight->proc);
	close_fd(flight->fds);
	close_fd(flight->pidfd);
	dump->flight = NULL;
}
