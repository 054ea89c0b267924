/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File locks and leases at a checkpoint: whose they are, and who waits for them in which order.
 * Where nobody locks anything this costs nothing.
 */
#ifndef CR_LOCKS_H
#define CR_LOCKS_H

#include "dump.h"

/* Before a look at all descriptors: forget what the last one noted. */
void locks_begin(struct dump *dump);
/* This descriptor may show locks; @object: its open file description, NULL before the stop. */
struct cr_error *locks_note(struct dump *dump, const struct descriptor *descriptor,
			    struct object *object);
/* This mapping shows a file that somebody locked once. locks_mapped.c */
struct cr_error *locks_note_mapping(struct dump *dump, struct process *process,
				    const struct proc_map *map, const struct kernel_vma *known);
/* Whether the container has a lock on an inode of this number, as far as it was noted. */
bool locks_noted(const struct dump *dump, ino_t inode);
/* Does the inode of number @inode, with these locks, have a lease, so that nobody may open it? */
struct cr_error *locks_leased(struct dump *dump, uint64_t context, ino_t inode, bool *ret);
/* After the look, tasks running: refuse locks that nothing noted explains. locks_unseen.c */
struct cr_error *locks_check_unseen(struct dump *dump);
/* After the look, tasks running: refuse what could not be saved. */
struct cr_error *locks_check(struct dump *dump);
/* Just before the stop: who waits behind whom; they are stopped after all others. */
struct cr_error *locks_queue(struct dump *dump);
/* Under the stop, when all files are known: locks, leases and waiters become objects. */
struct cr_error *locks_collect(struct dump *dump);
/* Let those who wait go first, in their old order. */
void locks_release(struct dump *dump);

#endif
