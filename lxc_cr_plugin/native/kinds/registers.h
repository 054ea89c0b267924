/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_REGISTERS_H
#define CR_REGISTERS_H

#include "../restore.h"

extern const struct kind registers_kind;

/* What the thread will run on with; its own copy, for the caller to change. */
struct cr_error *registers_of(const struct thread *thread, struct arch_regs *ret);
/* General and extended registers into place: the last thing done to a thread. */
struct cr_error *registers_set(const struct thread *thread, const struct arch_regs *regs);

#endif
