/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks of open file descriptions that no descriptor shows any more, but a mapping keeps. What is
 * mapped often has nothing to do with locks, so that a mapping is of interest only when its very
 * description turns out to have one.
 */
#include <fcntl.h>

#include "cleanup.h"
#include "kinds/file.h"
#include "kinds/file_owner.h"
#include "kinds/memory.h"
#include "locks_noted.h"

struct cr_error *locks_note_mapping(struct dump *dump, struct process *process,
				    const struct proc_map *map, const struct kernel_vma *known)
{
	struct noted_file *files = dump->locked_files.items, *noted;
	size_t count = dump->locked_files.count;

	/* neighbours mostly show the same */
	if (count && files[count - 1].link && files[count - 1].file == known->file &&
	    files[count - 1].process == process)
		return NULL;
	noted = list_append(dump->image.pool, &dump->locked_files, sizeof(*noted));
	if (!noted)
		return error_nomem();
	*noted = (struct noted_file){
		.file = known->file,
		.context = known->locks,
		.inode = map->inode,
		.process = process,
		.path = map->name,
		.fd = -1,
		.link = image_text(&dump->image, "map_files/%lx-%lx", (unsigned long)map->start,
				   (unsigned long)map->end),
	};
	return noted->link ? NULL : error_nomem();
}

static struct cr_error *look_at(struct dump *dump, struct noted_file *noted)
{
	struct kernel_open_file known;
	struct kernel_file kernel = {.fd = -1, .file = noted->file, .locks = noted->context};
	struct descriptor descriptor = {
		.process = noted->process, .fd = -1, .path = noted->path, .kernel = &kernel};
	struct file *file;

	if (fstatat(noted->process->proc, noted->link, &descriptor.stat, 0) < 0)
		return error_sys("Failed to look at %s", locks_name(dump, noted));
	if (!dump->kernel_open_files)
		TRY(kernel_open_files_open(dump->btf, dump->peek, &dump->kernel_open_files));
	TRY(kernel_open_file_read(dump->kernel_open_files, noted->file, &known));
	descriptor.flags = known.flags;
	descriptor.position = known.position;
	TRY(regular_dump_mapped(dump, &descriptor, noted->link, &noted->object));
	file = noted->object->state;
	file->owner = known.owner;
	file->owner_type = known.owner_type;
	file->owner_uid = known.owner_uid;
	file->owner_euid = known.owner_euid;
	file->signal = (uint32_t)known.owner_signal;
	TRY(file_resolve_owner(dump, noted->object));
	return file_add(dump, noted->file, noted->object);
}

struct cr_error *locks_dump_mapped(struct dump *dump, struct noted_file *noted)
{
	struct process *process = noted->process;
	struct cr_error *error;

	noted->object = file_find(dump, noted->file);
	if (noted->object)
		return NULL;
	TRY(proc_open(process->host_pid, process->host_pid, &process->proc));
	error = look_at(dump, noted);
	close(process->proc);
	process->proc = -1;
	return error;
}
