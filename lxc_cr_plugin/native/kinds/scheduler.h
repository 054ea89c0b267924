/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_SCHEDULER_H
#define CR_SCHEDULER_H

#include "../model.h"

extern const struct kind scheduler_kind;

/* The timer slack that whoever cloned it had then, ns; 0: not known. */
uint64_t scheduler_default_slack(const struct thread *thread);

#endif
