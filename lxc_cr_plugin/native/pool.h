/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A pool owns many small allocations and gives all of them back at once. Memory is zeroed. */
#ifndef CR_POOL_H
#define CR_POOL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

struct pool;

/* @chunk: bytes taken from the system at a time (0: 1 MiB); the first chunk is prefaulted. */
struct cr_error *pool_create(size_t chunk, struct pool **ret);
void pool_destroy(struct pool *pool); /* NULL is fine */

/* Never returns memory that is not zeroed; alignment 16; NULL when memory is out. */
void *pool_alloc(struct pool *pool, size_t size);

/* @count * @size with the multiplication checked; NULL when it overflows or memory is out. */
void *pool_calloc(struct pool *pool, size_t count, size_t size);

/* Copies of exactly @size bytes; pool_strndup() adds a NUL. NULL when memory is out. */
void *pool_memdup(struct pool *pool, const void *data, size_t size);
char *pool_strndup(struct pool *pool, const char *text, size_t size);

static inline void cleanup_pool(struct pool **pool)
{
	pool_destroy(*pool);
}

#define _cleanup_pool_ __attribute__((cleanup(cleanup_pool)))

/* A growing array whose items live in a pool: struct list { T *items; size_t count, room; }. */
struct list {
	void *items;
	size_t count;
	size_t room;
};

/* Append one zeroed item of @size bytes; NULL when memory is out. Item pointers become stale. */
void *list_append(struct pool *pool, struct list *list, size_t size);

/* For qsort(3) and bsearch(3) of pid_t, and of what begins with one. */
int compare_pids(const void *a, const void *b);

/* Bytes with their length: a path, a register set. After data comes a NUL, not counted by len. */
struct bytes {
	uint8_t *data;
	size_t len;
};

#endif
