/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_TTY_H
#define CR_TTY_H

#include "../dump.h"
#include "../restore.h"

extern const struct kind tty_kind, terminal_kind;

/* /dev/tty can only be opened once its session has a terminal. */
bool tty_is_alias(const struct object *object);
/* From the host's numbers to the container's, when all processes are known. */
void terminal_resolve(struct dump *dump, struct process *leader);
/* In the program of the session's leader, which has just made its session. */
struct cr_error *terminal_acquire(struct restore *restore, struct process *process);
struct cr_error *terminal_foreground(struct restore *restore, struct process *process);

#endif
