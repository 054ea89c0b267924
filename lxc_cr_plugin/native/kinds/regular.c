/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "contents.h"
#include "file.h"

struct regular {
	struct file file;
	uint32_t contents;
	uint32_t write_hint;
};

static const struct field regular_fields[] = {
	FIELD_FILE(struct regular),
	FIELD_UINT(struct regular, contents, 0, UINT32_MAX,
		   "object that is opened instead of the path, 0: none", .optional = true),
	FIELD_UINT(struct regular, write_hint, 0, RWH_WRITE_LIFE_EXTREME,
		   "F_SET_RW_HINT of the inode; 0: nobody set it", .optional = true),
	FIELD_END,
};

static bool regular_claims(const struct descriptor *descriptor)
{
	return S_ISREG(descriptor->stat.st_mode) && descriptor->path.data[0] == '/';
}

static struct cr_error *find_at(struct dump *dump, const struct descriptor *descriptor,
				const char *link, struct backing *ret)
{
	struct sight sight = {
		.process = descriptor->process,
		.link = link,
		.path = descriptor->path,
		.stat = descriptor->stat,
		.locks = descriptor->kernel->locks,
	};
	struct cr_error *error = backing_find(dump, &sight, ret);

	if (!error)
		return NULL;
	error = error_wrap(error, "Cannot save %s", descriptor_name(dump, descriptor));
	return error_task(error, descriptor->process->pid, descriptor->process->stat.comm);
}

static struct cr_error *regular_find(struct dump *dump, const struct descriptor *descriptor,
				     struct backing *ret)
{
	char link[32];

	snprintf(link, sizeof(link), "fd/%d", descriptor->fd);
	return find_at(dump, descriptor, link, ret);
}

static struct cr_error *regular_check(struct dump *dump, const struct descriptor *descriptor)
{
	struct backing scrap;

	return dump->running ? regular_find(dump, descriptor, &scrap) : NULL;
}

static struct cr_error *regular_dump(struct dump *dump, const struct descriptor *descriptor,
				     void *state)
{
	struct regular *regular = state;
	struct backing backing;

	TRY(regular_find(dump, descriptor, &backing));
	regular->file.path = backing.path;
	regular->contents = backing.object;
	regular->write_hint = descriptor->kernel->write_hint;
	return NULL;
}

struct cr_error *regular_dump_mapped(struct dump *dump, const struct descriptor *descriptor,
				     const char *link, struct object **ret)
{
	struct object *object = image_add_object(&dump->image, &regular_kind);
	struct regular *regular;
	struct backing backing;

	if (!object)
		return error_nomem();
	regular = object->state;
	file_dump(descriptor, &regular->file);
	TRY(find_at(dump, descriptor, link, &backing));
	regular->file.path = backing.path;
	regular->contents = backing.object;
	dump->open_files++;
	*ret = object;
	return NULL;
}

/* ---- restart ---- */

static struct cr_error *open_contents(struct restore *restore, struct object *object,
				      const struct regular *regular)
{
	/* of O_TMPFILE only its bit remains in what F_GETFL gives, and that means O_DIRECTORY too */
	uint64_t flags = regular->file.flags &
			 ~(uint64_t)(O_CREAT | O_EXCL | O_TRUNC | O_TMPFILE | O_NOFOLLOW);
	struct process *init = *(struct process **)restore->image.processes.items;

	if (object->fd < 0)
		TRY(contents_open(restore, init, regular->contents, flags, &object->fd));
	return file_set_flags(object, &regular->file);
}

static const struct file *regular_reopens(const void *state)
{
	const struct regular *regular = state;

	return regular->contents ? NULL : &regular->file;
}

static struct cr_error *regular_restore(struct restore *restore, struct object *object,
					const void *state)
{
	const struct regular *regular = state;
	uint64_t hint = regular->write_hint;

	if (regular->contents)
		TRY(open_contents(restore, object, regular));
	else
		TRY(file_reopen(restore, object, &regular->file));
	if (regular->file.flags & O_PATH)
		return NULL;
	if (regular->write_hint && fcntl(object->fd, F_SET_RW_HINT, &hint) < 0)
		return error_sys("Failed to set the write hint of '%s'", regular->file.path.data);
	if (lseek(object->fd, (off_t)regular->file.position, SEEK_SET) < 0)
		return error_sys("Failed to set the position in '%s'", regular->file.path.data);
	return NULL;
}

struct cr_error *regular_fd(struct restore *restore, struct process *process, uint32_t id, int *ret)
{
	struct object *object = image_object(&restore->image, id);
	const struct regular *regular = object->state;
	int contents;

	/* made by this process, for nobody else's program can run now */
	if (object->fd < 0 && regular->contents)
		TRY(contents_fd(restore, process, regular->contents, &contents));
	if (object->fd < 0) {
		TRY(program_run(restore->program));
		TRY(regular_restore(restore, object, regular));
	}
	*ret = object->fd;
	return NULL;
}

const struct kind regular_kind = {
	.name = "regular",
	.doc = "Open regular file, by its path, or of an object with contents",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct regular),
	.fields = regular_fields,
	.claims = regular_claims,
	.check_file = regular_check,
	.dump_file = regular_dump,
	.restore_file = regular_restore,
	.reopens = regular_reopens,
};
