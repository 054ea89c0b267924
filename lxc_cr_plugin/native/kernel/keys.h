/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keys and keyrings (keyrings(7)). keyctl(2) shows them to who possesses them, and that is neither
 * we nor a bystander; struct key has it all.
 */
#ifndef CR_KERNEL_KEYS_H
#define CR_KERNEL_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "../pool.h"
#include "btf.h"
#include "peek.h"

/* Where this kernel has the members; not known: a kernel without keys. */
struct kernel_key_layout {
	bool known;
	uint32_t serial, expiry, uid, gid, perm, state, flags, type, description, index, payload;
	uint32_t restriction, root;	       /* of struct key, a keyring's */
	uint32_t type_name;		       /* of struct key_type */
	uint32_t users;			       /* of struct user_namespace */
	uint32_t index_length;		       /* of struct keyring_index_key */
	uint32_t data_length, data;	       /* of struct user_key_payload */
	uint32_t slots, slot_count, next_node; /* of struct assoc_array_node and _shortcut */
};

struct cr_error *kernel_keys_locate(const struct btf *btf, struct kernel_key_layout *ret);

/* KEY_FLAG_... of the kernel's include/linux/key.h, unchanged since 5.4 */
enum {
	KERNEL_KEY_DEAD = 1 << 0,
	KERNEL_KEY_REVOKED = 1 << 1,
	KERNEL_KEY_INVALIDATED = 1 << 5,
	KERNEL_KEY_OF_USER = 1 << 9, /* the keyring of a user, or of its sessions */
};

#define KERNEL_KEY_NEVER INT64_MAX /* expiry: none; also 0 before Linux 6.8 */

struct kernel_key {
	int32_t serial;
	uint32_t uid, gid; /* of the host */
	uint32_t perm;
	int64_t expiry; /* CLOCK_REALTIME, s */
	int16_t state;	/* 1: there; below 0: known not to exist */
	uint64_t flags;
	uint64_t restriction; /* not 0: KEYCTL_RESTRICT_KEYRING */
	uint64_t payload;     /* of a keyring: something else */
	char type[32];
	struct bytes description;
};

struct cr_error *kernel_key_read(const struct kernel_key_layout *layout, struct kernel_peek *peek,
				 uint64_t address, struct pool *pool, struct kernel_key *ret);
/* What a key of type "user" holds. */
struct cr_error *kernel_key_payload(const struct kernel_key_layout *layout,
				    struct kernel_peek *peek, const struct kernel_key *key,
				    struct pool *pool, struct bytes *ret);
/* The keyrings of all users of the user namespace at @address: list of uint64_t, addresses. */
struct cr_error *kernel_keyrings_of_users(const struct kernel_key_layout *layout,
					  struct kernel_peek *peek, uint64_t address,
					  struct pool *pool, struct list *ret);
/* What the keyring at @address links to: list of uint64_t, addresses. */
struct cr_error *kernel_keyring_links(const struct kernel_key_layout *layout,
				      struct kernel_peek *peek, uint64_t address, struct pool *pool,
				      struct list *ret);

#endif
