/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine and the tasks that it builds, on one processor. */
#ifndef CR_PIN_H
#define CR_PIN_H

#include "restore.h"

/* Init and the engine's calling thread share a processor from now on, and so do all that init makes. */
void pin(struct restore *restore);

/* The engine may use all that it had: for work that is shared out; and back again. */
void pin_lift(const struct restore *restore);
void pin_return(const struct restore *restore);

/* Let @tid run wherever init might. */
void pin_free(const struct restore *restore, pid_t tid);

#endif
