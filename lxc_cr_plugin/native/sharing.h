/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes that share with their parent what clone(2) lets them share, without being its threads.
 * What a process shares with anybody else is refused: clone(2) could not rebuild it.
 */
#ifndef CR_SHARING_H
#define CR_SHARING_H

#include "dump.h"

enum sharing {
	SHARES_MEMORY = 1,  /* CLONE_VM */
	SHARES_FS = 2,	    /* CLONE_FS */
	SHARES_SIGHAND = 4, /* CLONE_SIGHAND */
	SHARES_FILES = 8,   /* CLONE_FILES */
	SHARES_UNDO = 16,   /* CLONE_SYSVSEM */
	SHARES_ANYTHING = 31,
};

/* Fill process->shared; after the tree has been linked. */
struct cr_error *sharing_find(struct dump *dump);
/* Flags of clone(2) for such a child. */
uint64_t sharing_clone_flags(const struct process *process);

#endif
