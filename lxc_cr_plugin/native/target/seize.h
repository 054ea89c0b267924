/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One task of those that are to be stopped becomes ours, and is on its way to its stop. */
#ifndef CR_SEIZE_H
#define CR_SEIZE_H

#include <stdbool.h>
#include <sys/types.h>

#include "../error.h"
#include "reaper.h"
#include "stop.h"

/* One that is ours. */
struct cr_error *seize_add(struct stop_set *set, pid_t tid);

/* *dead: there was nobody to seize any more, which is no error. */
struct cr_error *seize_one(struct stop_set *set, struct reaper *reaper, pid_t tid, bool *dead);

#endif
