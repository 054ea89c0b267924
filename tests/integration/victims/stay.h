/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A member of a session and of a process group, which stays in both. */
#ifndef STAY_H
#define STAY_H

#include "victim.h"

/* Arrives twice: when it is there, and when it has seen that it still is. */
static inline void stay_a_member(uint32_t *arrived)
{
	pid_t session = getsid(0), group = getpgid(0);

	victim_arrive(arrived);
	victim_wait();
	check(getsid(0) == session, "session was %d, is %d", session, getsid(0));
	check(getpgid(0) == group, "group was %d, is %d", group, getpgid(0));
	victim_arrive(arrived);
}

#endif
