/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Entries with EPOLLONESHOT that have reported and wait to be armed again. The kernel cannot be
 * told to make one: an entry is added for everything, reports once, and is one.
 */
#ifndef CR_EPOLL_ONESHOT_H
#define CR_EPOLL_ONESHOT_H

#include <sys/epoll.h>

#include "../dump.h"
#include "../restore.h"

enum { EPOLL_ANYTHING = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP };

struct epoll_entry {
	int32_t fd;
	uint32_t object;
	uint32_t events;
	uint64_t data;
	uint32_t reported;
};

bool epoll_is_disarmed(const struct epoll_entry *entry);

/* dump: is it ready for anything, so that it will be after the restart, or can it be made so? */
bool epoll_can_fire(const struct object *target);

/* restart: have the only entries of instance @object report; *left counts down. */
struct cr_error *epoll_fire(struct object *object, struct object *target, size_t *left);

#endif
