/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The only code of ours that ever runs inside a task, and only at restart: it executes a vector of
 * system calls, stores each result, stops at the first error. It has no other branch, touches no
 * stack and needs no relocation, so that it can be copied anywhere.
 */
#ifndef CR_BLOB_H
#define CR_BLOB_H

#include <stddef.h>
#include <stdint.h>

enum {
	OP_INDIRECT = 1,	  /* << n: argument n is the address of the value, not the value */
	OP_IGNORE_ERROR = 1 << 6, /* go on whatever the result */
};

/* One system call as the blob reads it. */
struct blob_op {
	uint32_t nr;
	uint32_t flags;
	uint64_t args[6];
	int64_t result;
};

extern const uint8_t __start_crblob[] __attribute__((visibility("hidden")));
extern const uint8_t __stop_crblob[] __attribute__((visibility("hidden")));

static inline size_t blob_size(void)
{
	return (size_t)(__stop_crblob - __start_crblob);
}

#endif
