/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory protection keys: pkeys(7). */
#ifndef CR_MEMORY_KEYS_H
#define CR_MEMORY_KEYS_H

#include <sys/mman.h>

#include "memory.h"

/* Key 0 is everybody's and always there. */
enum { MEMORY_KEYS = 16 };

void memory_keys_dump(const struct process *process, struct memory_map *memory);

/*
 * While the memory is built it is under no key; what may only be executed is readable too, because
 * the kernel would take a key for it. So what a child inherits never depends on keys.
 */
static inline uint32_t memory_protection_without_keys(const struct vma *vma)
{
	return vma->protection == PROT_EXEC ? PROT_READ | PROT_EXEC : vma->protection;
}

/* When nobody is cloned from it any more. */
struct cr_error *memory_keys_restore(struct restore *restore, const struct memory_map *memory);

#endif
