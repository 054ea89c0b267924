/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waits at a socket with SO_RCVTIMEO or SO_SNDTIMEO. The kernel looks at the option when a call
 * begins, and has no other way to be told. So the thread goes first while nobody else runs: the
 * option is what is left, and what it was again as soon as the thread sleeps.
 */
#ifndef CR_SOCKET_WAIT_H
#define CR_SOCKET_WAIT_H

#include "../restore.h"

/* Let a stopped thread go that is about to wait at descriptor @fd, in the table of task @table, for @ns.
 * One that has a signal to handle first stays where it is. */
struct cr_error *socket_wait_release(pid_t tid, pid_t table, int fd, int option, uint64_t ns);

/* At the release, when all else is as it should be. */
size_t socket_waits_count(const struct restore *restore);
struct cr_error *socket_waits_restore(struct restore *restore);

#endif
