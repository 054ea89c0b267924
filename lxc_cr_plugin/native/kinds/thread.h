/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_THREAD_H
#define CR_THREAD_H

#include "../model.h"

struct thread_identity {
	int32_t tid;
	struct bytes comm;
	uint32_t personality;
	bool no_tsc;
};

extern const struct kind thread_kind;

#endif
