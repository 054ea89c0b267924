/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes and threads out of init and its clones. */
#ifndef CR_TREE_H
#define CR_TREE_H

#include "restore.h"

/* Every process with its memory, under its pid, in its session and group; zombies are dead. */
struct cr_error *tree_build(struct restore *restore);

#endif
