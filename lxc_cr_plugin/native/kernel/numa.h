/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* NUMA memory policies: get_mempolicy(2) tells a task of its own, and nobody else. */
#ifndef CR_KERNEL_NUMA_H
#define CR_KERNEL_NUMA_H

#include <stdbool.h>
#include <stdint.h>

#include "../error.h"
#include "btf.h"
#include "peek.h"

enum { NUMA_NODES_MAX = 1024 };

struct kernel_numa_policy {
	uint32_t mode;			   /* with its flags, as set_mempolicy(2) takes it */
	int32_t home_node;		   /* set_mempolicy_home_node(2), -1: none */
	uint32_t nodes_len;		   /* bytes */
	uint8_t nodes[NUMA_NODES_MAX / 8]; /* a bit each */
};

struct kernel_numa_reader;

/* @peek stays the caller's, and stays open as long. */
struct cr_error *kernel_numa_reader_open(const struct btf *btf, struct kernel_peek *peek,
					 struct kernel_numa_reader **ret);
void kernel_numa_reader_close(struct kernel_numa_reader *reader); /* NULL is fine */

/* The struct mempolicy at @address. */
struct cr_error *kernel_numa_policy(struct kernel_numa_reader *reader, uint64_t address,
				    struct kernel_numa_policy *ret);
/* Has somebody given the shared memory behind struct @file a policy (mbind(2)), which is its own,
 * whoever maps it? */
struct cr_error *kernel_numa_is_shared(struct kernel_numa_reader *reader, uint64_t file, bool *ret);

#endif
