/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stop every task of a cgroup and prove that none was missed.
 *
 * Rounds of "list, seize and interrupt what is new, wait for the stops" end when a listing shows
 * nothing new while all known tasks stand: only a running task could have made another one.
 * Children of seized tasks are seized by the kernel. This takes a tenth of the time of a freezer
 * round trip. A cgroup that grows faster than it is stopped (a fork bomb) is frozen first, seized,
 * and thawed into its stops.
 *
 * Should the engine die, the kernel lets every task go on: nothing is left to undo but the freezer.
 */
#ifndef CR_STOP_H
#define CR_STOP_H

#include <sys/types.h>

#include "../error.h"
#include "../hash.h"
#include "../log.h"
#include "../pool.h"
#include "cgroup.h"

struct stopped_task {
	pid_t tid;
	bool stands;
	bool job_control; /* it was stopped by SIGSTOP or the like before */
	bool vfork;	  /* it waits for its child to execute a program or to end */
};

struct stop_set {
	struct pool *pool;
	struct log *log;
	const char *cgroup;  /* directory; its descendants count too */
	const char *freezer; /* NULL: none */
	bool freezer_is_v2;
	struct list late;   /* pid_t: to be stopped when all others stand, in this order */
	struct hash places; /* of late: stop_place() */
	struct list tasks;  /* struct stopped_task, ascending by tid */
	/* while it is not ascending yet: numbers of the first tasks, from 1 on, by tid */
	struct hash numbers;
	size_t numbered;
	bool some_ended; /* or may have, while the container was being stopped */
};

/* @tid is stopped late, after those of whom this was said before. */
struct cr_error *stop_late(struct stop_set *set, pid_t tid);
/* Where it is among those, the number of all when it is not. */
size_t stop_place(const struct stop_set *set, pid_t tid);

struct cr_error *stop_all(struct stop_set *set);
/* NULL: not stopped by us. */
struct stopped_task *stop_find(struct stop_set *set, pid_t tid);
/* Send SIGKILL to all: a task that stands then ends without running another instruction. */
void stop_kill(struct stop_set *set);
/* Let all go, @last after all others. A task that is gone by now is no error. */
void stop_release(struct stop_set *set, pid_t last);

#endif
