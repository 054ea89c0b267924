/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Obstacles that are met while the container runs. Tasks start, lock, and end under our eyes, which
 * can look like an obstacle: one is what is there in every look.
 */
#ifndef CR_OBSTACLES_H
#define CR_OBSTACLES_H

#include "pool.h"

/* Zeros are a beginning. */
struct obstacles {
	struct list met;   /* in this look: struct cr_error * */
	struct list found; /* in all looks before it, ascending by message */
	unsigned int looks;
};

/* Takes @error. */
struct cr_error *obstacles_add(struct obstacles *obstacles, struct pool *pool,
			       struct cr_error *error);

/* A look has ended: forget what was not there before. How many are left. */
size_t obstacles_end_look(struct obstacles *obstacles);

/* When all looks are over. */
void obstacles_tell(struct obstacles *obstacles, const struct cr_listener *listener);
void obstacles_deinit(struct obstacles *obstacles);

#endif
