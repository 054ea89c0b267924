/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How descriptors get into tasks: a socket pair made in init, one end of which we fetch and the
 * other every task inherits. What we send arrives at the lowest free numbers of the task that
 * receives.
 */
#ifndef CR_CHANNEL_H
#define CR_CHANNEL_H

#include "program.h"

enum { CHANNEL_BATCH = 250 }; /* SCM_MAX_FD is 253 */

struct channel {
	int ours;   /* -1: not there yet */
	int theirs; /* its number in every task */
};

/* In the program's task, its end at number @theirs. */
struct cr_error *channel_open(struct channel *channel, struct program *program, int theirs);
void channel_close(struct channel *channel);

/* At most CHANNEL_BATCH descriptors. */
struct cr_error *channel_send(struct channel *channel, const int *fds, size_t count);
/* Append the call that receives what was sent; the numbers will lie at the returned address, ints.
 */
uint64_t channel_receive(struct channel *channel, struct program *program, size_t count);

/* Our own copy of descriptor @fd of task @tid. */
struct cr_error *task_get_fd(pid_t tid, int fd, int *ret);
/* Several; none when one fails. */
struct cr_error *task_get_fds(pid_t tid, const int *fds, int *ret, size_t count);

#endif
