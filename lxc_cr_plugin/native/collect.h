/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a set of thread ids to the filled model: what happens inside the stop (and, as a survey,
 * before it). */
#ifndef CR_COLLECT_H
#define CR_COLLECT_H

#include "dump.h"

/* Processes (parents first) and their threads, from @tids ascending. */
struct cr_error *collect_tree(struct dump *dump, const pid_t *tids, size_t count);
/* Run every kind's check functions; obstacles are counted. */
struct cr_error *collect_checks(struct dump *dump);
/* Run every kind's dump functions. */
struct cr_error *collect_states(struct dump *dump);
/* Copy the memory of all address spaces and shared objects. */
struct cr_error *collect_pages(struct dump *dump);
/* Bytes of memory that a checkpoint would copy now, generously. */
uint64_t collect_memory_estimate(struct dump *dump);
/* Drop the model, for the next look. */
void collect_forget(struct dump *dump);

#endif
