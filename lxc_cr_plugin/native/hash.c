/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hash.h"

#include <string.h>
#include <sys/auxv.h>

enum { LEAST_ROOM = 16 }; /* a power of two, as it stays: half of it is kept free */

struct hash_slot {
	uint64_t a, b;
	void *item; /* NULL: free */
};

static uint64_t spread(uint64_t number)
{
	number = (number ^ number >> 32) * 0x9e3779b97f4a7c15u;
	return number ^ number >> 29;
}

static size_t place_of(uint64_t a, uint64_t b, size_t room)
{
	/* 16 bytes that the kernel has drawn for this process */
	const void *random = (const void *)getauxval(AT_RANDOM);
	uint64_t secret[2] = {0};

	if (random)
		memcpy(secret, random, sizeof(secret));
	return spread(spread(a ^ secret[0]) * 3 + (b ^ secret[1])) & (room - 1);
}

/* Where the numbers are, or would be. */
static struct hash_slot *slot_of(const struct hash *hash, uint64_t a, uint64_t b)
{
	size_t at = place_of(a, b, hash->room);

	while (hash->slots[at].item && (hash->slots[at].a != a || hash->slots[at].b != b))
		at = (at + 1) & (hash->room - 1);
	return &hash->slots[at];
}

static struct cr_error *grow(struct pool *pool, struct hash *hash)
{
	struct hash grown = {.count = hash->count,
			     .room = hash->room ? 2 * hash->room : LEAST_ROOM};

	grown.slots = pool_calloc(pool, grown.room, sizeof(*grown.slots));
	if (!grown.slots)
		return error_nomem();
	for (size_t i = 0; i < hash->room; i++) {
		const struct hash_slot *slot = &hash->slots[i];

		if (slot->item)
			*slot_of(&grown, slot->a, slot->b) = *slot;
	}
	*hash = grown;
	return NULL;
}

struct cr_error *hash_add(struct pool *pool, struct hash *hash, uint64_t a, uint64_t b, void *item)
{
	struct hash_slot *slot;

	if (hash->count >= hash->room / 2)
		TRY(grow(pool, hash));
	slot = slot_of(hash, a, b);
	if (slot->item)
		return NULL;
	*slot = (struct hash_slot){a, b, item};
	hash->count++;
	return NULL;
}

void *hash_find(const struct hash *hash, uint64_t a, uint64_t b)
{
	return hash->room ? slot_of(hash, a, b)->item : NULL;
}
