/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The runtime starts the container as always; when it is about to execute init, its hook tells us
 * the pid and waits. We seize the process, let the runtime go on, and stop init before its first
 * instruction.
 */
#ifndef CR_TAKEOVER_H
#define CR_TAKEOVER_H

#include "restore.h"

/* restore->init is set and stands, new from exec, all signals but SIGTRAP blocked. */
struct cr_error *takeover(struct restore *restore);

/* The program area is in init: code in place, restore->program ready, channel open. */
struct cr_error *takeover_prepare(struct restore *restore);

/* A task new from execve(2) gets what it takes to make calls for us; @special: where the kernel's
 * mappings lie in it. */
struct cr_error *takeover_equip(const struct restore *restore, pid_t tid,
				const struct list *special);

#endif
