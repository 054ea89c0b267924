/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes that came into the container from outside, through lxc-attach or the like. Nothing could
 * make them again: their parent waits for them outside, and so does who reads what they write. They
 * are refused, or left out of the image if the user wants that: the image is then of a container in
 * which they have ended.
 */
#ifndef CR_ATTACHED_H
#define CR_ATTACHED_H

#include "dump.h"

/* Process @tgid of the host is in the container, and its parent @ppid is not, or came in itself. */
struct cr_error *attached_process(struct dump *dump, pid_t tgid, pid_t ppid);
/* Is it one that is left out? */
bool attached_is_left_out(const struct dump *dump, pid_t tgid);

#endif
