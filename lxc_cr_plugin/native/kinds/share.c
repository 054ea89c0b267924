/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "share.h"

static const struct field task_fields[] = {
	FIELD_INT(struct shared_task, tid, 1, MAX_TASKS, "thread id in the container"),
	FIELD_END,
};

static const struct field share_fields[] = {
	FIELD_UINT(struct shared_thing, what, 1, 1 << (SHARE_SORTS - 1),
		   "1 memory, 2 directories, 4 signal dispositions, 8 descriptors, 16 semaphore "
		   "adjustments"),
	FIELD_ROWS(struct shared_thing, tasks, struct shared_task, task_fields, MAX_TASKS,
		   "first threads of processes, and threads with descriptors or directories of "
		   "their own; the record of the first tells what it is"),
	FIELD_END,
};

const struct kind share_kind = {
	.name = "share",
	.doc = "What tasks share that are not parent and child; what a thread has for itself",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct shared_thing),
	.fields = share_fields,
	/* made and read by sharing.c, when all tasks are known */
};
