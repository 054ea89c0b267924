/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keys.h"

#include <linux/btf.h>
#include <string.h>

enum { LONGEST_DESCRIPTION = 4095, MOST_LINKS = 1 << 16, MOST_SLOTS = 64 };

/* Members of one struct. */
struct member {
	size_t offset; /* of its uint32_t in struct kernel_key_layout */
	const char *path;
};

#define MEMBER(name, path)                                                                         \
	{                                                                                          \
		offsetof(struct kernel_key_layout, name), path                                     \
	}

static const struct member of_key[] = {
	MEMBER(serial, "serial"),
	MEMBER(expiry, "expiry"),
	MEMBER(uid, "uid"),
	MEMBER(gid, "gid"),
	MEMBER(perm, "perm"),
	MEMBER(state, "state"),
	MEMBER(flags, "flags"),
	MEMBER(type, "type"),
	MEMBER(description, "description"),
	MEMBER(index, "index_key"),
	MEMBER(payload, "payload"),
	MEMBER(root, "keys.root"),
	MEMBER(restriction, "restrict_link"),
	{0},
};
static const struct member of_type[] = {MEMBER(type_name, "name"), {0}};
static const struct member of_namespace[] = {MEMBER(users, "user_keyring_register"), {0}};
static const struct member of_index[] = {MEMBER(index_length, "desc_len"), {0}};
static const struct member of_payload[] = {
	MEMBER(data_length, "datalen"), MEMBER(data, "data[0]"), {0}};
static const struct member of_node[] = {MEMBER(slots, "slots"), {0}};
static const struct member of_shortcut[] = {MEMBER(next_node, "next_node"), {0}};

static const struct {
	const char *name;
	const struct member *members;
} structs[] = {
	{"user_namespace", of_namespace},
	{"key", of_key},
	{"key_type", of_type},
	{"keyring_index_key", of_index},
	{"assoc_array_node", of_node},
	{"assoc_array_shortcut", of_shortcut},
	{"user_key_payload", of_payload},
};

static struct cr_error *locate(const struct btf *btf, uint32_t id, const struct member *members,
			       struct kernel_key_layout *ret)
{
	struct btf_place place;

	for (; members->path; members++) {
		if (!btf_locate(btf, id, members->path, &place) || place.hop_count || place.bits)
			return error_new(CR_HOST, "This kernel has no member %s in struct %s",
					 members->path, btf_name(btf, id));
		memcpy((uint8_t *)ret + members->offset, &place.offset, sizeof(uint32_t));
	}
	return NULL;
}

struct cr_error *kernel_keys_locate(const struct btf *btf, struct kernel_key_layout *ret)
{
	struct btf_place place;
	uint32_t id = 0;

	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < sizeof(structs) / sizeof(structs[0]); i++) {
		id = btf_find(btf, BTF_KIND_STRUCT, structs[i].name);
		if (!id)
			return NULL; /* CONFIG_KEYS is not set */
		TRY(locate(btf, id, structs[i].members, ret));
	}
	id = btf_find(btf, BTF_KIND_STRUCT, "assoc_array_node");
	if (!btf_locate(btf, id, "slots", &place) || place.size / 8 > MOST_SLOTS)
		return error_new(CR_HOST, "This kernel keeps keyrings in another way");
	ret->slot_count = place.size / 8;
	ret->known = true;
	return NULL;
}

/* Any number of bytes. */
static struct cr_error *peek_all(struct kernel_peek *peek, uint64_t address, void *buffer,
				 size_t size)
{
	for (size_t done = 0; done < size; done += PEEK_MAX) {
		size_t part = size - done < PEEK_MAX ? size - done : PEEK_MAX;

		TRY(kernel_peek(peek, address + done, (uint8_t *)buffer + done, part));
	}
	return NULL;
}

static struct cr_error *read_type(const struct kernel_key_layout *layout, struct kernel_peek *peek,
				  uint64_t key, struct kernel_key *ret)
{
	uint64_t type, name;

	TRY(kernel_peek(peek, key + layout->type, &type, sizeof(type)));
	TRY(kernel_peek(peek, type + layout->type_name, &name, sizeof(name)));
	TRY(kernel_peek(peek, name, ret->type, sizeof(ret->type) - 1));
	return NULL;
}

static struct cr_error *read_description(const struct kernel_key_layout *layout,
					 struct kernel_peek *peek, uint64_t key, struct pool *pool,
					 struct bytes *ret)
{
	uint64_t text;
	uint16_t length;

	TRY(kernel_peek(peek, key + layout->index + layout->index_length, &length, sizeof(length)));
	TRY(kernel_peek(peek, key + layout->description, &text, sizeof(text)));
	if (length > LONGEST_DESCRIPTION)
		return error_new(CR_INTERNAL, "A key has a description of %u bytes", length);
	ret->data = pool_alloc(pool, length + 1u);
	if (!ret->data)
		return error_nomem();
	TRY(peek_all(peek, text, ret->data, length));
	ret->len = strlen((char *)ret->data);
	return NULL;
}

struct cr_error *kernel_key_read(const struct kernel_key_layout *layout, struct kernel_peek *peek,
				 uint64_t address, struct pool *pool, struct kernel_key *ret)
{
	const struct {
		uint32_t at;
		void *to;
		size_t size;
	} parts[] = {
		{layout->serial, &ret->serial, sizeof(ret->serial)},
		{layout->uid, &ret->uid, sizeof(ret->uid)},
		{layout->gid, &ret->gid, sizeof(ret->gid)},
		{layout->perm, &ret->perm, sizeof(ret->perm)},
		{layout->expiry, &ret->expiry, sizeof(ret->expiry)},
		{layout->state, &ret->state, sizeof(ret->state)},
		{layout->flags, &ret->flags, sizeof(ret->flags)},
		{layout->restriction, &ret->restriction, sizeof(ret->restriction)},
		{layout->payload, &ret->payload, sizeof(ret->payload)},
	};

	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		TRY(kernel_peek(peek, address + parts[i].at, parts[i].to, parts[i].size));
	TRY(read_type(layout, peek, address, ret));
	return read_description(layout, peek, address, pool, &ret->description);
}

struct cr_error *kernel_key_payload(const struct kernel_key_layout *layout,
				    struct kernel_peek *peek, const struct kernel_key *key,
				    struct pool *pool, struct bytes *ret)
{
	uint16_t length;

	TRY(kernel_peek(peek, key->payload + layout->data_length, &length, sizeof(length)));
	ret->data = pool_alloc(pool, length + 1u);
	if (!ret->data)
		return error_nomem();
	ret->len = length;
	return peek_all(peek, key->payload + layout->data, ret->data, length);
}

/* ---- keyrings: the kernel's lib/assoc_array.c ---- */

/* The lowest bits of a pointer in the tree: to a node or shortcut, else to a key; to a shortcut. */
enum { POINTER_INNER = 1, POINTER_SHORTCUT = 2, POINTER_BITS = 3 };

/* @pointers: those still to be followed; keys go to @ret. */
static struct cr_error *follow(const struct kernel_key_layout *layout, struct kernel_peek *peek,
			       uint64_t pointer, struct pool *pool, struct list *pointers,
			       struct list *ret)
{
	uint64_t address = pointer & ~(uint64_t)POINTER_BITS, found[MOST_SLOTS], *slot;
	size_t count = 1;

	if (!(pointer & POINTER_INNER)) {
		slot = list_append(pool, ret, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = address;
		return NULL;
	}
	if (pointer & POINTER_SHORTCUT) {
		TRY(kernel_peek(peek, address + layout->next_node, found, sizeof(found[0])));
	} else {
		count = layout->slot_count;
		TRY(peek_all(peek, address + layout->slots, found, count * sizeof(found[0])));
	}
	for (size_t i = 0; i < count; i++) {
		if (!found[i])
			continue;
		slot = list_append(pool, pointers, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = found[i];
	}
	return NULL;
}

struct cr_error *kernel_keyring_links(const struct kernel_key_layout *layout,
				      struct kernel_peek *peek, uint64_t address, struct pool *pool,
				      struct list *ret)
{
	struct list pointers = {0};
	uint64_t root;

	TRY(kernel_peek(peek, address + layout->root, &root, sizeof(root)));
	if (!root)
		return NULL;
	TRY(follow(layout, peek, root, pool, &pointers, ret));
	for (size_t done = 0; done < pointers.count; done++) {
		if (done > MOST_LINKS)
			return error_new(CR_INTERNAL, "A keyring goes in circles");
		TRY(follow(layout, peek, ((uint64_t *)pointers.items)[done], pool, &pointers, ret));
	}
	return NULL;
}

struct cr_error *kernel_keyrings_of_users(const struct kernel_key_layout *layout,
					  struct kernel_peek *peek, uint64_t address,
					  struct pool *pool, struct list *ret)
{
	uint64_t keyring;

	TRY(kernel_peek(peek, address + layout->users, &keyring, sizeof(keyring)));
	return keyring ? kernel_keyring_links(layout, peek, keyring, pool, ret) : NULL;
}
