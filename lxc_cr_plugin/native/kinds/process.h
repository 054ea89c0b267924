/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_PROCESS_H
#define CR_PROCESS_H

#include "../model.h"

struct process_identity {
	int32_t pid, ppid, pgid, sid;
	int32_t exit_signal;
	uint32_t shared; /* enum sharing */
	/* job control */
	uint32_t stop_signal; /* 0: not stopped */
	bool stop_told;	      /* the parent got its SIGCHLD */
	bool stop_waited;     /* and has asked wait(2) about it */
	bool continued;	      /* wait(2) with WCONTINUED has something to tell */
	bool dead_leader;     /* its first thread has ended while others run */
	uint32_t leader_status;
	struct bytes leader_comm;
};

extern const struct kind process_kind;

/* Is it one of those that stop a process by default? */
bool signal_stops(uint32_t signal);

/* Dump: by job control. */
bool process_is_stopped(const struct process *process);

#endif
