/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "pool.h"

/* Under AddressSanitizer unused pool memory is poisoned: it sees chunks, we want it to see items.
 */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
enum { POOL_GUARD = 16 };
#define pool_poison(start, size)   ASAN_POISON_MEMORY_REGION(start, size)
#define pool_unpoison(start, size) ASAN_UNPOISON_MEMORY_REGION(start, size)
#else
enum { POOL_GUARD = 0 };
#define pool_poison(start, size)   ((void)(start), (void)(size))
#define pool_unpoison(start, size) ((void)(start), (void)(size))
#endif

enum {
	POOL_ALIGN = 16,
	POOL_PAGE = 4096,
	POOL_CHUNK = 1 << 20,
	/* A request above 1/4 of a chunk gets its own: at most that much of a chunk is wasted */
	POOL_LARGE = 4,
	LIST_ROOM = 8,
};

/* Head of a mapping; items follow. */
struct chunk {
	_Alignas(POOL_ALIGN) struct chunk *next;
	size_t size; /* all of the mapping */
	size_t used; /* of that, this head included */
};

/* Lives in its own first chunk. */
struct pool {
	_Alignas(POOL_ALIGN) struct chunk
		*current; /* being filled; full and large ones are behind */
	size_t chunk_size;
};

/* Rounds up to a multiple of @to, a power of two; false when that overflows. */
static bool round_up(size_t size, size_t to, size_t *ret)
{
	if (__builtin_add_overflow(size, to - 1, ret))
		return false;
	*ret &= ~(to - 1);
	return true;
}

/* @flags: MAP_POPULATE or 0. Fresh mappings are zeroed. */
static struct chunk *chunk_create(size_t size, int flags)
{
	struct chunk *chunk = mmap(NULL, size, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (chunk == MAP_FAILED)
		return NULL;
	chunk->size = size;
	chunk->used = sizeof(*chunk);
	pool_poison(chunk + 1, size - sizeof(*chunk));
	return chunk;
}

static void chunk_destroy(struct chunk *chunk)
{
	size_t size = chunk->size;

	pool_unpoison(chunk, size);
	munmap(chunk, size);
}

/* @room: @size rounded up, known to fit. */
static void *chunk_take(struct chunk *chunk, size_t size, size_t room)
{
	void *item = (char *)chunk + chunk->used;

	chunk->used += room;
	pool_unpoison(item, size);
	return item;
}

struct cr_error *pool_create(size_t chunk, struct pool **ret)
{
	struct chunk *first;
	struct pool *pool;
	size_t size;

	if (!round_up(chunk ? chunk : POOL_CHUNK, POOL_PAGE, &size))
		return error_nomem();
	/* Prefaulted: nobody shall wait for page faults inside the stop */
	first = chunk_create(size, MAP_POPULATE);
	if (!first)
		return error_nomem();
	pool = chunk_take(first, sizeof(*pool), sizeof(*pool) + POOL_GUARD);
	pool->current = first;
	pool->chunk_size = size;
	*ret = pool;
	return NULL;
}

void pool_destroy(struct pool *pool)
{
	struct chunk *chunk = pool ? pool->current : NULL;

	while (chunk) {
		struct chunk *next = chunk->next;

		chunk_destroy(chunk);
		chunk = next;
	}
}

/* A chunk for one item; it stays behind the current one, which is filled further. */
static void *pool_alloc_large(struct pool *pool, size_t size, size_t room)
{
	struct chunk *chunk;
	size_t mapped;

	if (__builtin_add_overflow(room, sizeof(*chunk), &mapped) ||
	    !round_up(mapped, POOL_PAGE, &mapped))
		return NULL;
	chunk = chunk_create(mapped, 0);
	if (!chunk)
		return NULL;
	chunk->next = pool->current->next;
	pool->current->next = chunk;
	return chunk_take(chunk, size, room);
}

void *pool_alloc(struct pool *pool, size_t size)
{
	size_t room;

	if (size == 0)
		size = 1; /* an address of its own, for callers that compare */
	if (__builtin_add_overflow(size, (size_t)POOL_GUARD, &room) ||
	    !round_up(room, POOL_ALIGN, &room))
		return NULL;
	if (room > pool->chunk_size / POOL_LARGE)
		return pool_alloc_large(pool, size, room);

	if (room > pool->current->size - pool->current->used) {
		struct chunk *chunk = chunk_create(pool->chunk_size, 0);

		if (!chunk)
			return NULL;
		chunk->next = pool->current;
		pool->current = chunk;
	}
	return chunk_take(pool->current, size, room);
}

void *pool_calloc(struct pool *pool, size_t count, size_t size)
{
	size_t total;

	if (__builtin_mul_overflow(count, size, &total))
		return NULL;
	return pool_alloc(pool, total);
}

void *pool_memdup(struct pool *pool, const void *data, size_t size)
{
	void *copy = pool_alloc(pool, size);

	if (copy && size)
		memcpy(copy, data, size);
	return copy;
}

char *pool_strndup(struct pool *pool, const char *text, size_t size)
{
	char *copy = size < SIZE_MAX ? pool_alloc(pool, size + 1) : NULL;

	if (copy && size)
		memcpy(copy, text, size);
	return copy;
}

void *list_append(struct pool *pool, struct list *list, size_t size)
{
	if (list->count == list->room) {
		size_t room;
		void *items;

		if (__builtin_mul_overflow(list->room, (size_t)2, &room))
			return NULL;
		room = room ? room : LIST_ROOM;
		items = pool_calloc(pool, room, size);
		if (!items)
			return NULL;
		if (list->count)
			memcpy(items, list->items, list->count * size);
		list->items = items;
		list->room = room;
	}
	return (char *)list->items + list->count++ * size;
}

int compare_pids(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}
