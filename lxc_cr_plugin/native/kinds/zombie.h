/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Children that have ended and were not waited for yet. They have no memory, no files and no
 * threads: in the model they stand apart from the processes, in image->zombies, and among the
 * children of their parent.
 */
#ifndef CR_ZOMBIE_H
#define CR_ZOMBIE_H

#include "../dump.h"
#include "../restore.h"
#include "process.h"

struct zombie {
	struct process_identity identity;
	struct bytes comm;
	uint32_t uid, gid;
	uint32_t status;
};

extern const struct kind zombie_kind;

struct cr_error *zombie_dump(struct dump *dump, const struct kernel_task *task,
			     struct process *parent);
/* Once the parents have been looked at. */
void zombie_resolve(struct process *process);
/* A record of the image begins: its process. */
struct cr_error *zombie_add(struct image *image, struct process *parent, struct zombie *state,
			    struct process **ret);

/* After it stood in for itself in session and group: it ends as it did. The parent gets its exit
 * signal, which restore has to take away again. */
struct cr_error *zombie_end(struct restore *restore, struct process *process);
/* Task @tid runs its program and ends with this status of wait(2); *core: with WCOREFLAG. */
struct cr_error *zombie_end_as(struct restore *restore, pid_t tid, uint32_t status, bool *core);

#endif
