/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The hash table that a process has for its private futexes alone, Linux 6.16. */
#ifndef CR_KERNEL_FUTEX_HASH_H
#define CR_KERNEL_FUTEX_HASH_H

#include <stdbool.h>
#include <stdint.h>

#include "btf.h"
#include "peek.h"

/* Where this kernel has the members of struct futex_private_hash; zeros: it has no such tables. */
struct kernel_futex_layout {
	bool known;
	uint32_t mask, custom;
};

void kernel_futex_locate(const struct btf *btf, struct kernel_futex_layout *ret);

struct kernel_futex_hash {
	bool custom;	/* PR_FUTEX_HASH_SET_SLOTS has asked for it; else the kernel's own choice */
	uint32_t slots; /* 0: the table of all processes, for ever */
};

/* @address: of struct futex_private_hash, 0: none. */
struct cr_error *kernel_futex_read(const struct kernel_futex_layout *layout,
				   struct kernel_peek *peek, uint64_t address,
				   struct kernel_futex_hash *ret);

#endif
