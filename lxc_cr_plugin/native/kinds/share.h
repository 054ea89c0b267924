/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_SHARE_H
#define CR_SHARE_H

#include "../model.h"

/* Everybody who has it, the first in the image's order first. */
struct shared_thing {
	uint32_t what; /* 1 << enum share */
	struct list tasks;
};

struct shared_task {
	int32_t tid;
};

extern const struct kind share_kind;

#endif
