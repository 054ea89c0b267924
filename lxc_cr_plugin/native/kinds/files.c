/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptor tables: which number shows which open file description. */
#include "files.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "../sharing.h"
#include "file.h"

enum { MOST_FILES = 1 << 30 };

const struct field files_row_fields[] = {
	FIELD_INT(struct files_row, fd, 0, MOST_FILES, "descriptor number"),
	FIELD_UINT(struct files_row, object, 1, UINT32_MAX, "open file description"),
	FIELD_UINT(struct files_row, close_on_exec, 0, 1, "FD_CLOEXEC"),
	FIELD_END,
};

static const struct field files_fields[] = {
	FIELD_ROWS(struct files, descriptors, struct files_row, files_row_fields, 1 << 24,
		   "descriptor, open file description, close-on-exec; ascending"),
	FIELD_END,
};

static struct cr_error *files_check(struct dump *dump, struct process *process)
{
	struct list numbers = {0};

	if (!dump->running)
		return NULL;
	TRY(file_numbers(dump, process, &numbers));
	for (size_t i = 0; i < numbers.count; i++)
		TRY(dump_refuse(dump, file_check(dump, process, ((int *)numbers.items)[i])));
	return NULL;
}

static struct cr_error *files_dump(struct dump *dump, struct process *process, void *state)
{
	struct files *files = state;
	struct list numbers = {0};

	if (!sharing_is_first(process, SHARE_FILES))
		return NULL;
	TRY(file_numbers(dump, process, &numbers));
	for (size_t i = 0; i < numbers.count; i++) {
		struct files_row *row =
			list_append(dump->image.pool, &files->descriptors, sizeof(*row));
		struct object *object;
		bool cloexec;

		if (!row)
			return error_nomem();
		row->fd = ((int *)numbers.items)[i];
		TRY(file_object(dump, process, row->fd, &object, &cloexec));
		row->object = object->id;
		row->close_on_exec = cloexec;
	}
	return NULL;
}

/* What is shown twice is found by its lowest number. */
static const struct files_row *row_of(struct image *image, struct files *files,
				      const struct object *object)
{
	struct files_row *rows = files->descriptors.items;

	for (; files->found < files->descriptors.count; files->found++) {
		struct files_row *row = &rows[files->found];
		struct cr_error *error =
			hash_add(image->pool, &files->by_object, row->object, 0, row);

		if (!error)
			continue;
		cr_error_free(error);
		return NULL;
	}
	return hash_find(&files->by_object, object->id, 0);
}

int files_number(struct image *image, const struct process *process, const struct object *object)
{
	const struct process *owner = sharing_owner(process, SHARE_FILES);
	const struct files_row *row = row_of(image, process_state(owner, &files_kind), object);

	return row ? row->fd : -1;
}

static int by_number(const void *key, const void *item)
{
	int a = *(const int *)key, b = ((const struct files_row *)item)->fd;

	return (a > b) - (a < b);
}

bool files_show(const struct process *process, int fd, const struct object *object)
{
	const struct files *files = process_state(sharing_owner(process, SHARE_FILES), &files_kind);
	const struct files_row *row =
		files->descriptors.count
			? bsearch(&fd, files->descriptors.items, files->descriptors.count,
				  sizeof(*row), by_number)
			: NULL;

	return row && row->object == object->id;
}

int files_highest(const struct image *image)
{
	int highest = -1;

	for_each (struct process *, process, &image->tables) {
		const struct files *files = process_state(process, &files_kind);
		const struct files_row *rows = files->descriptors.items;

		for (size_t i = 0; i < files->descriptors.count; i++)
			highest = rows[i].fd > highest ? rows[i].fd : highest;
	}
	return highest;
}

void files_find_holders(struct image *image)
{
	for_each (struct process *, process, &image->tables) {
		const struct files *files = process_state(process, &files_kind);
		const struct files_row *rows = files->descriptors.items;

		for (size_t i = 0; i < files->descriptors.count; i++) {
			struct object *object = image_object(image, rows[i].object);

			if (!object || object->holder)
				continue;
			object->holder = process;
			object->holder_fd = rows[i].fd;
		}
	}
}

/* All arrive in a row from number 0 on, for nothing else is open. */
static struct cr_error *receive_all(struct restore *restore, const struct files *files)
{
	const struct files_row *rows = files->descriptors.items;
	size_t count = files->descriptors.count;
	int batch[CHANNEL_BATCH];

	for (size_t done = 0, n; done < count; done += n) {
		n = count - done < CHANNEL_BATCH ? count - done : CHANNEL_BATCH;
		for (size_t i = 0; i < n; i++) {
			struct object *object =
				image_object(&restore->image, rows[done + i].object);

			if (!object || object->fd < 0)
				return error_new(CR_IMAGE,
						 "Descriptor %d shows object %u, which is not "
						 "an open file",
						 rows[done + i].fd, rows[done + i].object);
			batch[i] = object->fd;
		}
		TRY(channel_send(&restore->channel, batch, n));
		TRY(program_reserve(restore->program, 8, 4096));
		channel_receive(&restore->channel, restore->program, n);
		TRY(program_run(restore->program));
	}
	return NULL;
}

/* From position i to number rows[i].fd >= i: backwards, so that no number is overwritten before it
 * has moved. */
static struct cr_error *move_all(struct restore *restore, const struct files *files)
{
	const struct files_row *rows = files->descriptors.items;
	struct program *p = restore->program;

	for (size_t i = files->descriptors.count; i-- > 0;) {
		TRY(program_reserve(p, 2, 0));
		if ((size_t)rows[i].fd != i)
			program_call(p, "move a descriptor", SYS_dup3, i, (uint64_t)rows[i].fd,
				     rows[i].close_on_exec ? O_CLOEXEC : 0);
		else if (rows[i].close_on_exec)
			program_call(p, "set close-on-exec", SYS_fcntl, i, F_SETFD, FD_CLOEXEC);
	}
	return NULL;
}

/* Positions that were only passed through. */
static struct cr_error *close_rest(struct restore *restore, const struct files *files)
{
	const struct files_row *rows = files->descriptors.items;
	size_t row = 0;

	for (size_t i = 0; i < files->descriptors.count; i++) {
		while (row < files->descriptors.count && (size_t)rows[row].fd < i)
			row++;
		if (row < files->descriptors.count && (size_t)rows[row].fd == i)
			continue;
		TRY(program_reserve(restore->program, 1, 0));
		program_call(restore->program, "close a passing descriptor", SYS_close, i);
	}
	return NULL;
}

static struct cr_error *files_restore(struct restore *restore, struct process *process,
				      const void *state)
{
	const struct files *files = state;
	const struct files_row *rows = files->descriptors.items;
	struct program *p = restore->program;
	uint64_t channel = (uint64_t)restore->channel.theirs;

	if (!sharing_is_first(process, SHARE_FILES))
		return NULL;
	for (size_t i = 1; i < files->descriptors.count; i++) {
		if (rows[i].fd <= rows[i - 1].fd)
			return error_new(CR_IMAGE, "The descriptors of process %d are not in order",
					 process->pid);
	}
	program_call(p, "close inherited descriptors", SYS_close_range, 0, channel - 1, 0);
	program_call(p, "close inherited descriptors", SYS_close_range, channel + 1, UINT32_MAX, 0);
	TRY(program_run(p));
	TRY(receive_all(restore, files));
	TRY(move_all(restore, files));
	TRY(close_rest(restore, files));
	/* by which the namespace comes */
	if (restore->clocks.last_entry)
		return program_run(p);
	TRY(program_reserve(p, 1, 0));
	program_call(p, "close the channel", SYS_close, channel);
	return program_run(p);
}

const struct kind files_kind = {
	.name = "files",
	.doc = "Descriptor table",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct files),
	.fields = files_fields,
	.check_process = files_check,
	.dump_process = files_dump,
	.restore_process = files_restore,
};
