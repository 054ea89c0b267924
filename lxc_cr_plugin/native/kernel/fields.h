/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Members of the kernel's structs into a record of ours: one line of a table for each, which both
 * finds the member in this kernel and assembles what reads it.
 */
#ifndef CR_KERNEL_FIELDS_H
#define CR_KERNEL_FIELDS_H

#include <stddef.h>

#include "bpf.h"
#include "btf.h"

enum { KERNEL_NAMES_MAX = 3 };

struct kernel_field {
	size_t offset; /* in the record */
	size_t size;
	const char *paths[KERNEL_NAMES_MAX]; /* from the struct; newest kernel first */
	bool optional;			     /* zero where a kernel has it not */
};

/* clang-format off */
#define KERNEL_FIELD(record, member, ...)                                                          \
	{                                                                                          \
		offsetof(record, member), sizeof(((record *)NULL)->member), { __VA_ARGS__ }, false \
	}
#define KERNEL_FIELD_IF_ANY(record, member, path)                                                  \
	{                                                                                          \
		offsetof(record, member), sizeof(((record *)NULL)->member), { path }, true         \
	}
/* clang-format on */

/* Where struct @root, by its id, has the field; CR_HOST when it has it not, or larger. */
struct cr_error *kernel_field_locate(const struct btf *btf, uint32_t root,
				     const struct kernel_field *field, struct btf_place *ret);

/* The part of a record that lies at a slot of the stack, offsets [start, end). */
struct kernel_part {
	size_t start, end;
	int slot;
};

/*
 * Read the fields that lie in @part of the object, a struct @root; its slot is zeroed.
 * Neighbours behind the same pointer share the way to it.
 */
struct cr_error *kernel_fields_read(struct bpf_code *code, const struct btf *btf, const char *root,
				    const struct kernel_field *fields, size_t count,
				    const struct kernel_part *part);

#endif
