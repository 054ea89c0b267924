/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_KEY_H
#define CR_KEY_H

#include <string.h>

#include "../dump.h"
#include "../restore.h"

/*
 * Keyrings that the kernel keeps for a user: found by whose they are, never made by us. What they
 * hold is saved where the user namespace is the container's own; else it is the host's business.
 */
enum key_of_user { KEY_ORDINARY, KEY_USER, KEY_USER_SESSION, KEY_PERSISTENT };

struct key {
	struct bytes type, description;
	uint32_t uid, gid, permissions;
	uint64_t remaining; /* ns; 0: it does not expire */
	uint32_t revoked;
	uint32_t of_user; /* enum key_of_user */
	struct bytes payload;
	struct list links; /* struct key_link */
	/* restart only, keys.c */
	int32_t serial;
	uint32_t holder;
};

struct key_link {
	uint32_t object;
};

/* What a process and a thread begin with: include/linux/key.h of the kernel. */
#define KEY_POSSESSOR_ALL	  0x3f000000u
#define KEY_PERMISSIONS_SESSION	  0x3f030000u /* KEY_USR_VIEW and KEY_USR_READ */
#define KEY_PERMISSIONS_OF_THREAD 0x3f010000u /* KEY_USR_VIEW */

extern const struct kind key_kind;

/* The object of the key at this address of the kernel's, and whatever it links to. */
struct cr_error *key_object(struct dump *dump, uint64_t address, uint32_t *ret);

/* What users of the container have, whether or not somebody uses it. */
struct cr_error *keys_of_users(struct dump *dump);

/* Hostile input: object @id, which must be a keyring. */
struct cr_error *key_keyring(const struct restore *restore, uint32_t id, struct object **ret);

static inline bool key_is_keyring(const struct key *key)
{
	return !strcmp((const char *)key->type.data, "keyring");
}

#endif
