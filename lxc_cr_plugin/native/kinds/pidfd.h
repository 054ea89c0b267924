/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_PIDFD_H
#define CR_PIDFD_H

#include "../restore.h"

extern const struct kind pidfd_kind;

/* When all pidfds are open: the processes that stand for dead ones end. */
struct cr_error *pidfd_finish(struct restore *restore);

#endif
