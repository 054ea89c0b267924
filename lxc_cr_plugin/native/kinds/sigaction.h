/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_SIGACTION_H
#define CR_SIGACTION_H

#include "../restore.h"

extern const struct kind sigaction_kind;

/* After the last program of the process; @insn: address of a system call instruction in it. */
struct cr_error *sigaction_finish(struct restore *restore, struct process *process, uint64_t insn);

#endif
