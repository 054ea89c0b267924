/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory_special.h"

#include <elf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "../proc.h"

enum { MOST_SPECIAL = 8 };

static bool is_called(const struct vma *vma, const char *name)
{
	return vma->type == VMA_SPECIAL && !strcmp((const char *)vma->name.data, name);
}

static const struct vma *find(const struct list *vmas, const char *name)
{
	const struct vma *vma = vmas->items;

	for (size_t i = 0; i < vmas->count; i++) {
		if (is_called(&vma[i], name))
			return &vma[i];
	}
	return NULL;
}

const struct vma *special_vdso(const struct list *vmas)
{
	return find(vmas, "[vdso]");
}

uint64_t memory_vdso(const struct process *process)
{
	const struct vma *vdso = special_vdso(&process->memory->vmas);

	return vdso ? vdso->start : 0;
}

static struct cr_error *refuse(const struct process *process, const char *object, const char *has,
			       const char *remedy)
{
	struct cr_error *error = error_new(CR_UNSUPPORTED, "Process %d (%s) has %s", process->pid,
					   process->stat.comm, has);

	return error_remedy(error_object(error, object), "%s", remedy);
}

/*
 * execve(2) gives a process its new memory first, which has no vdso until its program is mapped, and no
 * auxv either: that may take long (slow storage). One without a vdso is in the middle of that if its auxv is
 * empty, or another one than before its mappings were read.
 */
static struct cr_error *check_executing(struct dump *dump, const struct process *process)
{
	const struct bytes *before = &process->memory->auxv;
	uint64_t end = AT_NULL;
	char *auxv;
	size_t len;

	if (!dump->running) /* nobody stands there */
		return NULL;
	TRY(proc_read(process->proc, "auxv", dump->image.pool, &auxv, &len));
	if (len >= sizeof(end) && memcmp(auxv, &end, sizeof(end)) != 0 && len == before->len &&
	    !memcmp(auxv, before->data, len))
		return NULL;
	return error_new(CR_GONE, "Process %d executes a program", process->pid);
}

/* A restart can move them, not make them: a child that has executed a program has new ones, and is
 * cloned from its parent all the same. And the vdso is used by the restart itself. */
struct cr_error *special_check(struct dump *dump, const struct process *process)
{
	if (!memory_vdso(process)) {
		TRY(check_executing(dump, process));
		return refuse(process, "vdso", "unmapped its vdso",
			      "Not supported; end the process before the checkpoint");
	}
	if (process->children.count && !find(&process->memory->vmas, "[vvar]"))
		return refuse(process, "vdso",
			      "unmapped the data of its vdso (vvar), and has children",
			      "Not supported; end the children before the checkpoint");
	if (process_leader(process)->kernel->segments)
		return refuse(process, "segments", "segments of its own (modify_ldt)",
			      "Not supported: end the process before the checkpoint");
	return NULL;
}

struct cr_error *special_find(struct pool *pool, const struct list *maps, struct list *ret)
{
	const struct proc_map *map = maps->items;

	for (size_t i = 0; i < maps->count; i++) {
		const char *name = (const char *)map[i].name.data;
		struct vma *vma;

		if (!map[i].name.len || (strncmp(name, "[vvar", 5) && strcmp(name, "[vdso]")))
			continue;
		vma = list_append(pool, ret, sizeof(*vma));
		if (!vma)
			return error_nomem();
		*vma = (struct vma){.start = map[i].start,
				    .end = map[i].end,
				    .type = VMA_SPECIAL,
				    .name = map[i].name};
	}
	return NULL;
}

/* Where they lie now: as execve(2) has placed them, or as whoever cloned @process has them. */
static const struct list *present(const struct restore *restore, const struct process *process)
{
	const struct process *mother = process->mother ? process->mother : process->parent;

	if (process->special.count)
		return &process->special;
	return mother ? &mother->memory->vmas : &restore->special;
}

static struct cr_error *unmap(struct program *p, uint64_t start, uint64_t end)
{
	if (start >= end)
		return NULL;
	TRY(program_reserve(p, 1, 0));
	program_call(p, "unmap memory", SYS_munmap, start, end - start);
	return NULL;
}

struct cr_error *special_unmap_others(struct restore *restore, struct process *process)
{
	const struct list *vmas = present(restore, process);
	const struct vma *vma = vmas->items;
	uint64_t area_end = restore->area + 2 * PROGRAM_AREA, at = 0;
	bool passed = false;

	for (size_t i = 0; i < vmas->count; i++) {
		if (vma[i].type != VMA_SPECIAL)
			continue;
		if (!passed && vma[i].start > restore->area) {
			TRY(unmap(restore->program, at, restore->area));
			at = area_end;
			passed = true;
		}
		TRY(unmap(restore->program, at, vma[i].start));
		at = vma[i].end;
	}
	if (!passed) {
		TRY(unmap(restore->program, at, restore->area));
		at = area_end;
	}
	return unmap(restore->program, at, ARCH_TASK_SIZE);
}

static void move(struct program *p, uint64_t from, uint64_t to, uint64_t len)
{
	program_call(p, "move the vdso", SYS_mremap, from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
		     to);
}

static struct cr_error *check_present(const struct process *process, const struct list *present)
{
	const struct vma *vma = process->memory->vmas.items;

	for (size_t i = 0; i < process->memory->vmas.count; i++) {
		const char *name = (const char *)vma[i].name.data;

		if (vma[i].type == VMA_SPECIAL && !find(present, name))
			return error_new(CR_IMAGE, "Nobody can give process %d its %s",
					 process->pid, name);
	}
	return NULL;
}

/* What lies wrong goes aside first, so that none lands on one that has not moved yet. */
struct cr_error *special_place(struct restore *restore, struct process *process)
{
	const struct list *vmas = present(restore, process);
	const struct vma *vma = vmas->items, *misplaced[MOST_SPECIAL];
	uint64_t spare = restore->area + ((PROGRAM_AREA + PAGE - 1) & ~(PAGE - 1)), at = spare;
	struct program *p = restore->program;
	size_t count = 0;

	TRY(check_present(process, vmas));
	TRY(program_reserve(p, 3 * MOST_SPECIAL, 0));
	for (size_t i = 0; i < vmas->count; i++) {
		const struct vma *ours;

		if (vma[i].type != VMA_SPECIAL)
			continue;
		ours = find(&process->memory->vmas, (const char *)vma[i].name.data);
		if (!ours) {
			program_call(p, "unmap the vdso", SYS_munmap, vma[i].start,
				     vma[i].end - vma[i].start);
			continue;
		}
		if (ours->start == vma[i].start)
			continue;
		if (count == MOST_SPECIAL ||
		    at + (vma[i].end - vma[i].start) > spare + PROGRAM_AREA)
			return error_new(CR_HOST, "There is no room to move the vdso");
		move(p, vma[i].start, at, vma[i].end - vma[i].start);
		at += vma[i].end - vma[i].start;
		misplaced[count++] = ours;
	}
	at = spare;
	for (size_t i = 0; i < count; i++) {
		uint64_t len = misplaced[i]->end - misplaced[i]->start;

		move(p, at, misplaced[i]->start, len);
		at += len;
	}
	return NULL;
}
