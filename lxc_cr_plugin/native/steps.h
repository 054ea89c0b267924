/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The named steps of both flows, where a test may make the engine fail or die. */
#ifndef CR_STEPS_H
#define CR_STEPS_H

#include "error.h"

enum cr_step {
	CHECKPOINT_PREPARE,
	CHECKPOINT_REHEARSE,
	CHECKPOINT_STOP,
	CHECKPOINT_STOPPED,
	CHECKPOINT_TREE,
	CHECKPOINT_STATES,
	CHECKPOINT_PAGES,
	CHECKPOINT_FILES,
	CHECKPOINT_WRITE,
	CHECKPOINT_WRITTEN,
	CHECKPOINT_COMMITTED,
	RESTART_LOAD,
	RESTART_READY,
	RESTART_SEIZED,
	RESTART_NOTED,
	RESTART_LET_GO,
	RESTART_TAKEN_OVER,
	RESTART_TREE,
	RESTART_FILES,
	RESTART_STATES,
	RESTART_RELEASE,
	RESTART_LEASE, /* only where a lease is being broken: the sysctl is changed */
};

/* @fault: "NAME" ends this process here with SIGKILL, "NAME!" returns an error, "NAME~250" waits for
 * so many milliseconds; NULL: nothing happens. */
struct cr_error *step(const char *fault, enum cr_step at);

/* @fault: "without-A+B" lets the engine do without features of the kernel that it looks for. */
bool step_is_left_out(const char *fault, const char *feature);

#endif
