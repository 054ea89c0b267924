/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tasks share by clone(2) without being threads of one process, and what threads of one process
 * do not share. Of everybody who has the same memory, directories, signal dispositions or
 * descriptors the first in the image's order tells what it is; thread->first[] points there.
 */
#ifndef CR_SHARING_H
#define CR_SHARING_H

#include "dump.h"

enum { SHARES_ANYTHING = (1 << SHARE_SORTS) - 1 }; /* 1 << enum share */

/* "memory", "directories", ... for messages. */
const char *sharing_name(enum share sort);
/* Flags of clone(2) and unshare(2). */
uint64_t sharing_flag(enum share sort);

/* Does its record tell, or that of somebody before it? */
static inline bool sharing_is_first(const struct process *process, enum share sort)
{
	return process_leader(process)->first[sort] == process_leader(process);
}

/* The process of whom @process has it; for descriptors and directories perhaps one that stands for a
 * thread: thread->own. */
const struct process *sharing_owner(const struct process *process, enum share sort);

/* Bits of what it shares with its parent. */
uint32_t sharing_with_parent(const struct process *process);

/* Has this thread descriptors or directories that are not those of the first one? */
bool sharing_is_apart(const struct thread *thread);

/* Restart: whose descriptors are those of the process, or of the thread with tables of its own, of this
 * number in the container; NULL: nobody's. */
struct process *sharing_table(const struct image *image, pid_t pid);

/* Fill thread->first[], thread->own and image->tables; after the tree has been linked. */
struct cr_error *sharing_find(struct dump *dump);
/* Records of what the tree alone does not tell; when all threads have their numbers. */
struct cr_error *sharing_dump(struct dump *dump);
/* The same as sharing_find() from the records of an image. */
struct cr_error *sharing_link(struct image *image);

#endif
