/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_PROCESS_H
#define CR_PROCESS_H

#include "../model.h"

struct process_identity {
	int32_t pid, ppid, pgid, sid;
	int32_t exit_signal;
	bool dead_leader; /* its first thread has ended while others run */
	uint32_t leader_status;
	struct bytes leader_comm;
};

extern const struct kind process_kind;

#endif
