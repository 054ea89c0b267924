/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Open file descriptions that a message in a unix socket holds (SCM_RIGHTS). Who looks at the message
 * gets a descriptor of his own for each; under it the kinds look at what no process has open.
 */
#ifndef CR_IN_FLIGHT_H
#define CR_IN_FLIGHT_H

#include "../dump.h"

/* Under the stop, when all descriptors of processes were looked at: what waits in unix sockets, and
 * in those that wait there themselves. */
struct cr_error *in_flight_dump(struct dump *dump);
/* The object of the description @file, which is in flight in @socket and which nobody has open; @fd:
 * a descriptor of this process for it, which stays open for a while. */
struct cr_error *in_flight_object(struct dump *dump, const struct object *socket, uint64_t file,
				  int fd, struct object **ret);
/* While everything runs: locks on it will be explained by that. */
struct cr_error *in_flight_note(struct dump *dump, uint64_t file);
/* Before anybody runs: the last descriptor of a pipe may be one of ours. */
void in_flight_forget(struct dump *dump);

/* Does this one stand for messages? */
static inline bool in_flight_holds(const struct dump *dump, const struct process *process)
{
	return process && process == dump->flight;
}

#endif
