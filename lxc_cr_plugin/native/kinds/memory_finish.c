/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of building an address space: advice, guard pages, locks, seals. They hinder clone(2), or
 * hold for the clone too, so they come when nobody is cloned from it any more.
 */
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "../sharing.h"
#include "memory.h"
#include "memory_flags.h"
#include "memory_keys.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67 /* Linux 6.4 */
#endif

static struct cr_error *advise(struct program *p, const struct vma *vma)
{
	static const struct {
		uint64_t flag;
		int advice;
	} all[] = {
		{VM_SEQ_READ, MADV_SEQUENTIAL},	  {VM_RAND_READ, MADV_RANDOM},
		{VM_DONTCOPY, MADV_DONTFORK},	  {VM_WIPEONFORK, MADV_WIPEONFORK},
		{VM_DONTDUMP, MADV_DONTDUMP},	  {VM_HUGEPAGE, MADV_HUGEPAGE},
		{VM_NOHUGEPAGE, MADV_NOHUGEPAGE}, {VM_MERGEABLE, MADV_MERGEABLE},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (!(vma->flags & all[i].flag))
			continue;
		TRY(program_reserve(p, 1, 0));
		program_call(p, "advise on memory", SYS_madvise, vma->start, vma->end - vma->start,
			     (uint64_t)all[i].advice);
	}
	return NULL;
}

/* What cannot be brought in as a whole is locked all the same, but the call says that it failed:
 * what may not be read, has guard pages, or lies behind the end of a file. */
static bool has_gaps(const struct memory_map *memory, const struct vma *vma)
{
	return !(vma->protection & PROT_READ) || memory->guards.count ||
	       vma->type == VMA_FILE_PRIVATE || vma->type == VMA_FILE_SHARED;
}

static struct cr_error *lock(struct program *p, const struct memory_map *memory,
			     const struct vma *vma)
{
	if (!(vma->flags & VM_LOCKED))
		return NULL;
	TRY(program_reserve(p, 1, 0));
	program_call(p, "lock memory", SYS_mlock2, vma->start, vma->end - vma->start,
		     vma->flags & VM_LOCKONFAULT ? MLOCK_ONFAULT : 0);
	if (has_gaps(memory, vma))
		program_may_fail(p);
	return NULL;
}

static struct cr_error *install_guards(struct program *p, const struct list *guards)
{
	const struct guard *guard = guards->items;

	for (size_t i = 0; i < guards->count; i++) {
		TRY(program_reserve(p, 1, 0));
		program_call(p, "install guard pages", SYS_madvise, guard[i].page * PAGE,
			     guard[i].count * PAGE, MADV_GUARD_INSTALL);
	}
	return NULL;
}

/* From now on nothing here can be unmapped, moved or protected in another way. */
static struct cr_error *seal(struct program *p, const struct vma *vma)
{
	if (!(vma->flags & VM_SEALED))
		return NULL;
	TRY(program_reserve(p, 1, 0));
	program_call(p, "seal memory", SYS_mseal, vma->start, vma->end - vma->start, 0);
	return NULL;
}

struct cr_error *memory_finish(struct restore *restore, struct process *process)
{
	const struct memory_map *memory = process->memory;
	const struct vma *vma = memory->vmas.items;
	struct program *p = restore->program;

	TRY(memory_fill_own(restore, process));
	restore_begin(restore, process);
	if (!sharing_is_first(process, SHARE_MEMORY))
		return NULL;
	for (size_t i = 0; i < memory->vmas.count; i++) {
		if (vma[i].type == VMA_SPECIAL)
			continue;
		TRY(advise(p, &vma[i]));
		TRY(numa_policy_bind(p, &vma[i].policy, vma[i].start, vma[i].end));
	}
	TRY(memory_names_restore(restore, memory));
	TRY(install_guards(p, &memory->guards));
	for (size_t i = 0; i < memory->vmas.count; i++)
		TRY(lock(p, memory, &vma[i]));
	TRY(program_reserve(p, 2, 0));
	if (memory->merge_any)
		program_call(p, "merge equal pages", SYS_prctl, PR_SET_MEMORY_MERGE, 1, 0, 0, 0);
	if (memory->lock_future)
		program_call(p, "lock future memory", SYS_mlockall, memory->lock_future);
	TRY(memory_keys_restore(restore, memory));
	for (size_t i = 0; i < memory->vmas.count; i++)
		TRY(seal(p, &vma[i]));
	return program_run(p);
}
