/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Time at a restart. Programs keep moments of CLOCK_MONOTONIC and CLOCK_BOOTTIME in their memory, so
 * the container gets a time namespace, in which these clocks show at the release R what they showed
 * at T0. Everything else that ends sometime is armed anew for what was left of it.
 *
 * The kernel lets nobody into a time namespace who has a second thread or shares his memory, and
 * nobody change it once somebody is inside. So R is planned when everything that is of processes is
 * in place, and only their other threads and what is of threads are missing. Where a pidfd is in the
 * image, which may stand for a thread, all threads stand before the first file is opened, and R is
 * planned before that. Where processes share memory, or init may not do it, init enters by its
 * execve(2) (before Linux 6.3 just after it, if it may), and R is planned earlier still.
 */
#ifndef CR_CLOCKS_H
#define CR_CLOCKS_H

#include "restore.h"

/* @pid, which is about to execute init, stands in the runtime's code. */
struct cr_error *clocks_prepare(struct restore *restore, pid_t pid);
/* Init stands alone. */
struct cr_error *clocks_enter_early(struct restore *restore);
/* All processes stand, with one thread each. */
struct cr_error *clocks_enter(struct restore *restore);
/* From when all states are set to the release, ns. */
uint64_t clocks_arming_ns(const struct restore *restore);
/* The release is now known. */
void clocks_settle(struct restore *restore);

/* ns on a clock as the container's programs see it. */
int64_t clocks_now(const struct restore *restore, clockid_t clock);

#endif
