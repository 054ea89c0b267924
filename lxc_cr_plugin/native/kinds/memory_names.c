/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names that programs and C libraries give to anonymous memory: prctl(2) PR_SET_VMA_ANON_NAME, seen in
 * /proc/PID/maps. They are read out of the kernel, because that file has another word for a heap or a
 * stack that has a name all the same. Not every kernel has them (CONFIG_ANON_VMA_NAME).
 */
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "memory.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA	     0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

/* Each is read once: VMAs that were split, and children, have it from one another. */
struct cr_error *memory_name_dump(struct dump *dump, uint64_t address, struct bytes *ret)
{
	struct pool *pool = dump->image.pool;
	char text[KERNEL_VMA_NAME_MAX];
	struct bytes *name;

	if (!address || dump->running) /* it may change while it is read, and nobody wants it yet */
		return NULL;
	name = hash_find(&dump->given_names, address, 0);
	if (!name) {
		name = pool_alloc(pool, sizeof(*name));
		if (!name)
			return error_nomem();
		TRY(kernel_vma_name(dump->vma_program, dump->peek, address, text, &name->len));
		name->data = pool_memdup(pool, text, name->len);
		if (!name->data)
			return error_nomem();
		TRY(hash_add(pool, &dump->given_names, address, 0, name));
	}
	*ret = *name;
	return NULL;
}

/* As prctl(2) wants it, so that EINVAL means one thing only. */
static bool may_be_given(const struct bytes *name)
{
	const char *text = (const char *)name->data;

	for (size_t i = 0; i + 1 < name->len; i++) {
		if (text[i] < ' ' || text[i] > '~' || strchr("\\`$[]", text[i]))
			return false;
	}
	return !text[name->len - 1];
}

struct cr_error *memory_name_validate(const struct vma *vma)
{
	if (!vma->given_name.len || may_be_given(&vma->given_name))
		return NULL;
	return error_new(CR_IMAGE, "Mapping 0x%lx has a name that nobody can give",
			 (unsigned long)vma->start);
}

static void lose(struct restore *restore, const struct vma *vma)
{
	if (!restore->names_lost)
		log_say(&restore->log, CR_WARNING,
			"This kernel cannot name all memory that had a name (PR_SET_VMA): '%s' in "
			"/proc/PID/maps, for one, is lost",
			(const char *)vma->given_name.data);
	restore->names_lost = true;
}

/* EINVAL: a kernel without names; EBADF: one that does not name shared memory (before 6.2). */
static struct cr_error *run(struct restore *restore, const struct vma *const *named)
{
	struct program *p = restore->program;
	size_t count = p->count;

	TRY(program_run(p));
	for (size_t i = 0; i < count; i++) {
		int64_t result = program_result(p, (int)i);

		if (result == -EINVAL || result == -EBADF)
			lose(restore, named[i]);
		else if (result < 0)
			return error_errno((int)result, "Failed to name memory at 0x%lx",
					   (unsigned long)named[i]->start);
	}
	return NULL;
}

struct cr_error *memory_names_restore(struct restore *restore, const struct memory_map *memory)
{
	const struct vma *named[PROGRAM_OPS], *vma = memory->vmas.items;
	struct program *p = restore->program;

	TRY(program_run(p));
	for (size_t i = 0; i < memory->vmas.count; i++, vma++) {
		if (!vma->given_name.len || vma->type == VMA_SPECIAL)
			continue;
		if (!program_has_room(p, 1, vma->given_name.len))
			TRY(run(restore, named));
		named[p->count] = vma;
		program_call(p, "name memory", SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME,
			     vma->start, vma->end - vma->start,
			     program_data(p, vma->given_name.data, vma->given_name.len));
		program_may_fail(p);
	}
	return run(restore, named);
}
