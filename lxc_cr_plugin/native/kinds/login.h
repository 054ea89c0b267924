/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_LOGIN_H
#define CR_LOGIN_H

#include "../restore.h"

extern const struct kind login_kind;

/* Before other threads of @process are made, which have it from the first. */
struct cr_error *login_restore(struct restore *restore, struct process *process);

#endif
