/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_SYSCALL_DISPATCH_H
#define CR_SYSCALL_DISPATCH_H

#include "../model.h"

extern const struct kind syscall_dispatch_kind;

/* After the last call of ours: from then on calls may end in a SIGSYS. */
struct cr_error *syscall_dispatch_set(const struct thread *thread);

#endif
