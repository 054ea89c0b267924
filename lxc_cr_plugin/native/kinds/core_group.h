/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Core scheduling: only threads with one cookie run on the hyperthreads of a core at a time. */
#ifndef CR_CORE_GROUP_H
#define CR_CORE_GROUP_H

#include "../dump.h"
#include "../restore.h"

/* The number that the image gives to the thread's cookie, 1 and up; 0: what init has. */
struct cr_error *core_group_dump(struct dump *dump, const struct thread *thread, uint32_t *ret);

/* From outside, when nobody is cloned any more. */
struct cr_error *core_group_restore(struct restore *restore, const struct thread *thread,
				    uint32_t group);

#endif
