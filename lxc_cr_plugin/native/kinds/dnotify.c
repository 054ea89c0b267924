/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Signals about directories: F_NOTIFY. */
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#include "../kernel/dnotify.h"
#include "../sharing.h"
#include "dnotify.h"
#include "file.h"
#include "files.h"

struct notice {
	int32_t fd;
	uint32_t events; /* DN_ */
};

struct notices {
	struct list rows; /* struct notice */
};

static const struct field notice_fields[] = {
	FIELD_INT(struct notice, fd, 0, INT32_MAX, "descriptor of the directory"),
	FIELD_UINT(struct notice, events, 0, UINT32_MAX, "DN_ flags of fcntl(2)"),
	FIELD_END,
};

static const struct field dnotify_fields[] = {
	FIELD_ROWS(struct notices, rows, struct notice, notice_fields, 1 << 20,
		   "descriptor of a directory, what is told about it (DN_ flags)"),
	FIELD_END,
};

/* What the kernel makes of the flags of fcntl(2): include/linux/fsnotify_backend.h. */
static const struct {
	uint32_t theirs;
	uint32_t events;
} flags[] = {
	{0x1, DN_ACCESS},	    /* FS_ACCESS */
	{0x2, DN_MODIFY},	    /* FS_MODIFY */
	{0x4, DN_ATTRIB},	    /* FS_ATTRIB */
	{0x100 | 0x80, DN_CREATE},  /* FS_CREATE, FS_MOVED_TO */
	{0x200 | 0x40, DN_DELETE},  /* FS_DELETE, FS_MOVED_FROM */
	{0x10000000, DN_RENAME},    /* FS_RENAME */
	{0x20000000, DN_MULTISHOT}, /* FS_DN_MULTISHOT */
};

enum { FS_EVENT_ON_CHILD = 0x08000000 };

/* false: this kernel has other flags. */
static bool translate(uint32_t mask, uint32_t *ret)
{
	uint32_t left = mask & ~(uint32_t)FS_EVENT_ON_CHILD;

	*ret = 0;
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if ((left & flags[i].theirs) != flags[i].theirs)
			continue;
		*ret |= flags[i].events;
		left &= ~flags[i].theirs;
	}
	return !left;
}

static struct cr_error *refuse(struct process *process, int fd, uint32_t mask)
{
	struct cr_error *error =
		error_new(CR_UNSUPPORTED,
			  "Cannot save descriptor %d of process %d (%s): what it is told about the "
			  "directory (0x%x) is not known here",
			  fd, process->pid, process->stat.comm, mask);

	return error_remedy(error_object(error, "dnotify"),
			    "Let the process switch it off: fcntl(fd, F_NOTIFY, 0)");
}

/* What all are told who watch the directory that @file shows, read once in a look. */
static struct cr_error *read_notices(struct dump *dump, const struct kernel_file *file)
{
	struct pool *pool = dump->image.pool;
	struct hash *known = &dump->notices;
	struct kernel_notice *notice;
	struct list found = {0};

	if (hash_find(known, file->marks, 0))
		return NULL;
	if (!dump->kernel_dnotify)
		TRY(kernel_dnotify_open(dump->btf, dump->peek, &dump->kernel_dnotify));
	TRY(kernel_dnotify_read(dump->kernel_dnotify, file->marks, pool, &found));
	notice = found.items;
	/* the kernel keeps one for each description and table */
	for (size_t i = 0; i < found.count; i++)
		TRY(hash_add(pool, known, notice[i].file, notice[i].files, &notice[i]));
	return hash_add(pool, known, file->marks, 0, dump);
}

static struct cr_error *look_at(struct dump *dump, struct process *process,
				const struct kernel_file *file, struct notices *notices)
{
	const struct kernel_notice *notice;
	struct notice *row;

	TRY(read_notices(dump, file));
	notice = hash_find(&dump->notices, file->file, process_leader(process)->kernel->files);
	/* it may have been told by another number of the same description */
	if (!notice || notice->fd != file->fd)
		return NULL;
	row = list_append(dump->image.pool, &notices->rows, sizeof(*row));
	if (!row)
		return error_nomem();
	row->fd = notice->fd;
	return translate(notice->mask, &row->events) ? NULL
						     : refuse(process, notice->fd, notice->mask);
}

static struct cr_error *dnotify_dump(struct dump *dump, struct process *process, void *state)
{
	const struct kernel_file *files = process->open_files.items;

	if (!sharing_is_first(process, SHARE_FILES))
		return NULL;
	for (size_t i = 0; i < process->open_files.count; i++) {
		/* what is watched by other means has marks too */
		if (files[i].marks)
			TRY(look_at(dump, process, &files[i], state));
	}
	return NULL;
}

struct cr_error *dnotify_check_thread(struct dump *dump, struct process *own)
{
	struct notices found = {0};
	struct cr_error *error;

	TRY(dnotify_dump(dump, own, &found));
	if (!found.rows.count)
		return NULL;
	error = error_new(
		CR_UNSUPPORTED,
		"Thread %d of a process (%s) watches a directory (F_NOTIFY) by descriptors "
		"of its own",
		own->pid, own->stat.comm);
	error = error_task(error_object(error, "dnotify"), own->pid, own->stat.comm);
	return error_remedy(error, "Not supported yet; restart the process");
}

static struct cr_error *dnotify_check(struct dump *dump, struct process *process)
{
	struct notices scrap = {0};

	if (!dump->running)
		return NULL;
	return error_task(dnotify_dump(dump, process, &scrap), process->pid, process->stat.comm);
}

/* Asking makes the caller the owner where there is none; file_restore_owner() knows the right one. */
static struct cr_error *dnotify_restore(struct restore *restore, struct process *process,
					const void *state)
{
	const struct notices *notices = state;
	const struct notice *row = notices->rows.items;
	struct program *p = restore->program;

	(void)process;
	for (size_t i = 0; i < notices->rows.count; i++) {
		TRY(program_reserve(p, 2, 0));
		program_call(p, "watch a directory", SYS_fcntl, (uint64_t)row[i].fd, F_NOTIFY,
			     row[i].events);
		program_call(p, "silence a watched directory", SYS_fcntl, (uint64_t)row[i].fd,
			     F_SETOWN, 0);
	}
	return NULL;
}

const struct kind dnotify_kind = {
	.name = "dnotify",
	.doc = "Signals about directories (F_NOTIFY): what is told, by which descriptor",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct notices),
	.fields = dnotify_fields,
	.check_process = dnotify_check,
	.dump_process = dnotify_dump,
	.restore_process = dnotify_restore,
};
