/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes that are stopped by SIGSTOP and the like. They are stopped again as soon as the tree
 * stands; a traced task can run programs all the same, and when it is released the kernel sees that
 * its process is stopped.
 */
#ifndef CR_JOB_CONTROL_H
#define CR_JOB_CONTROL_H

#include "restore.h"

/* While no process has more than one thread, and none its signal dispositions. */
struct cr_error *job_control_restore(struct restore *restore);

/* A child's end or stop has become pending in the parent, which was told before: take it away. */
struct cr_error *job_control_forget(struct restore *restore, const struct process *parent,
				    int signal);

#endif
