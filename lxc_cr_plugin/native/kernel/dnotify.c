/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dnotify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cleanup.h"

enum { MOST_ENTRIES = 1 << 20 };

/* Offsets of this kernel. */
struct layout {
	uint32_t list;	       /* struct fsnotify_mark_connector */
	uint32_t next, group;  /* struct fsnotify_mark, whose node begins with next */
	uint32_t ops, handler; /* struct fsnotify_group, fsnotify_ops */
	uint32_t first;	       /* struct dnotify_mark, if it is one */
	uint32_t following, mask, fd, file, process; /* struct dnotify_struct */
};

struct kernel_dnotify {
	struct kernel_peek *peek;
	struct layout layout;
	uint64_t handler; /* by which a mark of ours is known; 0: this kernel has no dnotify */
};

static const struct btf_wanted members[] = {
	{offsetof(struct layout, list), "fsnotify_mark_connector", "list.first"},
	{offsetof(struct layout, next), "fsnotify_mark", "obj_list.next"},
	{offsetof(struct layout, group), "fsnotify_mark", "group"},
	{offsetof(struct layout, ops), "fsnotify_group", "ops"},
	{offsetof(struct layout, handler), "fsnotify_ops", "handle_inode_event"},
	{offsetof(struct layout, first), "dnotify_mark", "dn"},
	{offsetof(struct layout, following), "dnotify_struct", "dn_next"},
	{offsetof(struct layout, mask), "dnotify_struct", "dn_mask"},
	{offsetof(struct layout, fd), "dnotify_struct", "dn_fd"},
	{offsetof(struct layout, file), "dnotify_struct", "dn_filp"},
	{offsetof(struct layout, process), "dnotify_struct", "dn_owner"},
};

/* The mark is told by its function, whose address only the kernel's list of symbols knows. */
static struct cr_error *find_handler(uint64_t *ret)
{
	_cleanup_fclose_ FILE *symbols = fopen("/proc/kallsyms", "re");
	char line[512], name[128];
	bool shown = false;

	*ret = 0;
	if (!symbols)
		return error_sys("Failed to open '/proc/kallsyms'");
	while (!*ret && fgets(line, sizeof(line), symbols)) {
		unsigned long address;

		if (sscanf(line, "%lx %*c %127s", &address, name) != 2)
			continue;
		shown |= address != 0;
		if (!strcmp(name, "dnotify_handle_event"))
			*ret = address;
	}
	if (*ret || shown)
		return NULL;
	return error_remedy(
		error_new(CR_HOST, "This kernel shows no addresses of its functions, by "
				   "which directory notification is recognized"),
		"Set kernel.kptr_restrict to 1 or less, or let nobody watch directories "
		"while the checkpoint is made");
}

struct cr_error *kernel_dnotify_open(const struct btf *btf, struct kernel_peek *peek,
				     struct kernel_dnotify **ret)
{
	_cleanup_free_ struct kernel_dnotify *dnotify = calloc(1, sizeof(*dnotify));

	if (!dnotify)
		return error_nomem();
	TRY(find_handler(&dnotify->handler));
	if (dnotify->handler)
		TRY(btf_offsets(btf, members, sizeof(members) / sizeof(members[0]),
				&dnotify->layout));
	dnotify->peek = peek;
	*ret = steal_pointer(&dnotify);
	return NULL;
}

void kernel_dnotify_close(struct kernel_dnotify *dnotify)
{
	free(dnotify);
}

static struct cr_error *follow(struct kernel_dnotify *dnotify, uint64_t address, uint32_t offset,
			       uint64_t *ret)
{
	return kernel_peek(dnotify->peek, address + offset, ret, sizeof(*ret));
}

static struct cr_error *is_ours(struct kernel_dnotify *dnotify, uint64_t mark, bool *ret)
{
	uint64_t at;

	TRY(follow(dnotify, mark, dnotify->layout.group, &at));
	TRY(follow(dnotify, at, dnotify->layout.ops, &at));
	TRY(follow(dnotify, at, dnotify->layout.handler, &at));
	*ret = at == dnotify->handler;
	return NULL;
}

static struct cr_error *take(struct kernel_dnotify *dnotify, uint64_t entry,
			     struct kernel_notice *ret)
{
	const struct layout *layout = &dnotify->layout;

	TRY(follow(dnotify, entry, layout->file, &ret->file));
	TRY(follow(dnotify, entry, layout->process, &ret->files));
	TRY(kernel_peek(dnotify->peek, entry + layout->fd, &ret->fd, sizeof(ret->fd)));
	return kernel_peek(dnotify->peek, entry + layout->mask, &ret->mask, sizeof(ret->mask));
}

static struct cr_error *take_all(struct kernel_dnotify *dnotify, uint64_t mark, struct pool *pool,
				 struct list *ret)
{
	uint64_t entry;

	TRY(follow(dnotify, mark, dnotify->layout.first, &entry));
	while (entry) {
		struct kernel_notice *notice = list_append(pool, ret, sizeof(*notice));

		if (!notice)
			return error_nomem();
		if (ret->count > MOST_ENTRIES)
			return error_new(CR_GONE, "Notifications changed while they were read");
		TRY(take(dnotify, entry, notice));
		TRY(follow(dnotify, entry, dnotify->layout.following, &entry));
	}
	return NULL;
}

struct cr_error *kernel_dnotify_read(struct kernel_dnotify *dnotify, uint64_t marks,
				     struct pool *pool, struct list *ret)
{
	uint64_t node;

	if (!dnotify->handler)
		return NULL;
	TRY(follow(dnotify, marks, dnotify->layout.list, &node));
	for (int i = 0; node && i < MOST_ENTRIES; i++) {
		uint64_t mark = node - dnotify->layout.next;
		bool ours;

		TRY(is_ours(dnotify, mark, &ours));
		/* a group has one mark on an inode */
		if (ours)
			return take_all(dnotify, mark, pool, ret);
		TRY(follow(dnotify, node, 0, &node));
	}
	return NULL;
}
