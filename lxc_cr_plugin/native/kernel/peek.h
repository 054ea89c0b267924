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
#include <string.h>

#include "../error.h"
#include "btf.h"

enum { PEEK_MAX = 256 };

struct kernel_peek;

/* @btf: for kernels that are locked down; NULL: only where they are not. CR_HOST with a remedy when
 * this kernel refuses. */
struct cr_error *kernel_peek_open(const struct btf *btf, struct kernel_peek **ret);
void kernel_peek_close(struct kernel_peek *peek); /* NULL is fine */

/* @size: 1 .. PEEK_MAX bytes. Takes about a microsecond. */
struct cr_error *kernel_peek(struct kernel_peek *peek, uint64_t address, void *buffer, size_t size);

/* What the kernel's tick counter adds up, ns. */
uint64_t kernel_tick_ns(void);

/* The last tick: its number, which the kernel's own deadlines are written in, and its time,
 * CLOCK_MONOTONIC ns of the initial time namespace. */
struct kernel_tick {
	uint64_t jiffies, ns;
};

struct cr_error *kernel_last_tick(struct kernel_peek *peek, struct kernel_tick *ret);
/* When the clock of ticks shows @jiffies, ns; 0: before the host was up. */
uint64_t kernel_tick_to_ns(const struct kernel_tick *last, uint64_t jiffies);

/* Members of a struct whose bytes were read; they need not be aligned. */
static inline uint32_t u32_at(const uint8_t *raw, uint32_t offset)
{
	uint32_t value;

	memcpy(&value, raw + offset, sizeof(value));
	return value;
}

static inline uint64_t u64_at(const uint8_t *raw, uint32_t offset)
{
	uint64_t value;

	memcpy(&value, raw + offset, sizeof(value));
	return value;
}

#endif
