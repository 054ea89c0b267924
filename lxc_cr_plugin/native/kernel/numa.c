/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "numa.h"

#include <linux/btf.h>
#include <linux/magic.h>
#include <linux/mempolicy.h>
#include <stdlib.h>
#include <string.h>

#include "../cleanup.h"

#ifndef MPOL_F_NUMA_BALANCING
#define MPOL_F_NUMA_BALANCING (1 << 13) /* Linux 5.12 */
#endif

enum { USER_FLAGS = MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES | MPOL_F_NUMA_BALANCING };

/* Offsets of this kernel. */
struct kernel_numa_reader {
	struct kernel_peek *peek;
	bool none; /* a kernel without them */
	uint32_t mode, flags, nodes, nodes_len, given_nodes, home_node;
	uint32_t inode, super, magic;
	uint32_t shmem_inode, shmem_policy; /* in struct shmem_inode_info */
};

static const struct btf_wanted members[] = {
	{offsetof(struct kernel_numa_reader, mode), "mempolicy", "mode"},
	{offsetof(struct kernel_numa_reader, flags), "mempolicy", "flags"},
	{offsetof(struct kernel_numa_reader, nodes), "mempolicy", "nodes"},
	{offsetof(struct kernel_numa_reader, given_nodes), "mempolicy", "w.user_nodemask"},
	{offsetof(struct kernel_numa_reader, home_node), "mempolicy", "home_node"},
	{offsetof(struct kernel_numa_reader, inode), "file", "f_inode"},
	{offsetof(struct kernel_numa_reader, super), "inode", "i_sb"},
	{offsetof(struct kernel_numa_reader, magic), "super_block", "s_magic"},
	{offsetof(struct kernel_numa_reader, shmem_inode), "shmem_inode_info", "vfs_inode"},
	{offsetof(struct kernel_numa_reader, shmem_policy), "shmem_inode_info",
	 "policy.root.rb_node"},
};

static struct cr_error *locate_all(const struct btf *btf, struct kernel_numa_reader *reader)
{
	struct btf_place place;

	TRY(btf_offsets(btf, members, sizeof(members) / sizeof(members[0]), reader));
	TRY(btf_require(btf, "mempolicy", "nodes", &place));
	reader->nodes_len = place.size;
	return place.size <= NUMA_NODES_MAX / 8
		       ? NULL
		       : error_new(CR_HOST, "This kernel has more than %d NUMA nodes",
				   NUMA_NODES_MAX);
}

struct cr_error *kernel_numa_reader_open(const struct btf *btf, struct kernel_peek *peek,
					 struct kernel_numa_reader **ret)
{
	_cleanup_free_ struct kernel_numa_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return error_nomem();
	reader->none = !btf_struct_size(btf, "mempolicy");
	if (!reader->none)
		TRY(locate_all(btf, reader));
	reader->peek = peek;
	*ret = steal_pointer(&reader);
	return NULL;
}

void kernel_numa_reader_close(struct kernel_numa_reader *reader)
{
	free(reader);
}

struct cr_error *kernel_numa_policy(struct kernel_numa_reader *reader, uint64_t address,
				    struct kernel_numa_policy *ret)
{
	struct kernel_peek *peek = reader->peek;
	uint16_t mode, flags;
	bool given;

	*ret = (struct kernel_numa_policy){.nodes_len = reader->nodes_len};
	TRY(kernel_peek(peek, address + reader->mode, &mode, sizeof(mode)));
	TRY(kernel_peek(peek, address + reader->flags, &flags, sizeof(flags)));
	ret->mode = mode | (flags & USER_FLAGS);
	/* with these the kernel remembers what it was told, and derives the nodes of the day */
	given = flags & (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES);
	TRY(kernel_peek(peek, address + (given ? reader->given_nodes : reader->nodes), ret->nodes,
			ret->nodes_len));
	return kernel_peek(peek, address + reader->home_node, &ret->home_node,
			   sizeof(ret->home_node));
}

struct cr_error *kernel_numa_is_shared(struct kernel_numa_reader *reader, uint64_t file, bool *ret)
{
	uint64_t inode, super, magic, root;

	*ret = false;
	if (reader->none)
		return NULL;
	TRY(kernel_peek(reader->peek, file + reader->inode, &inode, sizeof(inode)));
	TRY(kernel_peek(reader->peek, inode + reader->super, &super, sizeof(super)));
	TRY(kernel_peek(reader->peek, super + reader->magic, &magic, sizeof(magic)));
	if (magic != TMPFS_MAGIC)
		return NULL;
	TRY(kernel_peek(reader->peek, inode - reader->shmem_inode + reader->shmem_policy, &root,
			sizeof(root)));
	*ret = root != 0;
	return NULL;
}
