/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Building an address space in a task that starts with another one: init comes fresh from exec, a
 * child with the memory of its parent as it stands in the image. What both have in common stays, so
 * that pages which were shared copy-on-write stay shared.
 */
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "contents.h"
#include "file.h"
#include "memory.h"
#include "memory_flags.h"
#include "memory_keys.h"
#include "memory_special.h"
#include "sysv_shared_memory.h"

static bool same_name(const struct vma *a, const struct vma *b)
{
	return a->name.len == b->name.len && !memcmp(a->name.data, b->name.data, a->name.len);
}

static bool is_file(const struct vma *vma)
{
	return vma->type == VMA_FILE_PRIVATE || vma->type == VMA_FILE_SHARED;
}

/* Would a child that inherits @theirs see what @ours shows, where they overlap? */
static bool same_backing(const struct vma *ours, const struct vma *theirs)
{
	if (ours->type != theirs->type || ours->type == VMA_SPECIAL ||
	    ours->object != theirs->object || ours->description != theirs->description)
		return false;
	if ((ours->flags ^ theirs->flags) & (VM_GROWSDOWN | VM_HUGETLB | VM_DROPPABLE))
		return false;
	if (ours->type == VMA_ANONYMOUS)
		return true;
	return ours->start - ours->offset == theirs->start - theirs->offset &&
	       (!is_file(ours) || same_name(ours, theirs));
}

static struct cr_error *unmap(struct program *p, uint64_t start, uint64_t end)
{
	if (start >= end)
		return NULL;
	TRY(program_reserve(p, 1, 0));
	program_call(p, "unmap memory", SYS_munmap, start, end - start);
	return NULL;
}

static const struct list no_vmas;

static const struct list *inherited_vmas(const struct process *process)
{
	const struct memory_map *theirs = memory_inherited(process);

	return theirs ? &theirs->vmas : &no_vmas;
}

/* Remove what the child does not keep of its parent's mappings. */
static struct cr_error *unmap_inherited(struct program *p, struct process *process)
{
	const struct list *theirs = inherited_vmas(process), *ours = &process->memory->vmas;
	const struct vma *their = theirs->items, *our = ours->items, *end = our + ours->count;

	for (size_t i = 0; i < theirs->count; i++) {
		uint64_t kept = their[i].start;

		if (their[i].type == VMA_SPECIAL)
			continue;
		while (our < end && our->end <= their[i].start)
			our++;
		for (const struct vma *at = our; at < end && at->start < their[i].end; at++) {
			if (!same_backing(at, &their[i]))
				continue;
			TRY(unmap(p, kept,
				  at->start < their[i].start ? their[i].start : at->start));
			kept = at->end > their[i].end ? their[i].end : at->end;
		}
		TRY(unmap(p, kept, their[i].end));
	}
	return NULL;
}

/* Pages that the parent has and the child had given back: they must read as zeros (or as the file)
 * again. */
static struct cr_error *zap_inherited(struct program *p, struct process *process)
{
	const struct memory_map *inherited = memory_inherited(process);
	const struct list *ours = &process->memory->extents, *theirs;
	const struct extent *our = ours->items, *end = our + ours->count, *their;

	if (!inherited)
		return NULL;
	theirs = &inherited->extents;
	their = theirs->items;
	for (size_t i = 0; i < theirs->count; i++) {
		uint64_t page = their[i].page, last = page + their[i].count;

		while (page < last) {
			uint64_t next;

			while (our < end && our->page + our->count <= page)
				our++;
			next = our < end && our->page < last ? our->page : last;
			if (next > page) {
				TRY(program_reserve(p, 1, 0));
				program_call(p, "give pages back", SYS_madvise, page * PAGE,
					     (next - page) * PAGE, MADV_DONTNEED);
				/* the range may have been unmapped as a whole: then there is
				 * nothing to do */
				program_may_fail(p);
			}
			page = next < last ? our->page + our->count : last;
		}
	}
	return NULL;
}

static struct cr_error *describe_layout(struct restore *restore, struct process *process, int exe)
{
	const struct memory_map *memory = process->memory;
	struct program *p = restore->program;
	struct prctl_mm_map map = {
		.start_code = memory->start_code,
		.end_code = memory->end_code,
		.start_data = memory->start_data,
		.end_data = memory->end_data,
		.start_brk = memory->start_brk,
		.brk = memory->brk,
		.start_stack = memory->start_stack,
		.arg_start = memory->arg_start,
		.arg_end = memory->arg_end,
		.env_start = memory->env_start,
		.env_end = memory->env_end,
		.auxv_size = (uint32_t)memory->auxv.len,
		.exe_fd = (uint32_t)exe,
	};
	uint64_t address;

	map.auxv = (void *)program_data(p, memory->auxv.data, memory->auxv.len);
	address = program_data(p, &map, sizeof(map));
	program_call(p, "set the memory layout", SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, address,
		     sizeof(map), 0);
	return NULL;
}

/* Open the program in @process; *number is its descriptor there. */
static struct cr_error *open_exe(struct restore *restore, struct process *process, int *number)
{
	const struct memory_map *memory = process->memory;
	struct program *p = restore->program;
	_cleanup_close_ int fd = -1;
	int call;

	if (memory->exe_object) {
		TRY(contents_open(restore, process, memory->exe_object, O_RDONLY, &fd));
		return restore_lend(restore, fd, number);
	}
	call = program_call(p, image_text(&restore->image, "open program '%s'", memory->exe.data),
			    SYS_openat, (uint64_t)AT_FDCWD, program_bytes(p, &memory->exe),
			    O_RDONLY | O_CLOEXEC);
	TRY(program_run(p));
	*number = (int)program_result(p, call);
	return NULL;
}

/* The kernel takes a new exe file only while nothing maps the old one: call between unmapping and
 * mapping. */
static struct cr_error *set_layout(struct restore *restore, struct process *process)
{
	struct program *p = restore->program;
	int exe;

	if (memory_inherited(process))
		return describe_layout(restore, process, -1);
	TRY(open_exe(restore, process, &exe));
	TRY(describe_layout(restore, process, exe));
	program_call(p, "close the program", SYS_close, (uint64_t)exe);
	return program_run(p);
}

static uint64_t map_flags(const struct vma *vma)
{
	bool shared = vma->type == VMA_FILE_SHARED || vma->type == VMA_SHARED;
	int type = shared ? MAP_SHARED : vma->flags & VM_DROPPABLE ? MAP_DROPPABLE : MAP_PRIVATE;

	return MAP_FIXED | type | (vma->type == VMA_ANONYMOUS ? MAP_ANONYMOUS : 0) |
	       (vma->type == VMA_ANONYMOUS && vma->huge_page
			? MAP_HUGETLB | memory_huge_size(vma->huge_page)
			: 0) |
	       (vma->flags & VM_GROWSDOWN ? MAP_GROWSDOWN : 0) |
	       (vma->flags & VM_NORESERVE ? MAP_NORESERVE : 0);
}

/* Memory that was writable once stays charged (VM_ACCOUNT) when it is not any more, if it has
 * pages. */
static uint64_t first_protection(const struct vma *vma)
{
	bool was_writable = vma->flags & VM_ACCOUNT &&
			    (vma->type == VMA_ANONYMOUS || vma->type == VMA_FILE_PRIVATE);

	return memory_protection_without_keys(vma) | (was_writable ? PROT_WRITE : 0);
}

/* An open file that mappings follow on; one open serves neighbours of the same file. */
struct open_mapping {
	const struct vma *of;
	uint64_t number; /* where its descriptor's number lies in the program */
};

static struct cr_error *close_mapping(struct program *p, struct open_mapping *open)
{
	if (!open->of)
		return NULL;
	program_call(p, "close a mapped file", SYS_close, open->number);
	program_indirect(p, 0);
	open->of = NULL;
	return NULL;
}

/* What it takes to map something: the last file is closed, this one opened, mapped, advised on and, in the
 * end, closed; beside its name there may be a descriptor to receive. */
enum { MAP_CALLS = 5, MAP_DATA = 512 };

/* The number of an open file does not outlive the program. */
static struct cr_error *make_room(struct program *p, size_t name_len, struct open_mapping *open)
{
	if (program_has_room(p, MAP_CALLS, name_len + MAP_DATA))
		return NULL;
	TRY(close_mapping(p, open));
	return program_run(p);
}

static bool writes(const struct vma *vma)
{
	return vma->type == VMA_SHARED ||
	       (vma->type == VMA_FILE_SHARED && vma->flags & VM_MAYWRITE);
}

static struct cr_error *open_contents(struct restore *restore, struct process *process,
				      const struct vma *vma, struct open_mapping *open)
{
	_cleanup_close_ int fd = -1;

	TRY(contents_open(restore, process, vma->object, writes(vma) ? O_RDWR : O_RDONLY, &fd));
	TRY(channel_send(&restore->channel, &fd, 1));
	open->number = channel_receive(&restore->channel, restore->program, 1);
	open->of = vma;
	return NULL;
}

/* Locks of the description last as long as the mapping: it must be the very same. */
static struct cr_error *take_description(struct restore *restore, struct process *process,
					 const struct vma *vma, struct open_mapping *open)
{
	int fd;

	TRY(regular_fd(restore, process, vma->description, &fd));
	TRY(program_reserve(restore->program, 2, 4096));
	TRY(channel_send(&restore->channel, &fd, 1));
	open->number = channel_receive(&restore->channel, restore->program, 1);
	open->of = vma;
	return NULL;
}

static struct cr_error *open_mapping(struct restore *restore, struct process *process,
				     const struct vma *vma, struct open_mapping *open)
{
	struct program *p = restore->program;
	int call;

	if (open->of && open->of->type == vma->type && open->of->object == vma->object &&
	    open->of->description == vma->description && same_name(open->of, vma) &&
	    writes(open->of) == writes(vma))
		return NULL;
	TRY(close_mapping(p, open));
	if (vma->description)
		return take_description(restore, process, vma, open);
	if (vma->object)
		return open_contents(restore, process, vma, open);
	call = program_call(p, image_text(&restore->image, "open mapped file '%s'", vma->name.data),
			    SYS_openat, (uint64_t)AT_FDCWD, program_bytes(p, &vma->name),
			    (writes(vma) ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	open->number = program_result_of(p, call);
	open->of = vma;
	return NULL;
}

static bool is_segment(const struct restore *restore, const struct vma *vma)
{
	return vma->object &&
	       image_object(&restore->image, vma->object)->kind == &sysv_shared_memory_kind;
}

/* Map [start, end) of @vma. */
static struct cr_error *map_part(struct restore *restore, struct process *process,
				 const struct vma *vma, uint64_t start, uint64_t end,
				 struct open_mapping *open)
{
	struct program *p = restore->program;
	uint64_t offset = vma->offset + (start - vma->start);

	if (start >= end)
		return NULL;
	TRY(make_room(p, vma->name.len, open));
	if (is_segment(restore, vma)) {
		TRY(close_mapping(p, open));
		return sysv_map(restore, process, vma, start, end);
	}
	if (vma->type != VMA_ANONYMOUS)
		TRY(open_mapping(restore, process, vma, open));
	program_call(p, "map memory", SYS_mmap, start, end - start, first_protection(vma),
		     map_flags(vma), vma->type == VMA_ANONYMOUS ? (uint64_t)-1 : open->number,
		     offset);
	if (vma->type != VMA_ANONYMOUS)
		program_indirect(p, 4);
	/* where huge pages are given to everybody, the first page that is filled would be one */
	if (vma->flags & VM_NOHUGEPAGE)
		program_call(p, "advise on memory", SYS_madvise, start, end - start,
			     MADV_NOHUGEPAGE);
	return NULL;
}

/* Everything of @process that it has not inherited; differing protections are changed. */
static struct cr_error *map_missing(struct restore *restore, struct process *process)
{
	const struct list *theirs = inherited_vmas(process), *ours = &process->memory->vmas;
	const struct vma *their = theirs->items, *their_end = their + theirs->count;
	const struct vma *our = ours->items;
	struct open_mapping open = {0};

	for (size_t i = 0; i < ours->count; i++) {
		uint64_t at = our[i].start;

		if (our[i].type == VMA_SPECIAL)
			continue;
		while (their < their_end && their->end <= our[i].start)
			their++;
		for (const struct vma *t = their; t < their_end && t->start < our[i].end; t++) {
			uint64_t begin = t->start > our[i].start ? t->start : our[i].start;
			uint64_t end = t->end < our[i].end ? t->end : our[i].end;

			if (!same_backing(&our[i], t))
				continue;
			TRY(map_part(restore, process, &our[i], at, begin, &open));
			uint32_t wanted = memory_protection_without_keys(&our[i]);

			if (memory_protection_without_keys(t) != wanted) {
				TRY(make_room(restore->program, 0, &open));
				program_call(restore->program, "protect memory", SYS_mprotect,
					     begin, end - begin, wanted);
			}
			at = end;
		}
		TRY(map_part(restore, process, &our[i], at, our[i].end, &open));
	}
	TRY(close_mapping(restore->program, &open));
	return program_run(restore->program);
}

static struct cr_error *protect(struct restore *restore, struct process *process)
{
	const struct vma *vma = process->memory->vmas.items;
	struct program *p = restore->program;

	for (size_t i = 0; i < process->memory->vmas.count; i++, vma++) {
		uint32_t wanted = memory_protection_without_keys(vma);

		if (vma->type == VMA_SPECIAL || first_protection(vma) == wanted)
			continue;
		TRY(program_reserve(p, 1, 0));
		program_call(p, "protect memory", SYS_mprotect, vma->start, vma->end - vma->start,
			     wanted);
	}
	return program_run(p);
}

struct cr_error *memory_restore(struct restore *restore, struct process *process)
{
	restore_begin(restore, process);
	if (process->has_memory)
		return NULL;
	if (memory_inherited(process))
		TRY(unmap_inherited(restore->program, process));
	else
		TRY(special_unmap_others(restore, process));
	TRY(special_place(restore, process));
	TRY(program_run(restore->program));
	TRY(set_layout(restore, process));
	TRY(zap_inherited(restore->program, process));
	TRY(map_missing(restore, process));
	TRY(memory_fill(restore, process));
	/* with its pages in place: an empty mapping that may not be written any more is not charged
	 */
	return protect(restore, process);
}
