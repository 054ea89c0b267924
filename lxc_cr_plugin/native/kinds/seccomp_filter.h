/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_SECCOMP_FILTER_H
#define CR_SECCOMP_FILTER_H

#include "../dump.h"
#include "../restore.h"

extern const struct kind seccomp_filter_kind;

/* The newest filter of a stopped thread, with all that it inherited; *ret 0: it has none. */
struct cr_error *seccomp_filter_dump(struct dump *dump, const struct thread *thread, uint32_t *ret);

/* A chain as the image has it: *ret: list of struct object *, the oldest first. */
struct cr_error *seccomp_filter_chain(struct restore *restore, uint32_t newest, struct list *ret);

/* Does filter @index (0: the oldest) of a stopped thread have this program? */
struct cr_error *seccomp_filter_matches(pid_t tid, uint64_t index, const struct object *object,
					bool *ret);

/* Append the call that loads a filter into the program's thread, or (@everywhere) into all threads
 * of its process. */
struct cr_error *seccomp_filter_load(struct restore *restore, const struct object *object,
				     bool everywhere);

#endif
