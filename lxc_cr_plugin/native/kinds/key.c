/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keys of whoever is in the container, with what they hold. A key gets another serial number at a
 * restart: the kernel chooses it. Logon keys are there for the kernel alone, which promises that
 * nobody reads them: they are not copied into an image.
 */
#include "key.h"

#include <search.h>

enum { DEEPEST = 16, MOST_LINKS = 1 << 16, LONGEST_PAYLOAD = 32767 };

static const struct field link_fields[] = {
	FIELD_UINT(struct key_link, object, 1, UINT32_MAX, "key, object"),
	FIELD_END,
};

static const struct field key_fields[] = {
	FIELD_TEXT(struct key, type, 31, "user or keyring"),
	FIELD_PATH(struct key, description, "its name"),
	FIELD_UINT(struct key, uid, 0, UINT32_MAX, "owner"),
	FIELD_UINT(struct key, gid, 0, UINT32_MAX, "group; 4294967295: none"),
	FIELD_UINT(struct key, permissions, 0, 0x3f3f3f3f, "as keyctl(2) KEYCTL_SETPERM has them"),
	FIELD_UINT(struct key, remaining, 0, UINT64_MAX, "ns until it expires, 0: it does not"),
	FIELD_UINT(struct key, revoked, 0, 1, "KEYCTL_REVOKE"),
	FIELD_UINT(struct key, of_user, 0, KEY_PERSISTENT,
		   "a keyring that the kernel keeps for the owner: 1 of the user, 2 of his "
		   "sessions, 3 persistent"),
	FIELD_BYTES(struct key, payload, LONGEST_PAYLOAD, "what it holds"),
	FIELD_ROWS(struct key, links, struct key_link, link_fields, MOST_LINKS,
		   "what a keyring links to"),
	FIELD_END,
};

/* A key that was met. */
struct known_key {
	uint64_t address;
	uint32_t id; /* 0: it is as good as not there */
};

static int compare(const void *a, const void *b)
{
	const struct known_key *x = a, *y = b;

	return (x->address > y->address) - (x->address < y->address);
}

static struct cr_error *refuse(const struct kernel_key *key, const char *why, const char *remedy)
{
	struct cr_error *error = error_new(CR_UNSUPPORTED, "Key %d (%s: %s) %s", key->serial,
					   key->type, (const char *)key->description.data, why);

	return error_remedy(error_object(error, "key"), "%s", remedy);
}

static struct cr_error *check(const struct kernel_key *key)
{
	if (!strcmp(key->type, "keyring"))
		return key->restriction ? refuse(key, "restricts what may be linked to it",
						 "Not supported: unlink it (keyctl unlink)")
					: NULL;
	if (!strcmp(key->type, "user"))
		return NULL;
	return refuse(key,
		      !strcmp(key->type, "logon") ? "may be read by nobody but the kernel"
						  : "is of a type that cannot be saved",
		      "Not supported: unlink it (keyctl unlink), and add it again afterwards");
}

/* The kernel forgets such keys by itself, sooner or later. */
static bool is_gone(const struct dump *dump, const struct kernel_key *key)
{
	int64_t now = (int64_t)(dump->image.clocks.realtime / 1000000000u);

	if (key->state < 0 || key->flags & (KERNEL_KEY_DEAD | KERNEL_KEY_INVALIDATED))
		return true;
	return key->expiry && key->expiry != KERNEL_KEY_NEVER && key->expiry <= now;
}

static uint64_t remaining(const struct dump *dump, const struct kernel_key *key)
{
	if (!key->expiry || key->expiry == KERNEL_KEY_NEVER || key->expiry > INT64_MAX / 1000000000)
		return 0;
	return (uint64_t)key->expiry * 1000000000u - dump->image.clocks.realtime;
}

static uint32_t of_user(const struct kernel_key *key)
{
	const char *name = (const char *)key->description.data;

	if (key->flags & KERNEL_KEY_OF_USER)
		return !strncmp(name, "_uid_ses.", 9) ? KEY_USER_SESSION : KEY_USER;
	return !strcmp(key->type, "keyring") && !strncmp(name, "_persistent.", 12) ? KEY_PERSISTENT
										   : KEY_ORDINARY;
}

static struct cr_error *find(struct dump *dump, uint64_t address, int depth, uint32_t *ret);

/* Those are made by the thread itself, and nobody else may have them. */
static struct cr_error *check_link(const struct dump *dump, uint32_t id)
{
	const struct key *key = image_object(&dump->image, id)->state;
	const char *name = (const char *)key->description.data;

	if (!key_is_keyring(key) || (strcmp(name, "_tid") && strcmp(name, "_pid")))
		return NULL;
	return error_remedy(
		error_object(error_new(CR_UNSUPPORTED,
				       "The keyring of a thread or process (%s) is linked to "
				       "another one",
				       name),
			     "key"),
		"Not supported: unlink it (keyctl unlink)");
}

static struct cr_error *dump_links(struct dump *dump, uint64_t address, int depth, struct key *key)
{
	struct list addresses = {0};

	TRY(kernel_keyring_links(&dump->key_layout, dump->peek, address, dump->image.pool,
				 &addresses));
	for (size_t i = 0; i < addresses.count; i++) {
		struct key_link *link;
		uint32_t id;

		TRY(find(dump, ((uint64_t *)addresses.items)[i], depth + 1, &id));
		if (!id)
			continue;
		TRY(check_link(dump, id));
		link = list_append(dump->image.pool, &key->links, sizeof(*link));
		if (!link)
			return error_nomem();
		link->object = id;
	}
	return NULL;
}

static bool has_own_users(const struct dump *dump)
{
	return dump->image.ids.users.count > 0;
}

/* What it links to comes first, and has lower ids: so no image can go in circles. */
static struct cr_error *dump_key(struct dump *dump, uint64_t address, int depth,
				 const struct kernel_key *kernel, uint32_t *ret)
{
	struct key key = {
		.description = kernel->description,
		.uid = kernel->uid,
		.gid = kernel->gid,
		.permissions = kernel->perm & 0x3f3f3f3f,
		.remaining = remaining(dump, kernel),
		.revoked = !!(kernel->flags & KERNEL_KEY_REVOKED),
		.of_user = of_user(kernel),
	};
	struct object *object;

	TRY(check(kernel));
	key.type.len = strlen(kernel->type);
	key.type.data = (uint8_t *)pool_strndup(dump->image.pool, kernel->type, key.type.len);
	if (!key.type.data)
		return error_nomem();
	if (!key_is_keyring(&key))
		TRY(kernel_key_payload(&dump->key_layout, dump->peek, kernel, dump->image.pool,
				       &key.payload));
	else if (!key.revoked && (!key.of_user || has_own_users(dump)))
		TRY(dump_links(dump, address, depth, &key));
	object = image_add_object(&dump->image, &key_kind);
	if (!object)
		return error_nomem();
	*(struct key *)object->state = key;
	*ret = object->id;
	return NULL;
}

static struct cr_error *find(struct dump *dump, uint64_t address, int depth, uint32_t *ret)
{
	struct known_key *known = pool_alloc(dump->image.pool, sizeof(*known)), **slot;
	struct kernel_key key;

	if (!known)
		return error_nomem();
	if (depth > DEEPEST)
		return error_new(CR_UNSUPPORTED, "Keyrings are linked to each other too deeply");
	known->address = address;
	slot = tsearch(known, &dump->keys, compare);
	if (!slot)
		return error_nomem();
	if (*slot == known) {
		TRY(kernel_key_read(&dump->key_layout, dump->peek, address, dump->image.pool,
				    &key));
		if (!is_gone(dump, &key))
			TRY(dump_key(dump, address, depth, &key, &known->id));
		*ret = known->id;
		return NULL;
	}
	*ret = (*slot)->id;
	return NULL;
}

struct cr_error *key_object(struct dump *dump, uint64_t address, uint32_t *ret)
{
	return find(dump, address, 0, ret);
}

struct cr_error *keys_of_users(struct dump *dump)
{
	struct list keyrings = {0};
	uint32_t id;

	if (!dump->key_layout.known || !has_own_users(dump))
		return NULL;
	TRY(kernel_keyrings_of_users(&dump->key_layout, dump->peek, dump->init->kernel->user_ns,
				     dump->image.pool, &keyrings));
	for (size_t i = 0; i < keyrings.count; i++)
		TRY(key_object(dump, ((uint64_t *)keyrings.items)[i], &id));
	return NULL;
}

struct cr_error *key_keyring(const struct restore *restore, uint32_t id, struct object **ret)
{
	struct object *object = image_object(&restore->image, id);

	if (!object || object->kind != &key_kind || !key_is_keyring(object->state) ||
	    ((struct key *)object->state)->of_user)
		return error_new(CR_IMAGE, "Object %u is no keyring", id);
	*ret = object;
	return NULL;
}

const struct kind key_kind = {
	.name = "key",
	.doc = "Keys of type user and keyrings: owner, permissions, expiry, contents",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct key),
	.fields = key_fields,
	/* made by keys.c, in a process of their own */
};
