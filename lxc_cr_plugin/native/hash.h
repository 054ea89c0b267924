/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From one or two numbers to a thing that they stand for, in the same time however many there are:
 * nothing searches a list for each member of another one. Its memory is the pool's, and all zeros
 * is an empty one. Numbers may come from an image or be chosen by the container: where they land
 * depends on a secret of this process, so that nobody can have them meet.
 */
#ifndef CR_HASH_H
#define CR_HASH_H

#include "pool.h"

struct hash {
	struct hash_slot *slots;
	size_t count, room;
};

/* @item: not NULL. What is there already under these numbers stays. */
struct cr_error *hash_add(struct pool *pool, struct hash *hash, uint64_t a, uint64_t b, void *item);
/* NULL: nothing. */
void *hash_find(const struct hash *hash, uint64_t a, uint64_t b);

#endif
