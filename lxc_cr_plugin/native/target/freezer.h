/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The freezer of a cgroup: of v1, or that of each cgroup in v2. */
#ifndef CR_FREEZER_H
#define CR_FREEZER_H

#include "../error.h"
#include "../pool.h"

/* @freezer: its directory. */
struct cr_error *freezer_write(const char *freezer, bool is_v2, bool freeze);
/* Until all tasks are frozen; CR_HOST when they are not in time. */
struct cr_error *freezer_wait(const char *freezer, bool is_v2, struct pool *pool);

#endif
