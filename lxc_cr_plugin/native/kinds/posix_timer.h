/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_POSIX_TIMER_H
#define CR_POSIX_TIMER_H

#include "../dump.h"
#include "../kernel/timers.h"
#include "../restore.h"

extern const struct kind posix_timer_kind;

/* The timer behind a pending signal; NULL: the process has none of this id. */
struct cr_error *posix_timer_find(struct dump *dump, struct process *process, int32_t id,
				  const struct kernel_timer **ret);

/* Arm the timers of a process, at the release; those that are due come with the pending signals. */
struct cr_error *posix_timer_arm(struct restore *restore, struct process *process);

/* Append calls that make timer @id fire at once, so that its signal is queued now. */
struct cr_error *posix_timer_fire(struct restore *restore, struct process *process, int32_t id);

#endif
