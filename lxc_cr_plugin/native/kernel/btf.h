/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel's own description of its types (BTF): where does this kernel keep a member of a
 * struct? Only what the iterators need: find a type by name, follow a path of members.
 */
#ifndef CR_KERNEL_BTF_H
#define CR_KERNEL_BTF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../error.h"

enum { BTF_HOPS = 4 };

/* The way from a struct to a member of it, or of a struct that it points to. */
struct btf_place {
	uint32_t hops[BTF_HOPS]; /* offsets of the pointers to follow, first one first */
	uint32_t hop_count;
	uint32_t offset; /* in the last struct, bytes */
	uint32_t size;	 /* bytes; of a bit-field: those of the integer that contains it */
	uint32_t bit;	 /* a bit-field's lowest bit in that integer */
	uint32_t bits;	 /* and its width; 0: not a bit-field */
};

struct btf; /* all types of the running kernel */

/* CR_HOST with a remedy when this kernel does not describe itself. */
struct cr_error *btf_open(struct btf **ret);
void btf_close(struct btf *btf); /* NULL is fine */

/* For tests: programs are made as for a kernel that is locked down. */
void btf_forbid_probes(struct btf *btf);
bool btf_is_without_probes(const struct btf *btf);

/* Id of the type of this kind (BTF_KIND_STRUCT, BTF_KIND_FUNC, ...) and name; 0: there is none. */
uint32_t btf_find(const struct btf *btf, unsigned int kind, const char *name);

/* Bytes; 0: this kernel has no such struct. */
uint32_t btf_struct_size(const struct btf *btf, const char *name);

/* Name of a type, for messages. */
const char *btf_name(const struct btf *btf, uint32_t id);

/*
 * @path is written as in C, seen from struct @root: "signal->it[1].expires". Members of anonymous
 * structs and unions are found as if they were members of what surrounds them. False: this kernel
 * has no such member.
 */
bool btf_locate(const struct btf *btf, uint32_t root, const char *path, struct btf_place *ret);

/* The same by name of the root, for members that every kernel of interest has; CR_HOST when it has
 * not. */
struct cr_error *btf_require(const struct btf *btf, const char *root, const char *path,
			     struct btf_place *ret);

/* Where this kernel has a member that lies in its struct itself. */
struct btf_wanted {
	size_t offset; /* of a uint32_t in a struct of ours, which gets its offset */
	const char *root, *path;
};

/* All of them, into @layout; CR_HOST when one is not there, or not so. */
struct cr_error *btf_offsets(const struct btf *btf, const struct btf_wanted *wanted, size_t count,
			     void *layout);

/* Offset of numbers[] in struct pid. */
uint32_t btf_pid_numbers(const struct btf *btf);

static inline void cleanup_btf(struct btf **btf)
{
	btf_close(*btf);
}

#define _cleanup_btf_ __attribute__((cleanup(cleanup_btf)))

#endif
