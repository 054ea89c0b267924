/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A program of one instruction: whoever executes it is rid of the memory and the signal dispositions
 * that it shared. */
#ifndef CR_STAND_IN_H
#define CR_STAND_IN_H

#include "restore.h"

/* @process has the program area and the kernel's mappings (process->special), and nothing else that
 * matters. */
struct cr_error *stand_in_execute(struct restore *restore, struct process *process);

#endif
