/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which VM_ flag is that of MAP_DROPPABLE? It is none of those that have kept their place. */
#include <sys/mman.h>
#include <unistd.h>

#include "memory.h"
#include "memory_flags.h"

#define IMPLIED (VM_IMPLIED | VM_NORESERVE | VM_WIPEONFORK | VM_DONTDUMP)

enum { NONE = 1 }; /* VM_READ: not asked again */

static struct cr_error *flags_of_own(struct dump *dump, uint64_t address, uint64_t *ret)
{
	struct kernel_vma_reader *reader = NULL;
	const struct kernel_vma *vma;
	struct list vmas = {0};
	struct cr_error *error;

	TRY(kernel_vma_reader_open(dump->vma_program, getpid(), &reader));
	error = kernel_vma_reader_read(reader, dump->image.pool, &vmas);
	kernel_vma_reader_close(reader);
	TRY(error);
	vma = vmas.items;
	for (size_t i = 0; i < vmas.count; i++) {
		if (vma[i].start <= address && address < vma[i].end)
			*ret = vma[i].flags;
	}
	return NULL;
}

struct cr_error *memory_droppable(struct dump *dump, uint64_t *ret)
{
	uint64_t flags = 0;
	struct cr_error *error;
	void *probe;

	*ret = dump->droppable == NONE ? 0 : dump->droppable;
	if (dump->droppable)
		return NULL;
	dump->droppable = NONE;
	probe = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_DROPPABLE, -1, 0);
	if (probe == MAP_FAILED)
		return NULL; /* before 6.11 */
	error = flags_of_own(dump, (uint64_t)probe, &flags);
	munmap(probe, PAGE);
	TRY(error);
	flags &= ~IMPLIED;
	if (flags && !(flags & (flags - 1)))
		*ret = dump->droppable = flags;
	return NULL;
}
