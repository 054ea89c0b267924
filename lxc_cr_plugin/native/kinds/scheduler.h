/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_SCHEDULER_H
#define CR_SCHEDULER_H

#include "../model.h"

struct restore;

extern const struct kind scheduler_kind;

/* The timer slack that whoever cloned it had then, ns; 0: not known. */
uint64_t scheduler_default_slack(const struct thread *thread);

/* Give it the processors that it had, when nothing is left to be done in it. */
void scheduler_place(struct restore *restore, const struct thread *thread);

#endif
