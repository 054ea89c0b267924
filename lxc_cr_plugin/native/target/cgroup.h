/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is in a cgroup. */
#ifndef CR_CGROUP_H
#define CR_CGROUP_H

#include <sys/types.h>

#include "../error.h"
#include "../pool.h"

/* Threads of the cgroup and of all below it, ascending: list of pid_t. */
struct cr_error *cgroup_tasks(const char *cgroup, struct pool *pool, struct list *ret);

#endif
