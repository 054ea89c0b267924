/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Large ranges of which nothing is there yet. */
#ifndef CR_MEMORY_FRESH_H
#define CR_MEMORY_FRESH_H

#include "memory.h"

/* When the kernel makes huge pages of anonymous memory that is touched. */
enum huge_pages { HUGE_NEVER, HUGE_ADVISED, HUGE_ALWAYS };

/* While one process is filled; begins as zeros, and ends with fresh_end(). */
struct fresh {
	struct restore *restore;
	struct process *process;
	enum huge_pages huge_pages; /* in this process */
	bool known;		    /* that */
	bool wide;		    /* the engine is not pinned any more: pin.c */
	bool watched;		    /* it was tried to get a userfaultfd: */
	int userfault;		    /* that, or -1 */
};

/* A run of pages that lie in one VMA, contents in the pages file. */
struct fresh_run {
	const struct vma *vma;
	uint64_t page, count, index;
};

enum {
	FRESH_LEAST = ARCH_HUGE_PAGE / PAGE, /* pages; fewer are not worth getting ready for */
	FRESH_GRAIN = 2048,		     /* pages of a processor: for parallel() */
};

/* Of what it has from its parent nothing is left there: else the kernel would copy each page before it
 * is overwritten. */
struct cr_error *fresh_drop(struct fresh *fresh, uint64_t page, uint64_t count);
/* How many pages of @run, from *from on, should become huge pages. */
uint64_t fresh_huge(struct fresh *fresh, const struct fresh_run *run, uint64_t *from);
/* What is written to @vma in between becomes huge pages. */
struct cr_error *fresh_huge_begin(struct fresh *fresh, const struct vma *vma);
struct cr_error *fresh_huge_end(const struct fresh *fresh);
/* Fill @run without that the kernel clears its pages first; *done false: it has to be written. */
struct cr_error *fresh_place(struct fresh *fresh, const struct fresh_run *run, bool *done);
/* Before work on all processors. */
void fresh_widen(struct fresh *fresh);
struct cr_error *fresh_end(struct fresh *fresh);

#endif
