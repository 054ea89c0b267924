/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which VM_ flags are those of MAP_DROPPABLE and mseal(2)? None of those that have kept their place. */
#include "memory_flags.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory.h"

#define PLAIN	  (VM_IMPLIED | VM_NORESERVE | VM_WIPEONFORK | VM_DONTDUMP | VM_ACCOUNT)
#define ELSEWHERE (VM_DROPPABLE | VM_SEALED)
#define UNKNOWN	  (1ull << 63) /* in no image */

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

/* The one flag that a mapping of ours has for no other reason; 0: it cannot be told. */
static struct cr_error *flag_of_own(struct dump *dump, const void *probe, uint64_t *ret)
{
	uint64_t flags = 0;

	TRY(flags_of_own(dump, (uint64_t)probe, &flags));
	flags &= ~PLAIN;
	*ret = flags & (flags - 1) ? 0 : flags;
	return NULL;
}

static struct cr_error *find_droppable(struct dump *dump, uint64_t *ret)
{
	void *probe =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_DROPPABLE, -1, 0);
	struct cr_error *error;

	if (probe == MAP_FAILED)
		return NULL; /* before 6.11 */
	error = flag_of_own(dump, probe, ret);
	munmap(probe, PAGE);
	return error;
}

/* A page that is ours for ever: it cannot be unmapped. */
static struct cr_error *find_sealed(struct dump *dump, uint64_t *ret)
{
	void *probe = mmap(NULL, PAGE, PROT_NONE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);

	if (probe == MAP_FAILED)
		return error_sys("Failed to map a page");
	if (!syscall(SYS_mseal, probe, PAGE, 0))
		return flag_of_own(dump, probe, ret);
	munmap(probe, PAGE); /* before 6.10 */
	return NULL;
}

static void translate(uint64_t *flags, uint64_t from, uint64_t to, uint64_t *translated)
{
	if (!from || !(*flags & from))
		return;
	*flags &= ~from;
	*translated |= to;
}

struct cr_error *memory_translate_flags(struct dump *dump, uint64_t *flags)
{
	struct found_flags *found = &dump->found_flags;
	uint64_t translated = 0;

	if (!(*flags & (ELSEWHERE | ~(VM_RESTORED | VM_IMPLIED | VM_PKEY))))
		return NULL;
	if (!found->looked) {
		TRY(find_droppable(dump, &found->droppable));
		TRY(find_sealed(dump, &found->sealed));
		found->looked = true;
	}
	translate(flags, found->droppable, VM_DROPPABLE, &translated);
	translate(flags, found->sealed, VM_SEALED, &translated);
	/* on this kernel it means something else */
	if (*flags & ELSEWHERE)
		*flags = (*flags & ~ELSEWHERE) | UNKNOWN;
	*flags |= translated;
	return NULL;
}
