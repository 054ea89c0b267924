/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_SYSCALL_DISPATCH_H
#define CR_SYSCALL_DISPATCH_H

#include "../model.h"

extern const struct kind syscall_dispatch_kind;

/* After the last program, for from then on calls may end in a SIGSYS: by a call of the thread, where
 * this host has no other way; */
struct cr_error *syscall_dispatch_call(const struct thread *thread, uint64_t insn);
/* by its tracer. */
struct cr_error *syscall_dispatch_set(const struct thread *thread);

#endif
