/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_RSEQ_H
#define CR_RSEQ_H

#include "../model.h"
#include "../target/task.h"

extern const struct kind rseq_kind;

/* A task stopped inside a restartable sequence must come back at its abort handler, as after any
 * preemption. Its registration is dumped already. */
struct cr_error *rseq_abort(const struct thread *thread, struct arch_regs *regs);

#endif
