/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The container's ipc namespace itself: its limits, and that nobody else uses it. */
#ifndef CR_IPC_NAMESPACE_H
#define CR_IPC_NAMESPACE_H

#include "../dump.h"
#include "../restore.h"

extern const struct kind ipc_namespace_kind;

/* This process enters the namespace of task @pid, for good: /proc/sysvipc and the limits below
 * /proc/sys show the reader's own. */
struct cr_error *ipc_namespace_enter(pid_t pid);

/* After it was entered. POSIX message queues are refused here. */
struct cr_error *ipc_namespace_dump(struct dump *dump);

/* Its limits, but for those that would hinder us, before the first object is made. */
struct cr_error *ipc_namespace_begin(struct restore *restore);
/* The others, when all objects stand. */
struct cr_error *ipc_namespace_finish(struct restore *restore);

#endif
