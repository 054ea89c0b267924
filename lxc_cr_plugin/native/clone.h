/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Single calls of clone(2) under chosen numbers; what the plan of births.h needs of them. */
#ifndef CR_CLONE_H
#define CR_CLONE_H

#include "births.h"
#include "restore.h"

/* A process that will be gone before the container runs. */
struct helper {
	pid_t pid, host_pid;
	pid_t parent; /* who cloned it, host number */
};

/* The program's task gets what a clone of it, which is to become @child, begins with. */
struct cr_error *clone_prepare(struct restore *restore, const struct thread *child);
/* The program's task makes one process, @pid 0: of any number; *ret: its number on this host. */
struct cr_error *clone_process(struct restore *restore, pid_t pid, uint64_t flags, int exit_signal,
			       pid_t *ret);
/* The helper ends, and whoever cloned it waits for it: no trace, no signal. */
struct cr_error *clone_end_helper(struct restore *restore, const struct helper *helper);

/* Does @process adopt what its descendants leave? */
struct cr_error *clone_set_reaper(struct restore *restore, const struct process *process, bool on);

/* Orphans stay with a helper until it ends; so it must before @next (NULL: all others), unless that
 * is one more of them. */
struct cr_error *clone_end_delivery(struct restore *restore, const struct birth_step *next);
/* STEP_MAKE and STEP_GIVE_UP. */
struct cr_error *clone_make(struct restore *restore, const struct birth_step *step);
struct cr_error *clone_give_up(struct restore *restore, const struct birth_step *step);
/* Those of its threads that do not stand yet. */
struct cr_error *clone_threads(struct restore *restore, struct process *process);

#endif
