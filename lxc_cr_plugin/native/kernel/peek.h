/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading kernel memory: a BPF program of a dozen instructions copies what lies at an address that
 * came out of an iterator or out of the last such copy. So a list in the kernel is followed by
 * ordinary C out here. What is read may change or be freed meanwhile: a copy is material to check,
 * an address that cannot be read is an error, and nothing is ever written.
 */
#ifndef CR_KERNEL_PEEK_H
#define CR_KERNEL_PEEK_H

#include <stdint.h>

#include "../error.h"

enum { PEEK_MAX = 256 };

struct kernel_peek;

/* No BTF is needed. CR_HOST with a remedy when this kernel refuses. */
struct cr_error *kernel_peek_open(struct kernel_peek **ret);
void kernel_peek_close(struct kernel_peek *peek); /* NULL is fine */

/* @size: 1 .. PEEK_MAX bytes. Takes about a microsecond. */
struct cr_error *kernel_peek(struct kernel_peek *peek, uint64_t address, void *buffer, size_t size);

/* The kernel's tick counter, which its own deadlines are written in. */
struct cr_error *kernel_jiffies(struct kernel_peek *peek, uint64_t *ret);

#endif
