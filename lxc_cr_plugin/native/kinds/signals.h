/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_SIGNALS_H
#define CR_SIGNALS_H

#include "../model.h"

extern const struct kind signals_kind;

uint64_t signals_mask(const struct thread *thread);

/* Everything that was pending, in its order; before the limit on how much may be. */
struct cr_error *signals_queue(struct restore *restore, struct process *process);

/* SIGTRAP too, when none of our breakpoints is to come any more. @insn: a system call instruction. */
struct cr_error *signals_queue_traps(struct restore *restore, struct process *process,
				     uint64_t insn);

#endif
