/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "epolls.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "../cleanup.h"

enum { MOST_ENTRIES = 1 << 24 };

/* Offsets of this kernel. */
struct layout {
	uint32_t private_data, root;
	/* in struct epitem, whose node of the tree comes first */
	uint32_t left, right, list, file, fd, event;
	uint32_t size; /* up to the last of them */
};

struct kernel_epolls {
	struct kernel_peek *peek;
	struct layout layout;
};

static const struct {
	size_t offset; /* in struct layout */
	const char *root, *path;
	uint32_t size;
} members[] = {
	{offsetof(struct layout, private_data), "file", "private_data", 8},
	{offsetof(struct layout, root), "eventpoll", "rbr.rb_root.rb_node", 8},
	{offsetof(struct layout, left), "epitem", "rbn.rb_left", 8},
	{offsetof(struct layout, right), "epitem", "rbn.rb_right", 8},
	{offsetof(struct layout, list), "epitem", "rdllink.next", 8},
	{offsetof(struct layout, file), "epitem", "ffd.file", 8},
	{offsetof(struct layout, fd), "epitem", "ffd.fd", 4},
	{offsetof(struct layout, event), "epitem", "event", sizeof(struct epoll_event)},
};

static struct cr_error *locate_all(const struct btf *btf, struct layout *layout)
{
	struct btf_place place;

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		TRY(btf_require(btf, members[i].root, members[i].path, &place));
		if (place.hop_count || place.bits || place.size != members[i].size)
			return error_new(CR_HOST, "Member %s of struct %s is another one here",
					 members[i].path, members[i].root);
		memcpy((uint8_t *)layout + members[i].offset, &place.offset, sizeof(uint32_t));
		if (!strcmp(members[i].root, "epitem") && place.offset + place.size > layout->size)
			layout->size = place.offset + place.size;
	}
	TRY(btf_require(btf, "epitem", "rbn", &place));
	return place.offset || layout->size > PEEK_MAX
		       ? error_new(CR_HOST, "struct epitem is another one here")
		       : NULL;
}

struct cr_error *kernel_epolls_open(const struct btf *btf, struct kernel_peek *peek,
				    struct kernel_epolls **ret)
{
	_cleanup_free_ struct kernel_epolls *epolls = calloc(1, sizeof(*epolls));

	if (!epolls)
		return error_nomem();
	TRY(locate_all(btf, &epolls->layout));
	epolls->peek = peek;
	*ret = steal_pointer(&epolls);
	return NULL;
}

void kernel_epolls_close(struct kernel_epolls *epolls)
{
	free(epolls);
}

static void decode(const struct layout *layout, const uint8_t *raw, uint64_t address,
		   struct kernel_epoll_entry *ret)
{
	struct epoll_event event;

	memcpy(&event, raw + layout->event, sizeof(event));
	memcpy(&ret->fd, raw + layout->fd, sizeof(ret->fd));
	ret->file = u64_at(raw, layout->file);
	ret->events = event.events;
	ret->data = event.data.u64;
	/* an entry that is in no list points to itself */
	ret->listed = u64_at(raw, layout->list) != address + layout->list;
}

static struct cr_error *push(struct pool *pool, struct list *left, uint64_t address)
{
	uint64_t *slot = address ? list_append(pool, left, sizeof(*slot)) : NULL;

	if (address && !slot)
		return error_nomem();
	if (address)
		*slot = address;
	return NULL;
}

struct cr_error *kernel_epoll_read(struct kernel_epolls *epolls, uint64_t file, struct pool *pool,
				   struct list *ret)
{
	const struct layout *layout = &epolls->layout;
	struct list left = {0}; /* nodes that were met and not looked at */
	uint64_t address;

	TRY(kernel_peek(epolls->peek, file + layout->private_data, &address, sizeof(address)));
	TRY(kernel_peek(epolls->peek, address + layout->root, &address, sizeof(address)));
	TRY(push(pool, &left, address));
	while (left.count) {
		struct kernel_epoll_entry *entry = list_append(pool, ret, sizeof(*entry));
		uint8_t raw[PEEK_MAX];

		if (!entry)
			return error_nomem();
		if (ret->count > MOST_ENTRIES)
			return error_new(CR_INTERNAL,
					 "The entries of an epoll instance go in circles");
		address = ((uint64_t *)left.items)[--left.count];
		TRY(kernel_peek(epolls->peek, address, raw, layout->size));
		decode(layout, raw, address, entry);
		TRY(push(pool, &left, u64_at(raw, layout->left)));
		TRY(push(pool, &left, u64_at(raw, layout->right)));
	}
	return NULL;
}
