/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which keys a process has allocated, and which mappings are under one; what a thread may do with
 * memory under a key is in its registers (PKRU). Whoever builds a process may do everything:
 * takeover.c.
 */
#include "memory_keys.h"

#include <sys/syscall.h>

/* The kernel takes the execute-only key by itself, at the first mapping that needs one. */
void memory_keys_dump(const struct process *process, struct memory_map *memory)
{
	const struct kernel_task *kernel = process_leader(process)->kernel;
	int32_t key = kernel->execute_only_key;

	memory->keys = kernel->protection_keys & ((1u << MEMORY_KEYS) - 1) & ~1u;
	memory->execute_only_key = key > 0 && key < MEMORY_KEYS ? (uint32_t)key : 0;
}

static bool is_execute_only(const struct memory_map *memory, const struct vma *vma)
{
	return vma->protection == PROT_EXEC && (!vma->key || vma->key == memory->execute_only_key);
}

/* A key may have been freed while there is memory under it. */
static uint32_t keys_in_use(const struct memory_map *memory)
{
	const struct vma *vma = memory->vmas.items;
	uint32_t keys = memory->keys;

	for (size_t i = 0; i < memory->vmas.count; i++)
		keys |= 1u << vma[i].key;
	if (memory->execute_only_key)
		keys |= 1u << memory->execute_only_key;
	return keys & ~1u;
}

static struct cr_error *none_left(struct cr_error *error)
{
	return error_remedy(error, "The image comes from a processor with memory protection keys "
				   "(pku): restart it on one that has them");
}

/* The lowest free one is what the kernel gives: all up to the highest, in order. */
static struct cr_error *allocate(struct program *p, uint32_t wanted)
{
	int calls[MEMORY_KEYS] = {0};

	for (uint32_t key = 1; wanted >> key; key++)
		calls[key] =
			program_call(p, "allocate a memory protection key", SYS_pkey_alloc, 0, 0);
	TRY(none_left(program_run(p)));
	for (uint32_t key = 1; wanted >> key; key++) {
		if (program_result(p, calls[key]) != key)
			return none_left(error_new(CR_HOST, "Memory protection key %u is %ld here",
						   key, (long)program_result(p, calls[key])));
	}
	return NULL;
}

/* The only one that is free below the highest: the first mapping that needs one gets it. */
static void leave_to_kernel(struct program *p, uint32_t key)
{
	int map;

	program_call(p, "leave a memory protection key to the kernel", SYS_pkey_free, key);
	map = program_call(p, "map memory that can only be executed", SYS_mmap, 0, PAGE, PROT_EXEC,
			   MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0);
	program_call(p, "unmap it", SYS_munmap, program_result_of(p, map), PAGE);
	program_indirect(p, 0);
}

static struct cr_error *protect(struct program *p, const struct memory_map *memory,
				bool execute_only)
{
	const struct vma *vma = memory->vmas.items;

	for (size_t i = 0; i < memory->vmas.count; i++, vma++) {
		uint64_t length = vma->end - vma->start;

		if (vma->type == VMA_SPECIAL || is_execute_only(memory, vma) != execute_only)
			continue;
		TRY(program_reserve(p, 1, 0));
		if (execute_only)
			program_call(p, "protect memory", SYS_mprotect, vma->start, length,
				     PROT_EXEC);
		else if (vma->key)
			program_call(p, "protect memory by a key", SYS_pkey_mprotect, vma->start,
				     length, vma->protection, vma->key);
	}
	return NULL;
}

/* Nobody can ask for the kernel's own key, but memory may be under it from before. */
struct cr_error *memory_keys_restore(struct restore *restore, const struct memory_map *memory)
{
	struct program *p = restore->program;
	uint32_t wanted = keys_in_use(memory);

	TRY(program_reserve(p, MEMORY_KEYS, 0));
	if (wanted)
		TRY(allocate(p, wanted));
	TRY(protect(p, memory, false));
	TRY(program_reserve(p, 3, 0));
	if (memory->execute_only_key)
		leave_to_kernel(p, memory->execute_only_key);
	TRY(protect(p, memory, true));
	TRY(program_reserve(p, MEMORY_KEYS, 0));
	for (uint32_t key = 1; wanted >> key; key++) {
		if (!(memory->keys & (1u << key)) && key != memory->execute_only_key)
			program_call(p, "free a memory protection key", SYS_pkey_free, key);
	}
	return NULL;
}
