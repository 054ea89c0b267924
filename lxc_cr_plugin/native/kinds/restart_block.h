/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_RESTART_BLOCK_H
#define CR_RESTART_BLOCK_H

#include "../restore.h"

extern const struct kind restart_block_kind;

/*
 * Prepare the interrupted system call of @thread, whose registers are @regs: a relative wait is
 * started again for what was left of it and interrupted, so that the kernel has its own note of how
 * to go on. The last thing that may run in the thread.
 */
struct cr_error *restart_block_arm(struct restore *restore, struct thread *thread,
				   struct arch_regs *regs);

#endif
