/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What /proc/PID/status says of a thread, mostly without reading it. */
#ifndef CR_TASK_STATUS_H
#define CR_TASK_STATUS_H

#include "dump.h"

/* Fill thread->status. */
struct cr_error *task_status(struct dump *dump, struct thread *thread);

#endif
