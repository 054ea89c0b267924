/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* On which NUMA nodes memory is to lie: a policy of a thread (set_mempolicy(2)) or of a mapping
 * (mbind(2)). */
#ifndef CR_NUMA_POLICY_H
#define CR_NUMA_POLICY_H

#include "../dump.h"
#include "../restore.h"

struct numa_policy {
	uint32_t mode;
	uint32_t home; /* node number + 1; 0: none */
	struct bytes nodes;
};

extern const struct field numa_policy_fields[];

/* Of the struct mempolicy at @address; 0: there is none. */
struct cr_error *numa_policy_dump(struct dump *dump, uint64_t address, struct numa_policy *ret);
/* Refuse shared memory that has a policy of its own; @file: struct file of a mapping, or 0. */
struct cr_error *numa_policy_check_shared(struct dump *dump, uint64_t file);

/* Append what gives the mapping its policy, and moves what lies elsewhere. */
struct cr_error *numa_policy_bind(struct program *p, const struct numa_policy *policy,
				  uint64_t start, uint64_t end);

#endif
