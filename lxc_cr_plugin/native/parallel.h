/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bulk memory work on all processors. ptrace(2) answers to one thread only: no ptrace in here. */
#ifndef CR_PARALLEL_H
#define CR_PARALLEL_H

#include <stdint.h>

#include "error.h"

/* Work on the items [begin, end); must not touch what another part may touch, nor any pool. */
typedef struct cr_error *(*parallel_work)(void *context, uint64_t begin, uint64_t end);

/*
 * Do @work on [0, @count), cut into parts of at least @grain items, on all processors: below
 * twice that everything is done by the caller's thread. Returns an error of a part that
 * failed, after all have ended.
 */
struct cr_error *parallel(uint64_t count, uint64_t grain, parallel_work work, void *context);

#endif
