/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pipes that a process outside the container holds too: the other end would be lost at the restart. */
#ifndef CR_OUTSIDERS_H
#define CR_OUTSIDERS_H

#include "dump.h"

/* Remember a pipe of the container that the survey has met. */
struct cr_error *outsiders_note(struct dump *dump, const struct descriptor *descriptor);
/* Look through the descriptors of all other processes of the host. Takes milliseconds: not inside the stop. */
struct cr_error *outsiders_check(struct dump *dump);

#endif
